#!/bin/sh
# Asks the public data base of vulnerabilities about constraints.txt and prints what it knows. An
# answer depends on the day and on the network, not on the tree, so this never fails.
cd "$(dirname "$0")/.." || exit 0

say() { echo "audit: $*" >&2; }

set --
if command -v pip-audit >/dev/null 2>&1; then
    set -- pip-audit
else
    # Where tools/setup.sh finds or puts it.
    for uv in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" .tools/uv/bin/uv .tools/uv-target/bin/uv; do
        "$uv" --version >/dev/null 2>&1 && set -- "$uv" tool run --quiet pip-audit && break
    done
fi
if [ $# = 0 ]; then
    say "neither pip-audit nor uv is here; not audited"
    exit 0
fi

answer=$(timeout "${AUDIT_SECONDS:-180}" "$@" --requirement constraints.txt --no-deps \
    --disable-pip --progress-spinner off 2>&1)
case $answer in
*"No known vulnerabilities found"*) say "no known vulnerabilities in constraints.txt" ;;
*"known vulnerabilit"*) say "in constraints.txt:" && printf '%s\n' "$answer" >&2 ;;
*) say "no answer, not audited: $(printf '%s\n' "$answer" | tail -n 1 | cut -c1-160)" ;;
esac
exit 0

#!/bin/sh
# Builds .venv from pyproject.toml and constraints.txt: finds or fetches uv and Python 3.10.
# Usage: sh tools/setup.sh        EP_PYTHON=/path/to/python3.10 chooses the interpreter.
set -eu

cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$1" >&2; }

give_up() {
    say "$1"
    exit 2
}

is_310() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1; }

# Prints the path of uv. `uv --version` is run because a version manager's shim may exist and fail.
find_uv() {
    for candidate in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" \
        .tools/uv/bin/uv .tools/uv-target/bin/uv; do
        if "$candidate" --version >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

install_uv() {
    command -v python3 >/dev/null 2>&1 ||
        give_up "python3 is not on PATH; install any Python 3 (Debian: apt install python3-venv), then run make again"
    say "uv is not here; installing it into .tools (nothing outside this folder changes)"
    mkdir -p .tools
    if python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
        python3 -m venv .tools/uv && .tools/uv/bin/python -m pip install --quiet uv && return 0
    elif python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip install --quiet --target .tools/uv-target uv && return 0
    else
        give_up "python3 has neither venv nor pip to install uv with; install one (Debian: apt install python3-venv) or uv itself, then run make again"
    fi
    give_up "uv could not be installed (see above); check the network, or install uv yourself, then run make again"
}

# Prints the path of a working Python 3.10.
find_python() {
    if [ -n "${EP_PYTHON:-}" ]; then
        is_310 "$EP_PYTHON" && printf '%s\n' "$EP_PYTHON"
        return
    fi
    for candidate in python3.10 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
        if is_310 "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    found=$("$uv" python find 3.10 2>/dev/null) && is_310 "$found" && printf '%s\n' "$found"
}

fetch_python() {
    say "no Python 3.10 on PATH or in pyenv; asking uv to download one"
    "$uv" python install 3.10 >&2 && find_python
}

if [ -n "${EP_PYTHON:-}" ] && ! is_310 "$EP_PYTHON"; then
    give_up "EP_PYTHON=$EP_PYTHON is not a Python 3.10, which Lava needs; name one, or unset EP_PYTHON"
fi
uv=$(find_uv) || { install_uv && uv=$(find_uv); } ||
    give_up "uv was installed into .tools but does not run here; install uv yourself, then run make again"
python=$(find_python) || python=$(fetch_python) ||
    give_up "Python 3.10 is needed (Lava runs on no other) and uv could not download it; install it (pyenv install 3.10, or your system's python3.10) or set EP_PYTHON=/path/to/python3.10, then run make again"

say "building .venv with $python"
# A changed requirement must not leave old packages behind, and uv's cache makes this cheap.
rm -rf .venv
"$uv" venv --quiet --python "$python" .venv
"$uv" pip install --quiet --python .venv/bin/python --constraint constraints.txt --editable '.[dev]' ||
    give_up "the packages could not be installed (see above); check the network and the disk, then run make again"
touch .venv/.stamp
say "done"

#!/bin/sh
# Builds .venv (Python 3.12, from pyproject.toml and constraints.txt) and, for Lava, .venv-lava
# (Python 3.10, from constraints-lava.txt): finds or fetches uv and both Pythons.
# Usage: sh tools/setup.sh
#   EP_PYTHON=/path/to/python        chooses the first, a 3.11 to 3.13
#   EP_PYTHON310=/path/to/python3.10 chooses the second
set -eu

cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$1" >&2; }

give_up() {
    say "$1"
    exit 2
}

# is_python PATH VERSION: whether PATH runs here and is a Python of that version, such as 3.12.
is_python() {
    "$1" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$2" >/dev/null 2>&1
}

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

# find_python VERSION: prints the path of one that works.
find_python() {
    for candidate in "python$1" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if is_python "$candidate" "$1"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    found=$("$uv" python find "$1" 2>/dev/null) && is_python "$found" "$1" && printf '%s\n' "$found"
}

fetch_python() {
    say "no Python $1 on PATH or in pyenv; asking uv to download one"
    "$uv" python install "$1" >/dev/null 2>&1 && find_python "$1"
}

if [ -n "${EP_PYTHON:-}" ] && ! is_python "$EP_PYTHON" 3.12 && ! is_python "$EP_PYTHON" 3.11 &&
    ! is_python "$EP_PYTHON" 3.13; then
    give_up "EP_PYTHON=$EP_PYTHON is not a Python 3.11 to 3.13; name one, or unset EP_PYTHON"
fi
if [ -n "${EP_PYTHON310:-}" ] && ! is_python "$EP_PYTHON310" 3.10; then
    give_up "EP_PYTHON310=$EP_PYTHON310 is not a Python 3.10, which Lava needs; name one, or unset EP_PYTHON310"
fi
uv=$(find_uv) || { install_uv && uv=$(find_uv); } ||
    give_up "uv was installed into .tools but does not run here; install uv yourself, then run make again"
python=${EP_PYTHON:-}
[ -n "$python" ] || python=$(find_python 3.12) || python=$(fetch_python 3.12) ||
    python=$(find_python 3.13) || python=$(find_python 3.11) ||
    give_up "Python 3.12 is needed (3.11 and 3.13 do) and uv could not download it; install it (pyenv install 3.12, or your system's python3.12) or set EP_PYTHON=/path/to/python, then run make again"

# Bytecode: half a minute here saves seconds at each start where Python may not write it itself.
say "building .venv with $python"
# A changed requirement must not leave old packages behind, and uv's cache makes this cheap.
rm -rf .venv .venv-lava
"$uv" venv --quiet --python "$python" .venv
if is_python "$python" 3.12; then
    set -- --constraint constraints.txt
else
    say "constraints.txt is for Python 3.12; taking the newest versions that pyproject.toml allows"
    set --
fi
"$uv" pip install --quiet --compile-bytecode --python .venv/bin/python "$@" --editable '.[dev,docs,crossbar,nest,pynn,cluster]' ||
    give_up "the packages could not be installed (see above); check the network and the disk, then run make again"
# NeuroBench asks for data sets, audio and numba, which its metrics do not import.
"$uv" pip install --quiet --compile-bytecode --python .venv/bin/python "$@" --no-deps 'neurobench==2.3.*' snntorch ||
    say "NeuroBench could not be installed; what asks for it says so, and its tests skip"

python310=${EP_PYTHON310:-}
if [ -n "$python310" ] || python310=$(find_python 3.10) || python310=$(fetch_python 3.10); then
    say "building .venv-lava with $python310"
    "$uv" venv --quiet --python "$python310" .venv-lava
    "$uv" pip install --quiet --compile-bytecode --python .venv-lava/bin/python --requirement constraints-lava.txt ||
        give_up "Lava could not be installed (see above); check the network and the disk, then run make again"
else
    say "no Python 3.10, so the target lava cannot run here and its tests skip; install one (pyenv install 3.10) or set EP_PYTHON310=/path/to/python3.10, then remove .venv and run make again"
fi
say "compiling the loops of spikes"
.venv/bin/python tools/warm_up.py ||
    say "no spikes could be learnt from here (see above); tests will say what is wrong"
touch .venv/.stamp
say "done"

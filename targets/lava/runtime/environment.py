"""Lava's room: the environment of its own in which Lava runs, and whether it is here.

Lava is archived: lava-nc 0.10.0 of 2024 is its last release, and needs Python 3.10 and NumPy 1.
The rest of ep-neuro runs on a Python that is maintained, and starts Lava beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

PYTHON = "3.10"
"""The only Python that lava-nc 0.10 runs on."""

PACKAGE = "lava-nc==0.10.0"
"""The last release, as package installers name it."""

ARCHIVED = (
    "archived: since 13 May 2026 Intel gives Lava no maintenance, fixes or releases; "
    "brian2 and nir are maintained"
)
"""What to know before one relies on it."""

VARIABLE = "EP_NEURO_LAVA_PYTHON"
"""Environment variable with the path of a Python that has Lava."""

FOLDER = ".venv-lava"
"""Name of Lava's environment, beside the one that runs; `make setup` builds it there."""

PROBE_SECONDS = 30.0
"""Time that an interpreter has to say what it is."""

PACKAGES = {"lava": PACKAGE, "numba": "numba"}
"""Modules that it needs beside Python, each as package installers name it."""

_PROBE = (
    "import sys, importlib.util as u;"
    f"print('%d.%d' % sys.version_info[:2], *[n for n in {[*PACKAGES]} if not u.find_spec(n)])"
)
_NAME_ONE = f"name a Python {PYTHON} that has {' and '.join(PACKAGES.values())} in {VARIABLE}"


def interpreter() -> str:
    """Path of Lava's Python: the one that `VARIABLE` names, or that of the folder `FOLDER`."""
    beside = Path(sys.prefix).parent / FOLDER / "bin" / "python"
    return os.environ.get(VARIABLE) or str(beside)


def missing() -> tuple[str, str] | None:
    """What keeps Lava from running, and the remedy; None if it can run."""
    python = interpreter()
    if not os.path.exists(python):
        if os.environ.get(VARIABLE):
            return f"{VARIABLE}={python} does not exist", _NAME_ONE
        return (
            f"Lava, archived by Intel, needs an environment of its own, and there is no "
            f"{Path(python).parents[1]}",
            f"run `make setup` in a clone of ep-neuro where there is a Python {PYTHON}, "
            f"or {_NAME_ONE}",
        )
    try:
        version, *absent = _probed(python)
    except (OSError, ValueError, subprocess.SubprocessError):
        return f"{python} is no Python that runs here", _NAME_ONE
    if version != PYTHON:
        return f"Lava needs Python {PYTHON} and {python} is {version}", _NAME_ONE
    if absent:
        packages = " ".join(PACKAGES[name] for name in absent)
        return (
            f"{python} has no {' and no '.join(map(str.capitalize, absent))}",
            f"run `{python} -m pip install {packages}`, or {_NAME_ONE}",
        )
    return None


@cache
def _probed(python: str) -> list[str]:
    """Version of an interpreter, and which of `PACKAGES` it lacks."""
    done = subprocess.run(
        [python, "-I", "-c", _PROBE],
        capture_output=True,
        text=True,
        check=True,
        timeout=PROBE_SECONDS,
    )
    version, *absent = done.stdout.split()
    if not set(absent) <= set(PACKAGES):
        raise ValueError(done.stdout)
    return [version, *absent]

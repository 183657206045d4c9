"""Guard against other modules called `compilers` or `targets` that hide ep-neuro's own."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

from ep_neuro.errors import ConfigError

PACKAGES = ("compilers", "targets")
"""Packages with general names, installed beside `ep_neuro`."""


def check_packages() -> None:
    """Refuse to go on if another module shadows one of ep-neuro's packages; import nothing.

    Raises
    ------
    ConfigError
        Names the file or folder that Python would import instead, or a package that is missing.
    """
    home = Path(__file__).resolve().parents[2]
    for name in PACKAGES:
        ours = home / name
        found = _where(name)
        if found is None:
            raise ConfigError(
                f"package '{name}'", f"it is missing from {home}", "install ep-neuro again"
            )
        if found not in (ours, ours / "__init__.py"):
            raise ConfigError(
                f"package '{name}'",
                f"{found} shadows ep-neuro's own {ours}",
                f"rename it, start from another folder, or take {found.parent} off PYTHONPATH",
            )


def _where(name: str) -> Path | None:
    """File or folder that ``import name`` would run, or None."""
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(name)
    except ValueError:
        # A module in `sys.modules` without a spec was put there by hand: not ours either.
        return Path(f"<{name} in sys.modules>")
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return Path(spec.origin).resolve()
    # A folder without __init__.py: Python merges all of that name, and the first one wins.
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]).resolve() if folders else Path(str(spec.origin))

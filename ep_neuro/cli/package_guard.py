"""Guard against other modules called `compilers` or `targets` that hide ep-neuro's own."""

from __future__ import annotations

import importlib.util
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
        try:
            spec = importlib.util.find_spec(name)
            origin = spec.origin if spec else None
        except ValueError:
            # A module in `sys.modules` without a spec was put there by hand: not ours either.
            origin = f"<{name} in sys.modules>"
        if origin is None:
            raise ConfigError(
                f"package '{name}'", f"it is missing from {home}", "install ep-neuro again"
            )
        found = Path(origin) if origin.startswith("<") else Path(origin).resolve()
        if found != ours / "__init__.py":
            raise ConfigError(
                f"package '{name}'",
                f"{found} shadows ep-neuro's own {ours}",
                f"rename it, start from another folder, or take {found.parent} off PYTHONPATH",
            )

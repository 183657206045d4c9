"""Caches of other packages for a user without a name or a home, as containers often run one."""

from __future__ import annotations

import contextlib
import getpass
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def provide_caches() -> None:
    """Point torch and matplotlib (which Brian2 imports) to temporary folders of this user id.

    Both ask for them while they are imported, and fail without a name or a home. Where there are
    both, and where the variables are set, nothing changes.
    """
    temporary = Path(tempfile.gettempdir())
    if not _has(getpass.getuser):
        place = temporary / f"torchinductor_{os.getuid()}"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place))
    if not _has(Path.home):
        os.environ.setdefault("MPLCONFIGDIR", str(temporary / f"matplotlib_{os.getuid()}"))


def _has(ask: Callable[[], object]) -> bool:
    with contextlib.suppress(KeyError, OSError, RuntimeError):
        return bool(ask())
    return False

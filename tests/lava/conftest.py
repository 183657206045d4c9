"""Tests inside Lava's environment: packages are there as the supervisor has them, and not more."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import hypothesis

ROOT = Path(__file__).resolve().parents[2]

hypothesis.settings.register_profile("default", deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("default"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

_spec = importlib.util.spec_from_file_location(
    "boot", ROOT / "targets" / "interface" / "supervised" / "boot.py"
)
assert _spec is not None
assert _spec.loader is not None
_boot = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_boot)
sys.meta_path.insert(
    0, _boot.Packages({name: str(ROOT / name) for name in ("ep_neuro", "compilers", "targets")})
)

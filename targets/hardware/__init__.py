"""Targets made from hardware files: every YAML here with a ``target`` section is one."""

from __future__ import annotations

from pathlib import Path

from targets.hardware.backend import hardware_backends

BACKENDS = hardware_backends(Path(__file__).parent)

"""What Lava's environment is, and what of ours is in it."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata

import pytest

import targets.lava.builders.batched
import targets.lava.builders.faithful
import targets.lava.runtime.supervisor  # noqa: F401


def test_lava_and_its_numpy_are_the_last_of_their_line() -> None:
    assert sys.version_info[:2] == (3, 10)
    assert metadata.version("lava-nc") == "0.10.0"
    assert metadata.version("numpy").startswith("1.")


def test_our_packages_are_there_without_what_their_front_doors_lead_to() -> None:
    for name in ("ep_neuro", "compilers", "targets", "targets.lava"):
        assert getattr(sys.modules[name], "__file__", None) is None
    assert not {"torch", "pydantic", "safetensors", "yaml"} & set(sys.modules)


def test_a_module_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"targets\.no_such_module"):
        importlib.import_module("targets.no_such_module")

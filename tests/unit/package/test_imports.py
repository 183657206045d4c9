"""Claims about what importing the packages costs and which names it gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ep_neuro
import targets
from tests.helpers.forked import holds, without

ROOT = Path(__file__).resolve().parents[3]


def python(code: str) -> str:
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_packages_and_looking_for_targets_imports_nothing_heavy() -> None:
    """And names of data are there without a further import."""
    heavy = {"torch", "torchvision", "matplotlib", "lava", "brian2", "aihwkit", "nest", "nir"}
    asked = "ep_neuro.data.NAMES[0], *[backend.available() for backend in targets.backends()]"
    code = f"import sys, ep_neuro, compilers, targets; {asked}; print({heavy} & {{*sys.modules}})"
    assert python(code) == "set()"


def test_public_names_stay_functions_after_old_modules_of_that_name_load() -> None:
    def call_them() -> None:
        without("ep_neuro")
        import ep_neuro.settle
        import ep_neuro.zoo

        assert callable(ep_neuro.settle)
        assert ep_neuro.zoo("digits_dense").name == "digits_dense"

    assert holds(call_them)


def test_every_public_name_is_there_and_listed() -> None:
    assert set(ep_neuro.__all__) == set(ep_neuro._HOMES)
    assert set(ep_neuro.__all__) <= set(dir(ep_neuro))
    for name in ep_neuro.__all__:
        assert getattr(ep_neuro, name).__name__ == name


def test_what_one_does_with_targets_is_there_and_listed() -> None:
    assert set(targets._HOMES) <= set(targets.__all__) <= set(dir(targets))
    for name in targets.__all__:
        assert getattr(targets, name).__name__ == name


@pytest.mark.parametrize("package", [ep_neuro, targets])
def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    assert not hasattr(package, "sette")

"""Discovery: targets are found by what they hold, and a broken one stays visible."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import targets
from compilers import Program
from ep_neuro.errors import TargetError
from targets.interface.protocols import Availability, Backend, Feature
from targets.interface.unavailable import UnavailableBackend
from tests.helpers import toy_target
from tests.helpers.graphs import graph_of, random_residual_spec

GOOD = """
from targets.reference.backend import ReferenceBackend

class Mine(ReferenceBackend):
    name = "{name}"

BACKEND = Mine()
"""


def found_in(folder: Path, **modules: str) -> dict[str, Backend]:
    """What discovery finds in a package that holds `modules`."""
    package = folder / "plug_ins"
    package.mkdir()
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text)
    return targets.discover("plug_ins", [str(package)])


@pytest.fixture(autouse=True)
def _forget_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [n for n in sys.modules if n.startswith("plug_ins")]:
        del sys.modules[name]


def test_a_module_that_holds_a_backend_is_a_target(tmp_path: Path) -> None:
    found = found_in(tmp_path, mine=GOOD.format(name="mine"), helper="VALUE = 1")
    assert list(found) == ["mine"]
    assert found["mine"].available().available


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_package", "no_such_package"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("BACKEND = 3", "is a int without the methods of Backend"),
    ],
)
def test_a_broken_module_is_an_unavailable_target_with_its_reason(
    tmp_path: Path, text: str, reason: str
) -> None:
    found = found_in(tmp_path, broken=text, mine=GOOD.format(name="mine"))
    assert sorted(found) == ["broken", "mine"]
    broken = found["broken"]
    assert isinstance(broken, Backend)
    assert not broken.available().available
    assert reason in broken.available().reason
    assert set(broken.unsupported) == set(Feature)
    with pytest.raises(TargetError, match="broken"):
        broken.emit(graph_of(random_residual_spec(0)))


def test_of_two_targets_of_one_name_both_stay_visible(tmp_path: Path) -> None:
    found = found_in(tmp_path, a=GOOD.format(name="same"), b=GOOD.format(name="same"))
    assert found["same"].available().available
    assert "second target called 'same'" in found["b"].available().reason


def test_names_are_ordered_and_lead_to_their_backends() -> None:
    assert list(targets.names()) == sorted(targets.names())
    assert [targets.get(name) for name in targets.names()] == list(targets.backends())
    assert "reference" in targets.names()


def test_an_unknown_name_gets_the_nearest_or_all_choices() -> None:
    with pytest.raises(TargetError, match="did you mean 'reference'"):
        targets.get("refrence")
    with pytest.raises(TargetError, match=r"choose from .*reference"):
        targets.get("zzz")


def test_a_program_of_an_unavailable_target_is_refused_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = targets.get("reference")
    missing = Availability(False, "the tea is missing; brew some")
    monkeypatch.setattr(type(reference), "available", lambda self: missing)
    with pytest.raises(TargetError, match="the tea is missing; brew some"):
        targets.open(reference.emit(graph_of(random_residual_spec(0))))


def test_a_program_of_an_unknown_target_is_refused() -> None:
    with pytest.raises(TargetError, match="choose from"):
        targets.open(Program("zzz", graph_of(random_residual_spec(0))))


def test_a_broken_backend_refuses_every_use_in_one_line() -> None:
    backend = UnavailableBackend("b", "it is broken", "mend it")
    for use in ("limits", "passes", "check", "emit", "open", "estimate"):
        with pytest.raises(TargetError) as caught:
            getattr(backend, use)(None)
        assert str(caught.value) == "target 'b': it is broken; mend it"


def test_a_target_of_ones_own_joins_by_its_name_and_no_other_takes_it() -> None:
    targets.register(toy_target.BACKEND)
    try:
        targets.register(toy_target.BACKEND)
        assert targets.get("toy") is toy_target.BACKEND
        with pytest.raises(TargetError, match="target 'toy': there is one of this name already"):
            targets.register(toy_target.ToyBackend())
    finally:
        targets.unregister("toy")
    assert "toy" not in targets.names()


def test_a_whole_target_with_learning_takes_at_most_80_lines() -> None:
    text = Path(toy_target.__file__).read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 80

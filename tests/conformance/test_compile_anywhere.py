"""What every target must do even where it cannot run: compile, check, print, save."""

from __future__ import annotations

from pathlib import Path

import pytest

from compilers import Program, load_program, parse_graph, print_graph, save_program
from compilers.hardware.resources import resources
from compilers.passes.validate import validate
from ep_neuro.energy.spec import NetworkSpec
from tests.conformance.cases import FEATURES, Case, cases

ABSENT = [case for case in cases() if not case.backend.available().available]


@pytest.fixture(scope="module", params=ABSENT, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """A case whose target cannot run here; skipped if the target lacks the encoding."""
    case: Case = request.param
    feature = FEATURES[case.code]
    if feature in case.backend.unsupported:
        pytest.skip(f"{case.backend.name}: {case.backend.unsupported[feature]}")
    return case


@pytest.fixture(scope="module")
def program(case: Case, spec: NetworkSpec) -> Program:
    """A small residual network, compiled for the case."""
    return case.compile(spec)


def test_it_compiles_to_a_consistent_graph_within_its_limits(case: Case, program: Program) -> None:
    before = program.graph.digest()
    validate(program.graph)
    assert list(case.backend.check(program.graph)) == []
    assert program.graph.digest() == before
    found = resources(program.graph)
    assert found["neurons"] >= 1
    assert found["cores"] is None or found["cores"] >= 1


def test_printing_and_parsing_give_the_same_program(case: Case, program: Program) -> None:
    parsed = parse_graph(print_graph(program.graph), program.graph.arrays)
    assert case.backend.emit(parsed).digest() == case.backend.emit(program.graph).digest()


def test_a_saved_program_is_the_same(program: Program, tmp_path: Path) -> None:
    save_program(program, tmp_path / "program")
    assert load_program(tmp_path / "program").digest() == program.digest()

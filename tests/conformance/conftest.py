"""Fixtures of the conformance suite: one program and one session a case, shared by its claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

import targets
from compilers import Program
from compilers.ir.graph import Phase
from ep_neuro.energy.spec import NetworkSpec
from targets.interface.protocols import Feature, RunResult
from targets.interface.session import Session
from tests.conformance.cases import HALF, LONG, Case, able, every_probe
from tests.helpers import toy_target
from tests.helpers.graphs import random_residual_spec, samples


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a case on one worker, as its claims share a session; let claims take turns.

    All cases of Brian2 are on the worker of its own tests: importing it takes seconds.

    A claim ``by_turns`` holds in all cases alike. Of each target but the reference one case is
    asked, another for the next claim; the rest is slow.
    """
    asked: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
        if not isinstance(case, Case):
            continue
        group = "brian2" if case.backend.name == "brian2" else str(case)
        item.add_marker(pytest.mark.xdist_group(group))
        marks = {mark.name for mark in item.iter_markers()}
        if "by_turns" in marks and "slow" not in marks and not case.is_the_reference:
            claim = (case.backend.name, item.nodeid.replace(str(case), ""))
            asked.setdefault(claim, []).append(item)
    turns: Counter[str] = Counter()
    for (target, _), choices in asked.items():
        chosen = turns[target] % len(choices)
        turns[target] += 1
        for item in choices[:chosen] + choices[chosen + 1 :]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _toy() -> Iterator[None]:
    """The target that `CONTRIBUTING.md` walks through is one like the others here."""
    targets.register(toy_target.BACKEND)
    yield
    targets.unregister(toy_target.BACKEND.name)


@pytest.fixture(scope="module", params=able())
def case(request: pytest.FixtureRequest) -> Case:
    """One case that can run here."""
    found: Case = request.param
    return found


@pytest.fixture(scope="session")
def spec() -> NetworkSpec:
    """The small residual network of all claims but the equality of states.

    One block with a stride that leaves a column unused: what a run costs is mostly by populations.
    """
    return random_residual_spec(312)


@pytest.fixture(scope="session")
def programs(spec: NetworkSpec) -> Callable[[Case], Program]:
    """Compiles `spec` for a case, once for all files."""
    compiled: dict[str, Program] = {}

    def program(case: Case) -> Program:
        if str(case) not in compiled:
            compiled[str(case)] = case.compile(spec)
        return compiled[str(case)]

    return program


@pytest.fixture(scope="module")
def program(case: Case, programs: Callable[[Case], Program]) -> Program:
    """`spec` compiled for the case."""
    return programs(case)


@pytest.fixture(scope="module")
def session(case: Case, program: Program) -> Iterator[Session]:
    """One open session of `program`; tests must not close it."""
    with targets.open(program) as session:
        yield session


@pytest.fixture(scope="session")
def data(spec: NetworkSpec) -> tuple[np.ndarray, np.ndarray]:
    """Five inputs and labels."""
    return samples(spec, 5, seed=7)


@pytest.fixture(scope="module")
def longest(
    case: Case, program: Program, session: Session, data: tuple[np.ndarray, np.ndarray]
) -> RunResult:
    """A run of `LONG` steps a phase, with all probes where there are any.

    It asks for more than any other run, so that a session with room for it restarts for none.
    """
    case.need(Feature.NUDGED_PHASE)
    probes = () if Feature.PROBES in case.backend.unsupported else every_probe(program.graph)
    return session.settle(*data, steps=LONG, probes=probes)


@pytest.fixture(scope="session")
def results() -> dict[str, RunResult]:
    """What `result` was of each case."""
    return {}


@pytest.fixture(scope="module")
def result(
    request: pytest.FixtureRequest,
    case: Case,
    program: Program,
    data: tuple[np.ndarray, np.ndarray],
    results: dict[str, RunResult],
) -> RunResult:
    """All phases of `data` with all probes; recorded once a case, for all files."""
    case.need(Feature.PROBES, Feature.NUDGED_PHASE)
    if str(case) not in results:
        request.getfixturevalue("longest")
        session: Session = request.getfixturevalue("session")
        results[str(case)] = session.settle(*data, probes=every_probe(program.graph), updates=True)
    return results[str(case)]


@pytest.fixture(scope="module")
def detour(case: Case, program: Program, data: tuple[np.ndarray, np.ndarray]) -> RunResult:
    """`program` with its phases replaced by other ways through the same states."""
    case.need(Feature.PROBES, Feature.NUDGED_PHASE)
    phases = (
        Phase("free", HALF),
        Phase("more", HALF, start="free"),
        Phase("minus", HALF, nudge=-0.5, start="free"),
        Phase("whole", 2 * HALF),
    )
    return case.run(replace(program.graph, phases=phases), *data)

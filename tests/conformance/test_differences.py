"""Claims about nudged phases that send differences: who runs them, and that all learn the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import targets
from compilers import Program
from compilers.passes.make_plastic import make_plastic
from ep_neuro.energy.spec import INPUT, CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import TargetError
from targets.interface.protocols import Feature
from tests.conformance.cases import Case, able, every_probe
from tests.helpers.graphs import random_residual_spec

LINEAR = NetworkSpec(
    name="linear",
    input=InputSpec(shape=(1, 2, 2)),
    populations=(PopulationSpec(name="out", shape=(3,), box=(-0.5, 1.5)),),
    couplings=(CouplingSpec(pre=INPUT, post="out"),),
)
"""An output that hears nothing but the input."""


@pytest.fixture(
    scope="module",
    params=[c for c in able(lambda case: bool(case.options)) if c.values[0].code == "graded"],
)
def case(request: pytest.FixtureRequest) -> Case:
    """One case of graded messages that can run here."""
    found: Case = request.param
    found.need(Feature.LEARNING, Feature.NUDGED_PHASE)
    return found


def differing(case: Case, spec: NetworkSpec) -> Program:
    """The program of `case` that learns by differences."""
    program = case.compile(spec, steps=8)
    graph = make_plastic(program.graph, "difference", lr=0.3, seed=3, units=True)
    return replace(program, graph=graph)


@pytest.mark.parametrize("spec", [random_residual_spec(3), LINEAR], ids=["residual", "linear"])
def test_differences_teach_what_they_teach_on_the_reference(case: Case, spec: NetworkSpec) -> None:
    """To the bit in integers; and on from a memory. A target that sends states says so."""
    program = differing(case, spec)
    if not case.backend.differs:
        with pytest.raises(TargetError, match="send differences"):
            targets.learner(program)
        return
    generator = np.random.default_rng(0)
    shape = program.graph.sources[0].shape
    classes = program.graph.population(program.graph.output).size
    x, y = generator.random((4, *shape)), generator.integers(0, classes, 4)
    probes = every_probe(program.graph)
    with targets.learner(program) as here:
        states = here.settle(x, y, probes=probes)
        here.learn(x[:2], y[:2], batch=2)
        half = here.memory()
        here.restore(half)
        here.learn(x[2:], y[2:], batch=2)
        memory = here.memory()
    with targets.learner(replace(program, target="reference", options={})) as there:
        wanted = there.settle(x, y, probes=probes)
        there.learn(x, y, batch=2)
        tolerance = 0 if case.bits else 1e-9
        for name, value in there.memory().items():
            np.testing.assert_allclose(memory[name], value, rtol=0, atol=tolerance)
    for name, phase in wanted.phases.items():
        for probe, value in phase.probes.items():
            found = states.phases[name].probes[probe]
            np.testing.assert_allclose(found, value, rtol=0, atol=max(tolerance, 1e-12))

"""Claims about the pipeline: order, traces, golden prints, and the way to a program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import compilers
from compilers.frontend import lower
from compilers.hardware.limits import Violation
from compilers.ir.graph import FixedPoint, Graph
from compilers.ir.text import print_graph
from compilers.passes.spectrum import MAX_LEAKS
from compilers.pipeline import (
    Emitter,
    Lowering,
    Pass,
    common_passes,
    compile_network,
    run_passes,
)
from compilers.program import Program, load_program, save_program
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import CheckFailed, EPNeuroError, GraphError
from ep_neuro.network.network import Network

GOLDEN = Path(__file__).parents[2] / "golden"

TINY: dict[str, Any] = {
    "name": "tiny",
    "input": {"shape": [1, 4, 4], "mean": [0.5], "std": [0.25]},
    "populations": [
        {"name": "h1", "shape": [2, 4, 4]},
        {"name": "h2", "shape": [3, 2, 2], "box": [0.0, 2.0]},
        {"name": "out", "shape": [2], "box": [-0.5, 1.5]},
    ],
    "couplings": [
        {"pre": "input", "post": "h1", "kind": "conv", "kernel": 3, "padding": 1},
        {"pre": "h1", "post": "h2", "kind": "conv", "kernel": 3, "stride": 2, "padding": 1},
        {"pre": "input", "post": "h2", "kind": "conv", "kernel": 1, "stride": 2},
        {"pre": "h2", "post": "out"},
    ],
}


class Box(Emitter):
    """A backend that emits the graph and can hold 40 neurons if told so."""

    name = "box"

    def __init__(self, neurons: int | None = None) -> None:
        self.neurons = neurons

    def passes(self, options: Mapping[str, Any]) -> Sequence[Pass]:
        return [Pass("box", lambda graph: graph)] if options.get("own_pass") else []

    def check(self, graph: Graph) -> Sequence[Violation]:
        if self.neurons is None:
            return []
        return [
            Violation(f"population '{p.name}'", p.size, self.neurons, "narrow it", "neurons")
            for p in graph.neurons
            if p.size > self.neurons
        ]

    def emit(self, graph: Graph) -> Program:
        return Program(self.name, graph, files={"size.txt": str(len(graph.neurons))})


@pytest.fixture(scope="module")
def tiny() -> Network:
    """A network whose parameters need no random generator."""
    network = Network(NetworkSpec.from_dict(TINY))
    with torch.no_grad():
        for parameter in network.parameters():
            # Exact in float32, so that the hash of the model is the same on every machine.
            values = (torch.arange(parameter.numel()) * 7 % 19 - 9) / 64
            parameter.copy_(values.reshape(parameter.shape))
    return network


@pytest.mark.parametrize(("code", "bits"), [("graded", None), ("sigma-delta", 8), ("spike", 4)])
def test_every_stage_prints_what_it_printed_before(
    tiny: Network, code: str, bits: int | None
) -> None:
    trace = run_passes(lower(tiny), common_passes(Lowering(code, bits=bits, steps=32)))
    text = "\n".join(
        f"# after {name}\n{print_graph(graph, arrays=False)}" for name, graph in trace.stages
    )
    golden = GOLDEN / f"tiny_{code}.txt"
    if os.environ.get("EP_NEURO_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_whole_steps_are_for_weights_that_do_not_learn(tiny: Network) -> None:
    def leak(**options: Any) -> float:
        (one,) = {p.dynamics.leak for p in compile_network(tiny, **options).graph.neurons}
        return one

    assert leak() == 1
    assert leak(learn="contrastive") == pytest.approx(MAX_LEAKS["graded"], abs=1e-3)
    assert leak(learn="contrastive", leak=1.0) == 1


def test_passes_run_in_the_documented_order(tiny: Network) -> None:
    trace = run_passes(lower(tiny), common_passes(Lowering("spike", bits=8)))
    assert trace.names == (
        "frontend",
        "validate",
        "expand_couplings",
        "choose_leak",
        "fold_boxes",
        "encode",
        "quantize",
    )
    assert "quantize" not in run_passes(lower(tiny), common_passes(Lowering())).names


def test_a_trace_keeps_every_stage_as_it_was(tiny: Network) -> None:
    digests: dict[str, str] = {}
    trace = run_passes(
        lower(tiny),
        common_passes(Lowering("spike", bits=8)),
        lambda n, g: digests.update({n: g.digest()}),
    )
    assert {name: graph.digest() for name, graph in trace.stages} == digests
    assert trace.after("encode").encoding == "spike"
    assert trace.after("quantize") is trace.final
    with pytest.raises(GraphError, match=r"pass 'route': did not run; choose from frontend"):
        trace.after("route")


def test_a_program_knows_what_it_was_made_from(tiny: Network, tmp_path: Path) -> None:
    options = {"own_pass": True}
    program = compile_network(tiny, Box(), code="spike", bits=8, options=options)
    assert program.target == "box"
    assert program.options == options
    assert program.provenance["passes"].endswith("encode, quantize, box, verify")
    assert program.provenance["version.numpy"] == np.__version__
    assert len(program.provenance["model.sha256"]) == 64
    save_program(program, tmp_path / "p")
    assert load_program(tmp_path / "p").digest() == program.digest()


def test_compiling_is_deterministic(tiny: Network) -> None:
    assert compile_network(tiny, Box()).digest() == compile_network(tiny, Box()).digest()


def test_options_reach_the_phases_and_the_dynamics(tiny: Network) -> None:
    parameters = {"start": 0.4, "decay": 0.9}
    program = compile_network(
        tiny, Box(), code="sigma-delta", steps=20, nudged_steps=7, beta=0.3, leak=0.25,
        parameters=parameters,
    )  # fmt: skip
    assert [p.steps for p in program.graph.phases] == [20, 7, 7]
    assert program.graph.phase("nudged-").nudge == -0.3
    dynamics = program.graph.population("h1").dynamics
    assert (dynamics.leak, dynamics.start, dynamics.decay) == (0.25, 0.4, 0.9)  # type: ignore[union-attr]


def test_messages_of_integers_have_the_bits_that_were_asked_for(tiny: Network) -> None:
    for frac, asked in ((8, None), (12, 12)):
        graph = compile_network(tiny, Box(), bits=8, message_frac=asked).graph
        assert {p.message.frac for p in graph.populations if p.message} == {frac}
    with pytest.raises(GraphError, match=r"messages: 12 fractional bits, and .*floating point"):
        compile_network(tiny, Box(), message_frac=12)


def test_membranes_of_integers_have_the_fraction_that_was_asked_for(tiny: Network) -> None:
    for frac, asked in ((16, {}), (20, {"state_frac": 20})):
        graph = compile_network(tiny, Box(), bits=8, **asked).graph
        assert {p.state for p in graph.neurons} == {FixedPoint(24, frac)}
    with pytest.raises(GraphError, match=r"membranes: 20 fractional bits, and .*floating point"):
        compile_network(tiny, Box(), state_frac=20)
    with pytest.raises(GraphError, match=r"number formats: .* state 24\.23"):
        compile_network(tiny, Box(), bits=8, state_frac=23)


def test_a_broken_limit_names_the_first_and_counts_the_others(tiny: Network) -> None:
    with pytest.raises(CheckFailed) as caught:
        compile_network(tiny, Box(neurons=10))
    assert str(caught.value) == (
        "target 'box', population 'h1': 32 neurons exceed the limit of 10 (and 1 more); narrow it"
    )
    assert compile_network(tiny, Box(neurons=10), check=False).target == "box"


@pytest.mark.parametrize("target", ["nest", "pynn"])
def test_no_target_overrules_a_leak_that_was_asked_for(tiny: Network, target: str) -> None:
    with pytest.raises(GraphError, match=rf"'leak': 0\.5 was .* '{target}' have 1\.0; ask for 1"):
        compilers.compile(tiny, target, code="spike", leak=0.5)
    for leak in (None, 1.0):
        spiking = compilers.compile(tiny, target, code="spike", leak=leak)
        assert {p.dynamics.leak for p in spiking.graph.neurons} == {1.0}
    graded = compilers.compile(tiny, "nest", leak=0.25).graph
    assert {p.dynamics.leak for p in graded.neurons} == {0.25}


def test_the_short_form_takes_a_backend_or_its_name(tiny: Network) -> None:
    assert compilers.compile(tiny, Box(), code="spike").graph.encoding == "spike"
    assert compilers.compile(tiny).target == "reference"
    with pytest.raises(EPNeuroError, match="abacus"):
        compilers.compile(tiny, "abacus")

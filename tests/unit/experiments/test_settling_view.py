"""Claims about what the viewer shows: the states of the session, their energy, the nudge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import targets
from compilers import compile as compile_program
from compilers.execution.deployed_network import energy_of
from compilers.ir.graph import Encoding
from compilers.program import Program
from ep_neuro.data.datasets import Split
from ep_neuro.errors import TargetError
from ep_neuro.network.network import Landscape, Network
from ep_neuro.report.viewer import LEVELS, RESIDUAL, SettlingView, view_data
from targets.experiments.comparison import layer_errors
from targets.experiments.settling_view import refuse_unseen, settling_view
from targets.interface.protocols import Feature
from tests.helpers.problems import chain
from tests.helpers.settling_example import unpacked
from tests.helpers.toy_target import ToyBackend
from tests.unit.experiments.test_compare import CODES

STEPS = 40


def seen(program: Program, split: Split, **options: int) -> SettlingView:
    with targets.open(program) as session:
        return settling_view(session, program, split, **options)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bits", [None, 8])
def test_the_page_holds_the_states_of_the_session(
    network: Network, split: Split, code: Encoding, bits: int | None
) -> None:
    program = compile_program(network, "reference", code=code, bits=bits, steps=8)
    shown = view_data(seen(program, split))["phases"]
    probes = [layer_errors.probe_of(p) for p in program.graph.neurons]
    with targets.open(program) as session:
        found = session.settle(split.x, split.y, probes=probes)
    for phase, (name, result) in zip(shown, found.phases.items(), strict=False):
        from_rest = program.graph.phase(name).start is None
        for p, probe, packed in zip(program.graph.neurons, probes, phase["states"], strict=True):
            real = layer_errors.shown_states(p, result.probes[probe], from_rest).swapaxes(0, 1)
            low, high = packed["scales"][0]
            level = (high - low) / LEVELS
            whole = (*real.shape[:1], real.shape[1] + 1, *p.shape)
            states = low + level * unpacked(packed["data"], whole)[:, 1:]
            assert np.abs(states - real).max() <= level
        last = np.array(phase["outputs"])[:, -1]
        assert np.allclose(last, result.outputs.reshape(last.shape), rtol=1e-4, atol=1e-7)
        sent = [np.array(phase["events"][i]).sum(1) for i in range(len(probes))]
        assert [list(s) for s in sent] == [
            list(result.events[p.name].sum(0)) for p in program.graph.neurons
        ]


def test_the_energy_is_that_of_the_network_and_falls_in_the_free_phase(
    network: Network, split: Split
) -> None:
    program = compile_program(network, "reference", steps=STEPS)
    free, nudged, *_ = seen(program, split).phases
    exact = network.double()
    landscape = Landscape(exact, torch.from_numpy(split.x).double())
    with torch.no_grad():
        energy = landscape.energy({k: torch.from_numpy(v[:, -1]) for k, v in free.states.items()})
    network.float()
    assert np.allclose(free.curves["Energy"][:, -1], energy.numpy(), atol=1e-5)
    assert (np.diff(free.curves["Energy"]) < 1e-9).all()
    assert (np.diff(nudged.curves["Energy with the nudge"]) < 1e-9).all()


def test_nudged_phases_begin_where_the_free_one_ended_and_move_the_output_to_the_label(
    network: Network, split: Split
) -> None:
    free, nudged, away, difference = seen(
        compile_program(network, "reference", steps=STEPS), split
    ).phases
    for phase in (nudged, away):
        assert np.array_equal(phase.outputs[:, 0], free.outputs[:, -1])
    assert np.array_equal(difference.outputs, nudged.outputs - away.outputs)
    assert np.array_equal(difference.states["a"], nudged.states["a"] - away.states["a"])
    label = np.arange(len(split)), -1, split.y
    assert (difference.outputs[label] > 0).all()
    assert (free.curves[RESIDUAL][:, -1] < 1e-3).all()


def test_as_many_samples_at_a_time_as_fit_give_the_same(
    network: Network, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compile_program(network, "reference", code="spike", steps=6)
    at_once = view_data(seen(program, split))
    monkeypatch.setattr(layer_errors, "PROBE_BYTES", 1)
    assert view_data(seen(program, split)) == at_once


def test_steps_replace_the_length_of_each_phase(network: Network, split: Split) -> None:
    program = compile_program(network, "reference", steps=8)
    assert [p.steps for p in seen(program, split, steps=3).phases] == [3, 3, 3, 3]


def test_a_network_that_no_target_nudges_shows_its_free_phase_alone() -> None:
    program = compile_program(Network(chain(cost="cross-entropy"), 1), "reference", steps=4)
    rng = np.random.default_rng(0)
    view = seen(program, Split(rng.random((2, 5), np.float32), np.array([0, 1])))
    assert [p.name for p in view.phases] == ["Free"]
    assert "only settles freely" in view.notes[0]


def test_weights_that_serve_one_way_have_no_energy(network: Network, split: Split) -> None:
    graph = compile_program(network, "reference", steps=4).graph
    one_way = [p for p in graph.projections if p.name != "out->b"]
    program = Program("reference", replace(graph, projections=tuple(one_way)))
    view = seen(program, split)
    assert energy_of(program.graph, torch.from_numpy(split.x)) is None
    assert "Energy" not in view.phases[0].curves
    assert "one way" in view.notes[0]


class Blind(ToyBackend):
    """A target whose states nobody sees."""

    name, unsupported = "blind", {Feature.PROBES: "its cores do not tell"}


def test_a_target_that_shows_no_states_says_so_in_one_line() -> None:
    with pytest.raises(TargetError, match="'blind': it shows no states: its cores do not tell; vi"):
        refuse_unseen(Blind())

"""Claims about comparing: a sweep is so many runs, and layers are measured against equilibrium."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

import targets
from compilers import compile as compile_program
from compilers.ir.graph import Encoding
from ep_neuro.data.datasets import Split
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import ConfigError, GraphError
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from targets.experiments.comparison import layer_errors
from targets.experiments.comparison.compare import Choice, Compared, compare, shared_options
from targets.experiments.comparison.layer_errors import shown_states
from targets.experiments.comparison.sweep import Sweep

CODES: tuple[Encoding, ...] = ("graded", "sigma-delta", "spike")
SCHEDULE = Schedule(sweeps=500, tolerance=1e-6)


def residual() -> NetworkSpec:
    """A convolution, a skip around it, and a head whose box is not [0, 1]."""
    conv = {"kind": "conv", "kernel": 3, "stride": 2, "padding": 1, "gain": 0.4}
    return NetworkSpec.from_dict(
        {
            "name": "small",
            "input": {"shape": [1, 6, 6]},
            "populations": [
                {"name": "a", "shape": [3, 3, 3]},
                {"name": "b", "shape": [4, 2, 2]},
                {"name": "out", "shape": [4], "box": [-0.5, 1.5]},
            ],
            "couplings": [
                {"pre": "input", "post": "a", **conv},
                {"pre": "a", "post": "b", **conv},
                {"pre": "input", "post": "b", "gain": 0.4},
                {"pre": "b", "post": "out", "gain": 0.5},
            ],
        }
    )


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(residual(), 1)


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.random((12, 1, 6, 6), np.float32), rng.integers(0, 4, 12))


def run(network: Network, split: Split, choices: Sequence[str], **how: object) -> list[Compared]:
    """`choices` without the first row, which is the torch network."""
    parsed = [Choice.parse(text) for text in choices]
    return compare(network, split, parsed, schedule=SCHEDULE, **how)[1:]  # type: ignore[arg-type]


def facts(compared: Compared) -> dict[str, object]:
    """A row but for its time, and for the front, which depends on the other rows."""
    row = compared.row.to_dict()
    return {name: row[name] for name in row if name not in ("ms_per_sample", "pareto")}


# --- sweeps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bits", ["", ":4"])
def test_a_row_of_a_sweep_is_the_row_of_a_program_of_so_many_steps(
    network: Network, split: Split, code: Encoding, bits: str
) -> None:
    choice = [f"reference:{code}{bits}"]
    swept = run(network, split, choice, sweep=Sweep(steps=(3, 8, 20)))
    single = [run(network, split, choice, options={"steps": t})[0] for t in (3, 8, 20)]
    assert [facts(c) for c in swept] == [facts(c) for c in single]
    assert [c.row.steps for c in swept] == [3, 8, 20]
    for a, b in zip(swept, single, strict=True):
        np.testing.assert_array_equal(a.predictions, b.predictions)


def test_a_sweep_over_bits_is_a_row_for_each(network: Network, split: Split) -> None:
    how = {"options": {"steps": 8}}
    swept = run(network, split, ["reference:graded"], sweep=Sweep(bits=(None, 8, 2)), **how)
    named = [f"reference:graded{bits}" for bits in ("", ":8", ":2")]
    assert [facts(c) for c in swept] == [facts(c) for c in run(network, split, named, **how)]
    assert [c.row.bits for c in swept] == [None, 8, 2]


def test_rows_are_told_as_they_come_and_returned_in_order(network: Network, split: Split) -> None:
    told: list[tuple[str, int | None]] = []
    found = compare(
        network,
        split,
        [Choice("reference"), Choice("reference", "spike")],
        schedule=SCHEDULE,
        sweep=Sweep(steps=(2, 4)),
        on_row=lambda c: told.append((c.row.code, c.row.steps)),
    )
    order = [(c.row.code, c.row.steps) for c in found]
    assert order == [("rate", None), ("graded", 2), ("graded", 4), ("spike", 2), ("spike", 4)]
    assert sorted(told, key=order.index) == order


def test_a_sweep_compiles_sigma_delta_for_each_length(network: Network, split: Split) -> None:
    choices = [Choice("reference", "sigma-delta")]
    swept = compare(network, split, choices, schedule=SCHEDULE, sweep=Sweep(steps=(6, 24)))[1:]
    for one, steps in zip(swept, (6, 24), strict=True):
        alone = compare(network, split, choices, schedule=SCHEDULE, options={"steps": steps})[1]
        assert (one.row.steps, one.row.events) == (steps, alone.row.events)
        assert one.program is not None
        assert alone.program is not None
        assert one.program.graph.populations == alone.program.graph.populations


def test_the_front_is_marked_and_the_torch_row_is_not_on_it(network: Network, split: Split) -> None:
    choices = [Choice("reference", code) for code in CODES]
    found = compare(network, split, choices, schedule=SCHEDULE, sweep=Sweep(steps=(4, 16)))
    assert not found[0].row.pareto
    best = [c.row for c in found if c.row.pareto]
    cheapest = min((c.row for c in found[1:]), key=lambda r: (r.synops, -r.accuracy))
    assert cheapest in best
    assert max(r.accuracy for r in best) == max(c.row.accuracy for c in found[1:])


# --- layers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("steps", [1, 7, 12])
def test_the_states_shown_at_the_end_are_the_outputs_of_the_run(
    network: Network, split: Split, code: Encoding, bits: int | None, steps: int
) -> None:
    program = compile_program(network, "reference", code=code, bits=bits, steps=steps)
    output = program.graph.population("out")
    probe = "out.message" if code == "spike" else "out.z"
    with targets.open(program) as session:
        free = session.settle(split.x, probes=[probe]).free
    shown = shown_states(output, free.probes[probe])
    assert len(shown) == steps
    np.testing.assert_allclose(shown[-1], free.outputs, rtol=0, atol=1e-12)


def test_graded_states_arrive_and_fewer_bits_stay_further_away(
    network: Network, split: Split
) -> None:
    sweep = Sweep(bits=(None, 8, 4, 2))
    found = run(network, split, ["reference"], sweep=sweep, layerwise=True, options={"steps": 120})
    for one in found[0].departures:
        assert one.rms[-1] < 1e-4
        assert one.worst[-1] < 1e-4
        assert one.rms[0] > 10 * one.rms[-1]
    ends = [[one.rms[-1] for one in c.departures] for c in found]
    for finer, coarser in pairwise(ends):
        assert all(a < b for a, b in zip(finer, coarser, strict=True))


@pytest.mark.parametrize("code", CODES)
def test_the_departure_of_a_shorter_run_is_that_of_a_program_as_short(
    network: Network, split: Split, code: Encoding
) -> None:
    choice = [f"reference:{code}:8"]
    swept = run(network, split, choice, sweep=Sweep(steps=(5, 12)), layerwise=True)
    (alone,) = run(network, split, choice, options={"steps": 5}, layerwise=True)
    assert [d.population for d in alone.departures] == ["a", "b", "out"]
    for a, b in zip(swept[0].departures, alone.departures, strict=True):
        np.testing.assert_array_equal(a.rms, b.rms)
        np.testing.assert_array_equal(a.worst, b.worst)
        assert len(b.rms) == 5
    told = swept[1].layers()[2]
    assert (told["code"], told["bits"], told["steps"], told["population"]) == (code, 8, 12, "out")
    assert told["relative_rms"] == told["relative_rms_by_step"][-1]
    assert swept[1].layer_row()["out"] == told["relative_rms"]


def test_departures_are_relative_to_the_equilibrium_and_to_the_box() -> None:
    program = compile_program(Network(residual(), 1), "reference", steps=2)
    out = program.graph.population("out")
    settled = np.array([[0.5, -0.5, 0.5, 0.5]])
    # Real units: the box of `out` is 2 high.
    shown = settled + np.array([[[0.0, 0.0, 0.0, 0.4]], [[0.0, 0.0, 0.0, 0.0]]])
    found = layer_errors._departure(out, shown, settled)
    np.testing.assert_allclose(found.rms, [0.4 / 2 / 0.5, 0])
    np.testing.assert_allclose(found.worst, [0.4 / 2, 0])
    silent = layer_errors._departure(out, shown - settled, np.zeros_like(settled))
    assert np.isnan(silent.rms).all()


def test_a_network_that_does_not_settle_is_reported(network: Network, split: Split) -> None:
    with pytest.warns(UserWarning, match="'small' did not settle in 1 sweeps"):
        compare(network, split, [Choice("reference")], schedule=Schedule(sweeps=1), layerwise=True)


def test_fewer_samples_are_recorded_where_states_are_many(network: Network) -> None:
    graph = compile_program(network, "reference", steps=8).graph
    assert layer_errors.recordable(graph) == layer_errors.MOST_SAMPLES
    wide = dataclasses.replace(graph.populations[1], shape=(1 << 18,))
    large = dataclasses.replace(graph, populations=(*graph.populations[:1], wide))
    assert layer_errors.recordable(large) == layer_errors.PROBE_BYTES // (8 * 8 << 18)


# --- cost and options --------------------------------------------------------------------------


def test_a_learning_step_costs_more_than_an_inference_and_is_estimated_on_request(
    network: Network, split: Split
) -> None:
    swept = run(network, split, ["reference:spike"], sweep=Sweep(steps=(4, 8)), learning=True)
    short, long = (c.cost for c in swept)
    assert short is not None
    assert long is not None
    assert short.learning_joule is None
    assert long.learning_joule is not None
    assert long.learning_joule > long.energy_joule
    assert sum(long.parts.values()) == pytest.approx(long.energy_joule)
    (plain,) = run(network, split, ["reference:spike"], options={"steps": 4})
    assert plain.cost is not None
    assert plain.cost.learning_joule is None


def test_an_option_goes_to_the_targets_that_take_it() -> None:
    choices = [Choice("reference"), Choice("lava"), Choice("lava", "spike")]
    given = {"lowering": "faithful"}
    assert shared_options(choices, given) == {"reference": {}, "lava": given}
    with pytest.raises(ConfigError, match=r"'chips': with reference, lava, .* takes .*batch"):
        shared_options(choices, {"chips": 2})
    with pytest.raises(ConfigError, match=r"with pynn, a comparison takes no options"):
        shared_options([Choice("pynn")], given)


def test_every_program_compiles_before_anything_runs(network: Network, split: Split) -> None:
    linear = NetworkSpec(
        name="linear",
        input=InputSpec(shape=(1, 6, 6)),
        populations=(PopulationSpec(name="out", shape=(4,), box=None),),
        couplings=(CouplingSpec(pre="input", post="out"),),
    )
    told: list[Compared] = []
    choices = [Choice("reference"), Choice("reference", "spike")]
    with pytest.raises(GraphError, match="it is linear"):
        compare(Network(linear, 0), split, choices, schedule=SCHEDULE, on_row=told.append)
    assert told == []

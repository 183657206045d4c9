"""Claims about comparing: a sweep is so many runs, and how far layers are from equilibrium."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from targets.experiments.comparison.sweep import Sweep, front
from tests.helpers.problems import residual

CODES: tuple[Encoding, ...] = ("graded", "sigma-delta", "spike")
SCHEDULE = Schedule(sweeps=500, tolerance=1e-6)
NUMBER = st.integers(0, 5).map(float)
POINTS = st.lists(st.tuples(NUMBER | st.none(), NUMBER | st.none()), max_size=12)


def run(network: Network, split: Split, choices: Sequence[str], **how: object) -> list[Compared]:
    """`choices` without the first row, which is the torch network."""
    parsed = [Choice.parse(text) for text in choices]
    return compare(network, split, parsed, schedule=SCHEDULE, **how)[1:]  # type: ignore[arg-type]


def facts(compared: Compared) -> dict[str, object]:
    """A row but for its time, and for the front, which depends on the other rows."""
    row = compared.row.to_dict()
    return {name: row[name] for name in row if name not in ("ms_per_sample", "pareto")}


# --- sweeps ------------------------------------------------------------------------------------


def test_a_sweep_orders_steps_and_keeps_the_order_of_bits() -> None:
    sweep = Sweep.parse(["steps=64,8,16", "bits=8,float,2"])
    assert sweep == Sweep((8, 16, 64), (8, None, 2))
    assert sweep.axes == ("steps", "bits")
    assert sweep.points == 9
    assert Sweep.parse([]) == Sweep()
    assert Sweep().axes == ()


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["step=8"], ("--sweep step=8", "'step' cannot be swept", "did you mean 'steps'?")),
        (["leak=0.5"], ("'leak' cannot be swept, steps and bits can", "write steps=8,16,32,64")),
        (["steps"], ("--sweep steps", "'' is no number of steps from 1 to 1,000,000")),
        (["steps=8,,16"], ("'' is no number of steps",)),
        (["steps=0,8"], ("'0' is no number of steps from 1",)),
        (["steps=float"], ("'float' is no number of steps",)),
        (["bits=8,17"], ("'17' is no number of bits from 2 to 16", "write bits=8,6,4,3,2")),
        (["bits=-2"], ("'-2' is no number of bits",)),
        (["bits=8,8"], ("a value comes twice", "name each once")),
        (["bits=8", "bits=6"], ("--sweep bits=6", "swept already", "join both into one list")),
    ],
)
def test_a_bad_sweep_is_refused_with_a_remedy(texts: list[str], says: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        Sweep.parse(texts)
    for part in says:
        assert part in str(caught.value)


def test_every_choice_runs_at_every_number_of_bits() -> None:
    choices = [Choice("reference", "spike"), Choice("lava")]
    spread = Sweep(bits=(8, None)).over_bits(choices)
    assert [(c.target, c.code, c.bits) for c in spread] == [
        *(("reference", "spike", 8), ("reference", "spike", None)),
        *(("lava", "graded", 8), ("lava", "graded", None)),
    ]
    assert Sweep(steps=(8,)).over_bits(choices) == choices


def test_what_is_swept_cannot_be_fixed_as_well() -> None:
    with pytest.raises(ConfigError, match=r"lava:graded:4: names 4 bits while --sweep varies them"):
        Sweep(bits=(8,)).over_bits([Choice("lava", "graded", 4)])
    with pytest.raises(ConfigError, match=r"--steps 32: steps are swept as well; drop --steps"):
        Sweep(steps=(8, 16)).compiled_steps(32)
    assert Sweep(steps=(8, 16)).compiled_steps(None) == 16
    assert Sweep(bits=(8,)).compiled_steps(32) == 32


@given(POINTS)
def test_nothing_beats_the_front_and_the_front_beats_all_the_rest(
    points: list[tuple[float | None, float | None]],
) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] >= b[0] and a[1] <= b[1]

    on_front = front([gain for gain, _ in points], [cost for _, cost in points])
    known = [None if None in p else (float(p[0] or 0), float(p[1] or 0)) for p in points]
    best = [p for p, chosen in zip(known, on_front, strict=True) if chosen]
    assert None not in best
    for point, chosen in zip(known, on_front, strict=True):
        if point is not None:
            assert chosen is not any(beats(other, point) for other in best if other is not None)
    assert bool(best) is any(p is not None for p in known)


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

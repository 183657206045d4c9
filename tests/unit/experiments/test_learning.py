"""Claims about learning runs: order, points, agreement with EP, and going on where one stopped."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compilers
import targets
from compilers.program import Program, load_program
from ep_neuro.data.augmentation import Crop
from ep_neuro.data.datasets import Dataset
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, GraphError, ProgramError, TargetError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from ep_neuro.training.metrics import METRICS
from targets.experiments.onchip import learning
from targets.experiments.onchip.gradient_alignment import (
    SYNAPSES,
    compare_updates,
    ep_step,
    watched_synapses,
    weights_of,
)
from targets.experiments.onchip.learning import learn
from targets.experiments.onchip.plastic import plastic
from targets.experiments.onchip.run_state import FIGURES, LAST, load_state
from targets.experiments.onchip.schedule import HALVED, Plan
from tests.helpers.problems import interrupt_at


def program(code: str = "graded", bits: int | None = None, rate: float = 1.0) -> Program:
    """The dense digits network from fresh weights, ready to learn in a few steps."""
    network = Network(zoo("digits_dense"), 0)
    return plastic(compilers.compile(network, code=code, bits=bits, steps=16), rate=rate)


@pytest.fixture(scope="module")
def finished(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of 20 samples in batches of 10."""
    out = tmp_path_factory.mktemp("run")
    learn(program(), digits, Plan(samples=20, batch=10, points=1), out=out)
    return out


# --- augmentation ------------------------------------------------------------------------------


def test_each_sample_is_moved_by_its_own_place_in_the_run(digits: Dataset) -> None:
    plan, images = Plan(100, augment=(Crop(padding=1), {"kind": "flip"})), digits.train.pixels[:50]
    moved = plan.augmented(images, range(10, 60))
    np.testing.assert_array_equal(plan.augmented(images[20:], range(30, 60)), moved[20:])
    assert not np.array_equal(plan.augmented(images, range(60, 110)), moved)
    assert not np.array_equal(replace(plan, seed=1).augmented(images, range(10, 60)), moved)
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    assert replace(plan, augment=()).augmented(images, range(10, 60)) is images


def test_what_was_learnt_from_moved_images_is_noted(digits: Dataset) -> None:
    plan = Plan(samples=10, batch=5, points=1, augment=(Crop(padding=1),))
    learnt, plainly = (learn(program(), digits, p) for p in (plan, replace(plan, augment=())))
    assert learnt.program.provenance["learnt.augment"] == "({'kind': 'crop', 'padding': 1},)"
    assert learnt.program.digest() != plainly.program.digest()


def test_a_step_that_is_none_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'augment\.0\.paddin'; did you mean 'padding'"
    ):
        Plan(augment=({"kind": "crop", "paddin": 1},))
    with pytest.raises(ConfigError, match=r"augmentation 'crap': .*did you mean 'crop'"):
        Plan(augment=({"kind": "crap"},))
    with pytest.raises(ConfigError, match=r"augment\.0 = 3"):
        Plan(augment=(3,))  # type: ignore[arg-type]


def test_only_images_are_moved(digits: Dataset) -> None:
    spec = NetworkSpec.from_dict(
        {
            "name": "flat",
            "input": {"shape": [64]},
            "populations": [{"name": "output", "shape": [10]}],
            "couplings": [{"pre": "input", "post": "output"}],
        }
    )
    made = plastic(compilers.compile(Network(spec, 0), steps=4))
    with pytest.raises(ConfigError, match=r"'flat' takes \[64\], not images"):
        learn(made, digits, Plan(10, augment=(Crop(),)))


# --- the plan ----------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 50), st.integers(1, 30), st.integers(1, 120))
def test_each_pass_takes_every_sample_once(samples: int, batch: int, points: int, n: int) -> None:
    plan = Plan(samples, batch, points=points)
    order = plan.order(n)
    assert len(order) == samples
    for first in range(0, samples - n + 1, n):
        assert sorted(order[first : first + n]) == list(range(n))
    assert plan.stops[-1] == samples
    assert all(stop % batch == 0 for stop in plan.stops[:-1])
    assert len(plan.stops) <= points


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 5))
def test_more_samples_go_on_in_the_same_order(a: int, b: int, seed: int) -> None:
    short, long = (Plan(n, seed=seed).order(100) for n in sorted((a, b)))
    np.testing.assert_array_equal(long[: len(short)], short)


@pytest.mark.parametrize(
    ("samples", "between"), [(1, 1000), (1000, 1000), (60_000, 1000), (600_000, 6000)]
)
def test_a_long_run_is_saved_every_thousand_samples_or_a_hundred_times(
    samples: int, between: int
) -> None:
    stops = [0, *Plan.of(samples, batch=8).stops]
    assert np.diff(stops).max() <= between
    assert len(stops) <= 101


@pytest.mark.parametrize("field", ["samples", "batch", "points"])
def test_a_plan_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=f"learning, {field}: 0 is below 1"):
        Plan(**{field: 0})


@given(st.integers(1, 1000), st.floats(0.01, 1))
def test_a_rate_falls_by_equal_factors_to_its_share(samples: int, share: float) -> None:
    plan = Plan(samples, anneal=share)
    assert plan.rate_scale(0) == 1
    assert plan.rate_scale(samples) == pytest.approx(share)
    assert plan.rate_scale(samples // 2) ** 2 >= share * (1 - 1e-9)


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_rate_is_halved_by_default_wherever_the_end_is(samples: int, done: int) -> None:
    plan = Plan(samples)
    assert [plan.rate_scale(n * HALVED) for n in (0, 1, 3, 7)] == [1, 1 / 2, 1 / 4, 1 / 8]
    assert 1 <= plan.rate_scale(done) * (1 + done / HALVED) < 2
    assert plan.rate_scale(done) == Plan(2 * samples).rate_scale(done)


@given(st.integers(1, 300), st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_every_batch_has_its_rate_however_the_way_is_divided(batch: int, steps: list[int]) -> None:
    plan = Plan(10**6, batch=batch)
    stops = [0, *itertools.accumulate(100 * batch * step for step in steps)]
    ways = [part for ends in itertools.pairwise(stops) for part in plan.stretches(*ends)]
    assert [a for a, _ in ways] == [0, *(b for _, b in ways[:-1])]
    for first, stop in ways:
        assert plan.rate_scale(first) == plan.rate_scale(stop - batch)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="learning, anneal"):
        Plan(anneal=share)


# --- becoming plastic --------------------------------------------------------------------------


def test_a_program_without_a_rule_gets_that_of_its_encoding_and_says_so() -> None:
    told: list[str] = []
    for code, rule in (("graded", "contrastive"), ("spike", "spike-average")):
        plain = compilers.compile(Network(zoo("digits_dense"), 0), code=code)
        made = plastic(plain, log=told.append)
        assert {r.rule.name for r in made.graph.plasticity} == {rule}
        assert f"it takes '{rule}' at rate 0.1" in told[-1]


def test_a_rate_replaces_that_of_the_program_and_nothing_else() -> None:
    slow = compilers.compile(Network(zoo("digits_dense"), 0), learn="one-sided")
    fast = plastic(slow, rate=1.0)
    assert [r.rule.name for r in fast.graph.plasticity] == ["one-sided"] * 4
    for a, b in zip(slow.graph.plasticity, fast.graph.plasticity, strict=True):
        assert b.rate == pytest.approx(10 * a.rate)
        assert replace(b, rate=a.rate) == a
    assert fast.graph.phases == slow.graph.phases
    assert plastic(slow) is slow


@pytest.mark.parametrize("learn", [None, "one-sided"])
def test_what_comes_into_the_output_can_have_a_rate_of_its_own(learn: str | None) -> None:
    plain = compilers.compile(Network(zoo("digits_dense"), 0), learn=learn)
    graph = plastic(plain, rate=1.0, output_rate=0.25).graph
    contrast = sum(p.sign * p.nudge for p in graph.phases)
    assert {r.weight: pytest.approx(r.rate * contrast) for r in graph.plasticity} == {
        **{"weight/input->h1": 1.0, "bias/h1": 1.0},
        **{"weight/h1->output": 0.25, "bias/output": 0.25},
    }
    slower = plastic(plastic(plain, rate=1.0), output_rate=0.25).graph
    assert slower.plasticity == graph.plasticity


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_teaches_nothing_is_refused(rate: float) -> None:
    with pytest.raises(GraphError, match="rate"):
        program(rate=rate)


def test_a_target_that_cannot_learn_is_refused_with_its_reason() -> None:
    network = Network(zoo("digits_dense"), 0)
    with pytest.raises(TargetError, match=r"target 'loihi2': it cannot learn: .*; compile for"):
        plastic(compilers.compile(network, target="loihi2"))


# --- agreement with EP -------------------------------------------------------------------------


def test_the_update_of_one_batch_points_where_ep_points(digits: Dataset) -> None:
    few = digits.train.head(20)
    made = plastic(compilers.compile(Network(zoo("digits_dense"), 0), steps=64), rate=0.1)
    with targets.learner(made) as session:
        session.learn(few.x, few.y, batch=20)
        after = session.learnt()
    step = ep_step(made.graph, few)
    found = compare_updates(weights_of(made.graph), weights_of(after.graph), step)
    assert found.cosine > 0.999
    assert found.sign > 0.98


def test_comparing_tells_signs_and_directions_apart() -> None:
    before = {"a": np.zeros(4)}
    after = {"a": np.array([1.0, -1.0, 1.0, 0.0])}
    found = compare_updates(before, after, {"a": np.array([2.0, -2.0, -2.0, 5.0])})
    assert found.sign == pytest.approx(2 / 3)  # what did not move has no sign
    assert found.cosine == pytest.approx(2 / np.sqrt(3 * 37))
    assert np.isnan(compare_updates(before, before, after).sign)


# --- the run -----------------------------------------------------------------------------------


def test_a_run_learns_and_takes_down_what_happened(digits: Dataset, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    plan = Plan(samples=600, batch=10, points=4)
    learnt = learn(
        program(rate=0.2), digits, plan, out=tmp_path, monitor=lambda *facts: told.append(facts)
    )
    found = learnt.fields()
    assert found["accuracy_after"] > found["accuracy_before"] + 0.3
    assert found["samples"] == 600
    assert found["weight_bits"] is None
    assert found["energy_joule"] > 0
    assert found["sign_agreement"] > 0.65
    assert found["events_per_sample"] > 0
    assert [r["samples"] for r in learnt.history] == [0, 150, 300, 450, 600]
    assert [done for done, _, _ in told] == list(range(10, 601, 10))
    assert "while learning" in told[-1][2]
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert json.loads(lines[-1])["val_accuracy"] == learnt.history[-1]["val_accuracy"]
    assert [p.name for p in learnt.figures] == list(FIGURES)
    assert all(p.is_file() for p in learnt.figures)


def test_the_learnt_program_gives_the_accuracy_that_was_reported(
    digits: Dataset, tmp_path: Path
) -> None:
    learnt = learn(program(bits=8), digits, Plan(samples=60, batch=20, points=2))
    learning.write(learnt, tmp_path / "p")
    loaded = load_program(tmp_path / "p")
    assert loaded.provenance["learnt.samples"] == "60"
    with targets.open(loaded) as session:
        right = session.settle(digits.test.x).predictions == digits.test.y
    assert right.mean() == learnt.accuracy_after


def facts_of_stopped(
    at: int, made: Program, digits: Dataset, plan: Plan, out: Path
) -> dict[str, Any]:
    """What is kept in `out` of a run that was interrupted when it had learnt `at` samples."""
    with pytest.raises(KeyboardInterrupt):
        learn(made, digits, plan, out=out, monitor=interrupt_at(at))
    saved = load_state(out / LAST)
    assert saved is not None
    return saved.facts


@pytest.mark.parametrize(
    ("code", "bits", "augment"), [("graded", None, ()), ("spike", 8, (Crop(padding=1),))]
)
def test_a_run_that_stopped_goes_on_to_the_same_weights(
    code: str, bits: int | None, augment: tuple[Crop, ...], digits: Dataset, tmp_path: Path
) -> None:
    plan = Plan(samples=45, batch=5, points=3, anneal=0.1, augment=augment)
    made = program(code, bits)
    whole = learn(made, digits, plan)

    facts = facts_of_stopped(35, made, digits, plan, tmp_path)
    assert facts["history"][-1]["samples"] == 30
    done: list[int] = []
    again = learn(
        made, digits, plan, out=tmp_path, resume=True, monitor=lambda n, *_: done.append(n)
    )
    assert done[0] == 35
    assert again.program.digest() == whole.program.digest()
    assert again.accuracy_before == whole.accuracy_before
    for a, b in zip(whole.history, again.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in b.items() if k != "seconds"}, nan_ok=True
        )


def test_going_on_tells_of_a_point_that_was_saved_and_not_yet_told_of(
    digits: Dataset, finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "run")
    told = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(told.splitlines(keepends=True)[0])
    learn(program(), digits, Plan(samples=20, batch=10, points=1), out=out, resume=True)
    assert (out / "metrics.jsonl").read_text() == told


def test_a_finished_run_can_learn_more(digits: Dataset, finished: Path, tmp_path: Path) -> None:
    made, out = program(), shutil.copytree(finished, tmp_path / "run")
    more = learn(made, digits, Plan(samples=40, batch=10, points=1), out=out, resume=True)
    whole = learn(made, digits, Plan(samples=40, batch=10, points=1))
    for name, weight in whole.program.graph.arrays.items():
        np.testing.assert_array_equal(more.program.graph.arrays[name], weight)


@pytest.mark.parametrize(
    ("plan", "rate", "problem"),
    [
        (Plan(samples=20, batch=5), 1.0, "its batch was 10, and now is 5"),
        (Plan(samples=20, batch=10, seed=1), 1.0, "its seed was 0, and now is 1"),
        (Plan(samples=20, batch=10), 2.0, "its program was"),
        (Plan(samples=20, batch=10, anneal=0.5), 1.0, "its anneal was None, and now is 0.5"),
        (Plan(samples=20, batch=10, augment=(Crop(),)), 1.0, "its augment was None, and now is"),
        (Plan(samples=10, batch=10), 1.0, "20 samples are learnt, and 10 are asked for"),
    ],
)
def test_resuming_something_else_is_refused(
    plan: Plan, rate: float, problem: str, digits: Dataset, finished: Path
) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        learn(program(rate=rate), digits, plan, out=finished, resume=True)
    assert "\n" not in str(raised.value)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "a list": lambda content: b"[]",
    "one bit": lambda content: content[:-4] + bytes([content[-4] ^ 1]) + content[-3:],
    "one value": lambda content: content.replace(b'"samples": 20', b'"samples": 10'),
}
FILES = ("state.json", "memory.safetensors", "probes.safetensors")


@pytest.mark.parametrize(
    ("name", "damage"),
    [*itertools.product(FILES, ("half", "a list", "one bit")), (FILES[0], "one value")],
)
def test_a_damaged_state_is_refused_in_one_line(
    name: str, damage: str, finished: Path, tmp_path: Path
) -> None:
    state = shutil.copytree(finished / LAST, tmp_path / LAST)
    content = (state / name).read_bytes()
    (state / name).write_bytes(changed := DAMAGES[damage](content))
    assert changed != content
    with pytest.raises(ProgramError, match="is damaged") as raised:
        load_state(state)
    assert "\n" not in str(raised.value)


def test_a_state_that_an_earlier_version_wrote_is_read_without_a_digest(
    finished: Path, tmp_path: Path
) -> None:
    state = shutil.copytree(finished / LAST, tmp_path / LAST)
    facts = json.loads((state / "state.json").read_text())
    assert len(facts.pop("sha256")) == 64
    (state / "state.json").write_text(json.dumps(facts))
    saved = load_state(state)
    assert saved is not None
    assert saved.facts == facts


# --- watched synapses --------------------------------------------------------------------------


def test_a_few_synapses_of_every_weight_are_watched_at_every_point(finished: Path) -> None:
    chosen = watched_synapses(program().graph, seed=0)
    saved = load_state(finished / LAST)
    assert saved is not None
    points = len(saved.facts["history"])
    assert {k: v.shape for k, v in saved.probes.items()} == dict.fromkeys(
        chosen, (points, SYNAPSES)
    )
    weights = weights_of(program().graph)
    for name, index in chosen.items():
        np.testing.assert_array_equal(saved.probes[name][0], weights[name].ravel()[index])

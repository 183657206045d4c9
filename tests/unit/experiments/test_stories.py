"""Claims about stories: what changes, what is learnt on, and what their records and pages say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import compilers
import ep_neuro as ep
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.deployment.nudgeable import with_squared_error
from ep_neuro.errors import ConfigError, DataError, ModelError
from ep_neuro.network.checkpoint import Model
from ep_neuro.report.story import StoryRecord, read_record, render_story, write_record
from targets.experiments.onchip import stories
from targets.experiments.onchip.changes import DELTA_RATE, STORIES, StorySetting, default_rate
from targets.experiments.onchip.faults import DAY, drift
from targets.experiments.onchip.schedule import Plan
from targets.experiments.onchip.stories import Told

SHORT = Plan(20, batch=10, points=1)


@pytest.fixture(scope="module")
def model(digits: Dataset) -> Model:
    return ep.train(ep.read_config("zoo:digits_dense", ["epochs=3"]), dataset=digits).model


@pytest.fixture(scope="module")
def deep() -> Model:
    """Its units shrink by 16 from population to population."""
    return ep.open_model("hub:digits_resnet")


Teller = Callable[..., Told]


@pytest.fixture
def tell(model: Model, digits: Dataset) -> Teller:
    """A story of few samples on the reference."""

    def told(kind: str, plan: Plan = SHORT, **more: Any) -> Told:
        how = more.pop("setting", StorySetting(test=60, held_out=10))
        told_of = more.pop("of", model)
        return stories.tell_story(kind, told_of, digits, plan, how, target="reference", **more)

    return told


@pytest.mark.parametrize("kind", STORIES)
def test_every_story_keeps_its_books_and_draws_its_page(
    kind: str, tell: Teller, tmp_path: Path
) -> None:
    record = stories.write(tell(kind, seed=3), tmp_path, "python a_command")
    assert read_record(tmp_path / stories.RECORD) == record
    assert (record.story, record.target, record.code, record.bits, record.seed) == (
        *(kind, "reference", "graded", 2 if kind == "coarse" else 8, 3),
    )
    assert record.old_original > 0.8
    assert record.forgetting == record.old_original - record.old_after
    assert record.samples == 20
    assert record.events == pytest.approx(record.events_per_sample * 20)
    assert record.energy_joule > 0
    assert record.energy_source
    if record.one_task:
        assert (record.old_before, record.old_after) == (record.new_before, record.new_after)
    else:
        assert record.old_before == record.old_original
    assert record.new_before < record.old_original or kind in ("drifted", "coarse")
    assert [point.samples for point in record.curve] == [0, 20]
    learnt = compilers.load_program(tmp_path / stories.PROGRAM).graph.plasticity
    assert [r.weight for r in learnt] == record.learns
    page = (tmp_path / stories.PAGE).read_text(encoding="utf-8")
    assert STORIES[kind].title in page
    assert page.count("<img ") == len(record.pictures) >= 2
    assert "python a_command" in page
    assert not re.search(r"(?:src|href)=.https?:", page)


def test_a_drifted_chip_learns_back_on_chip(tell: Teller, deep: Model) -> None:
    plan = Plan(60, batch=10, points=1)
    record = tell("drifted", plan, of=deep, change={"days": 365}).record
    assert record.new_before < 0.7
    assert record.new_after > record.new_before + 0.2


def test_a_new_class_is_never_answered_before_and_often_after(tell: Teller) -> None:
    record = tell("new-class", Plan(300, batch=10, points=1), change={"label": 3}).record
    assert record.new_before == 0
    assert record.new_after > 0.5
    assert record.old_after > 0.8


def test_the_default_rate_falls_with_the_square_of_what_neurons_hear(
    model: Model, digits: Dataset
) -> None:
    graph, images = compilers.compile(model, "reference").graph, digits.train.head(20)

    def rate(contrast: float) -> float:
        return default_rate(graph, model.network, Split(contrast * images.x, images.y))

    heard = np.square(images.x).sum((1, 2, 3)).mean()  # by the input's synapses most of all
    assert rate(1.0) == pytest.approx(DELTA_RATE / heard)
    assert rate(0.5) > rate(1.0)
    assert rate(0.0) <= DELTA_RATE


def test_spikes_teach_what_hears_the_nudge_and_nothing_else(tell: Teller, deep: Model) -> None:
    record = tell(
        "rotated", of=deep, setting=StorySetting(code="spike", test=10, held_out=10)
    ).record
    assert record.learns == ["weight/h4->output", "bias/output"]


def test_of_mistakes_alone_the_record_tells_how_many_were_learnt(tell: Teller) -> None:
    told = tell("damaged", Plan(60, batch=10, points=1, margin=0.2))
    taught = told.recovery.learnt.fields()["taught"]
    assert 0 < taught < 60
    assert f"60 samples answered, and {taught} of them learnt" in told.record.energy_per
    assert told.record.plan["margin"] == 0.2


def test_a_story_that_was_stopped_goes_on_to_the_same_record(tell: Teller, tmp_path: Path) -> None:
    plan = Plan(40, batch=10, points=2)
    whole = tell("damaged", plan).record

    def stop(done: int, total: int, note: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell("damaged", plan, out=tmp_path, monitor=stop)
    with pytest.raises(ConfigError, match="holds a run already"):
        tell("damaged", plan, out=tmp_path)
    seen: list[int] = []
    again = tell(
        "damaged", plan, out=tmp_path, resume=True, monitor=lambda done, *_: seen.append(done)
    ).record
    assert min(seen) > 20
    differs = {"date", "seconds", "curve"}
    assert again.model_dump(exclude=differs) == whole.model_dump(exclude=differs)
    assert [p.val_accuracy for p in again.curve] == [p.val_accuracy for p in whole.curve]


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("damage", {}, "did you mean 'damaged'"),
        ("damaged", {"change": {"stick": 0.1}}, "did you mean 'stuck'"),
        ("damaged", {"change": {"stuck": 1.5}}, "1.5 is no share"),
        ("inverted", {"change": {"turns": 1}}, "no such change; drop it"),
        ("drifted", {"change": {"days": -1}}, "below 0"),
        ("new-class", {"change": {"label": 10}}, "10 is no class of digits"),
    ],
)
def test_what_makes_no_story_is_refused_in_a_line(
    kind: str, more: dict[str, Any], said: str, tell: Teller
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as raised:
        tell(kind, **more)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="0 is below 1"):
        StorySetting(images=0)


def test_a_page_takes_records_of_one_story_only(tell: Teller, tmp_path: Path) -> None:
    damaged = tell("damaged").record
    other = damaged.model_copy(update={"story": "rotated"})
    with pytest.raises(DataError, match="2 records tell of damaged, rotated"):
        render_story([damaged, other])
    assert render_story([damaged, damaged]).count("<h3>") >= 4
    path = write_record(damaged, tmp_path / "story.json")
    for text, said in {
        path.read_text().replace(
            '"samples": 20,\n "events', '"samples": "many",\n "events'
        ): "is no record: samples",
        "{": "is no JSON",
        '{"story": 3}': "is no record",
    }.items():
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_record(path)


def test_drift_follows_the_power_law_and_is_rounded_in_integers(model: Model) -> None:
    for bits in (None, 8):
        program = compilers.compile(model.network, bits=bits)
        fallen = drift(program, seconds=DAY, spread=0).graph.arrays
        factor = ((DAY + 20) / 20) ** -0.055
        for weight in program.graph.ties:
            expected = program.graph.arrays[weight] * factor
            expected = expected if bits is None else np.rint(expected)
            np.testing.assert_allclose(fallen[weight], expected, rtol=1e-5)
        kept = [p.bias for p in program.graph.neurons]
        assert all(fallen[b] is program.graph.arrays[b] for b in kept)
    one, two = (drift(program, seed=seed).graph.arrays for seed in (0, 1))
    assert any((one[w] != two[w]).any() for w in program.graph.ties)


def test_a_squared_error_in_place_of_a_cross_entropy_answers_the_same() -> None:
    model = ep.open_model("hub:mnist_residual")
    x = np.random.default_rng(0).random((40, 1, 28, 28), dtype=np.float32)
    with torch.no_grad():
        logits = model.network(torch.from_numpy(x)).numpy()
    y = logits.argmax(1)
    changed = with_squared_error(model, x, y)
    with pytest.raises(ModelError, match="say nothing of the labels"):
        with_squared_error(model, x, logits.argmin(1))
    assert changed.network.spec.cost == "squared-error"
    assert with_squared_error(changed, x, y) is changed
    with torch.no_grad():
        outputs = [m.network(torch.from_numpy(x)) for m in (model, changed)]
    assert torch.equal(*(z.argmax(1) for z in outputs))
    assert outputs[0].max() > 2
    assert outputs[1].min() >= -0.5


def test_the_record_is_what_the_readers_of_json_rely_on() -> None:
    wanted = "old_original old_before old_after new_before new_after samples events energy_joule"
    wanted += " energy_per seconds forgetting target bits code seed command"
    assert set(wanted.split()) <= StoryRecord.model_fields.keys()

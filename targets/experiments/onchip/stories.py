"""Stories: the world or the chip changes, the program learns on, old and new task are tested."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import compilers
from ep_neuro.data.datasets import Dataset, check_fits
from ep_neuro.deployment.nudgeable import with_squared_error
from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import Model
from ep_neuro.report.story import (
    MARKER,
    RECORD_MARKER,
    Point,
    StoryRecord,
    write_record,
    write_story,
)
from ep_neuro.report.svg import image_uri
from ep_neuro.storage.atomic import refuse_foreign
from ep_neuro.training.run_directory import check_run_place
from targets.experiments.comparison.compare import weight_bits
from targets.experiments.onchip import run_state
from targets.experiments.onchip.changes import (
    STORIES,
    Changed,
    StorySetting,
    World,
    change_of,
    checked,
    defaults_of,
    weights_shown,
)
from targets.experiments.onchip.learning import Monitor, learn
from targets.experiments.onchip.recovery import Recovery, accuracy
from targets.experiments.onchip.schedule import Plan

RECORD, PAGE, PROGRAM, RUN = "story.json", "story.html", "program", "run"
"""What a run writes."""


@dataclass(frozen=True, eq=False)
class Told:
    """A story that was told: what was lost, what learning brought, and what it cost.

    Attributes
    ----------
    recovery : Recovery
        ``before`` is the accuracy of the old task before the change.
    record : StoryRecord
        What its page is drawn from.
    """

    recovery: Recovery
    record: StoryRecord


def tell_story(
    kind: str,
    model: Model,
    data: Dataset,
    plan: Plan | None = None,
    setting: StorySetting | None = None,
    *,
    target: str = "lava",
    change: Mapping[str, float] | None = None,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    monitor: Monitor | None = None,
) -> Told:
    """Tell the story `kind` of `model`: change something, learn on, test before and after.

    Parameters
    ----------
    kind : str
        One of `STORIES`.
    model : Model
        Trained; a cross-entropy becomes a squared error (`with_squared_error`).
    data : Dataset
        What it was trained on.
    plan : Plan, optional
        3,000 samples in batches of 10 at ten points by default.
    setting : StorySetting, optional
    target : str
        Where it learns.
    change : mapping of float, optional
        How much changes, by the name of a parameter of the story's function: ``stuck`` of
        `damaged`, for instance.
    seed : int
        Of the change.
    out : path, optional
        Folder of the story: its learning run, to `resume` from, lies in `RUN` there, and nothing
        of others may stand where `write` writes.
    resume, force, monitor
        See `targets.learn`.

    Raises
    ------
    ConfigError
        If there is no such story, it has no such parameter, or a value is out of its range.
    GraphError
        If nothing can learn so.
    """
    plan, setting = plan or Plan(3000, batch=10, points=10), setting or StorySetting()
    happen = partial(change_of(kind), **checked(kind, change or {}))
    folder = None if out is None else out / RUN
    if out is not None and folder is not None:
        refuse_foreign(out / RECORD, RECORD_MARKER, ConfigError)
        refuse_foreign(out / PAGE, MARKER, ConfigError)
        check_run_place(folder, run_state.MARKER, resume=resume, force=force)
    check_fits(data, model.network.spec)
    data = replace(data, test=data.test.head(setting.test))
    world = World(
        with_squared_error(model, data.train.x[:1000], data.train.y), data, setting, target, seed
    )
    found = happen(world)
    seen = replace(
        found.data,
        val=found.data.val.head(setting.held_out),
        train=found.data.train.head(setting.images),
    )
    original = accuracy(found.before, found.old)
    learnt = learn(
        found.program,
        replace(seen, test=found.new),
        plan,
        out=folder,
        resume=resume,
        force=force,
        compared=0,
        monitor=monitor,
    )
    one_task = found.old is found.new
    old_after = learnt.accuracy_after if one_task else accuracy(learnt.program, found.old)
    also = {"old task": old_after, "new task": learnt.accuracy_after}
    recovery = Recovery(f"{STORIES[kind].title}: {found.told}", original, learnt, also)
    changed = {**defaults_of(kind), **(change or {})}
    return Told(recovery, _record(recovery, found, world, seen, plan, kind, changed))


def _record(
    recovery: Recovery,
    found: Changed,
    world: World,
    seen: Dataset,
    plan: Plan,
    kind: str,
    change: Mapping[str, float],
) -> StoryRecord:
    learnt, one_task = recovery.learnt, found.old is found.new
    program, fields, pictures = learnt.program, learnt.fields(), dict(found.pictures)
    if one_task:
        pictures["weights after learning"] = weights_shown(program, found.before)
    graph, events, samples = program.graph, fields["events_per_sample"], fields["samples"]
    taught = f"all {samples:,} samples learnt"
    if plan.margin is not None:
        taught = f"all {samples:,} samples answered, and {fields['taught']:,} of them learnt"
    return StoryRecord(
        story=kind,
        title=STORIES[kind].title,
        told=found.told,
        network=graph.name,
        data=world.data.name,
        target=program.target,
        code=world.setting.code,
        bits=weight_bits(program),
        rule=graph.plasticity[0].rule.name,
        rate=graph.plasticity[0].rate * sum(p.sign * p.nudge for p in graph.phases),
        learns=[r.weight for r in graph.plasticity],
        synapses=sum(graph.arrays[r.weight].size for r in graph.plasticity),
        phases={p.name: p.steps for p in graph.phases},
        change=dict(change),
        images=len(seen.train),
        test_images=len(world.data.test),
        seed=world.seed,
        plan=plan.facts,
        old_original=recovery.before,
        old_before=learnt.accuracy_before if one_task else recovery.before,
        old_after=recovery.also["old task"],
        new_before=learnt.accuracy_before,
        new_after=learnt.accuracy_after,
        forgetting=recovery.before - recovery.also["old task"],
        one_task=one_task,
        samples=samples,
        events_per_sample=events,
        events=None if events is None else events * samples,
        energy_joule=learnt.energy_joule,
        energy_per=f"{taught}, every phase and every commit",
        energy_source=learnt.energy_source,
        seconds=fields["seconds"],
        curve=[Point.model_validate(point) for point in learnt.history],
        pictures={caption: image_uri(image) for caption, image in pictures.items()},
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
    )


def write(told: Told, out: Path, command: str = "") -> StoryRecord:
    """Write the record of `told`, its page and the learnt program into the folder `out`.

    They are called `RECORD`, `PAGE` and `PROGRAM`; ``ep-neuro check`` says of the last what limits
    its learning.

    Raises
    ------
    ConfigError
        If the disk refuses, or something else stands there.
    """
    record = told.record.model_copy(update={"command": command})
    compilers.save_program(told.recovery.learnt.program, out / PROGRAM)
    write_record(record, out / RECORD)
    write_story([record], out / PAGE)
    return record

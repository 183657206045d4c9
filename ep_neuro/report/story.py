"""Stories of on-chip learning: the record of a run, and one self-contained page for several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ep_neuro.errors import ConfigError, DataError
from ep_neuro.report.page import THEMES, Drawing, template
from ep_neuro.report.plots import curves, formatting
from ep_neuro.report.plots.records import LearningCurve
from ep_neuro.report.svg import inline_svg
from ep_neuro.storage.atomic import write_file

MARKER = b"ep-neuro story</title>"
"""What tells a page of ours."""

RECORD_MARKER = b'"story":'
"""What tells a record of ours."""

Share = Annotated[float, Field(ge=0, le=1)]
Picture = Annotated[str, Field(pattern=r"^data:image/png;base64,[A-Za-z0-9+/=]*$")]


class Point(BaseModel):
    """Accuracy after so many samples: of held-out ones, and of those learnt since a point ago."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    samples: float
    val_accuracy: Share
    running_accuracy: Share | None = None


class StoryRecord(BaseModel):
    """One run of a story, as it is written to disk."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    story: str
    """Its name."""
    title: str
    """What it is called."""
    told: str
    """What happened."""
    network: str
    data: str
    target: str
    code: str
    rule: str
    bits: int | None
    """Of a weight; None: floating point."""
    rate: float
    """Learning rate of the first of `learns`, in units."""
    learns: list[str]
    """Weights and biases that learnt."""
    synapses: int
    """Their elements; what is stuck counts, too."""
    phases: dict[str, int]
    """Steps by phase."""
    change: dict[str, float]
    """How much changed."""
    images: int
    """Different images to learn from."""
    test_images: int
    """Of both tasks."""
    seed: int
    plan: dict[str, Any]
    """See `targets.Plan`."""
    old_original: Share
    """Test accuracy of the old task before the change."""
    old_before: Share
    """The same after the change, before learning."""
    old_after: Share
    """The same after learning."""
    new_before: Share
    """Test accuracy of the new task before learning; where the chip changed, it is the old one."""
    new_after: Share
    """The same after learning."""
    forgetting: float
    """``old_original - old_after``."""
    one_task: bool
    """Whether both tasks are the same, since it is the chip that changed."""
    samples: int
    """Learnt."""
    events_per_sample: float | None
    """Messages of all phases."""
    events: float | None
    """Those of all samples."""
    energy_joule: float | None
    """An estimate, of what `energy_per` says, from the constants of `energy_source`."""
    energy_per: str
    energy_source: str
    seconds: float
    """Of the learning steps, as simulated here."""
    curve: list[Point]
    pictures: dict[str, Picture] = {}
    """PNG data addresses by caption."""
    command: str = ""
    date: str = ""
    machine: str = ""
    """How, when and where it ran."""

    @property
    def name(self) -> str:
        """Network, target, code and width of its run."""
        width = "float" if self.bits is None else f"{self.bits} bits"
        return f"{self.network}, {self.target} {self.code}, {width}"

    def drawing(self, unique: str) -> Drawing:
        """The accuracy by samples, beside the original one; `unique` in the page."""
        at = [p.samples for p in self.curve]
        named: Mapping[str, list[float | None]] = {
            "held out": [p.val_accuracy for p in self.curve],
            "while learning": [p.running_accuracy for p in self.curve],
            "old task, original": [self.old_original] * len(at),
        }
        accuracy = {k: np.array(v, dtype=float) for k, v in named.items()}
        curve = LearningCurve(self.name, np.array(at), "samples", accuracy=accuracy)
        lines = formatting.describe_learning(curve, "accuracy")
        drawn = inline_svg(curves.plot_learning(curve), unique, f"{self.name}. {'; '.join(lines)}")
        return Drawing(self.name, drawn, lines)


def write_record(record: StoryRecord, path: str | Path) -> Path:
    """Write `record` as JSON, whole or not at all; `ConfigError` if something else stands there."""
    text = record.model_dump_json(indent=1) + "\n"
    return write_file(path, text.encode(), ConfigError, marker=RECORD_MARKER)


def read_record(path: str | Path) -> StoryRecord:
    """Read what `write_record` wrote; `DataError` says in a line what is wrong with it."""
    remedy = "name a story.json that a run wrote"
    try:
        return StoryRecord.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror})", remedy) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise DataError(str(path), f"is no record: {where}: {first['msg']}", remedy) from None
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"is no JSON ({str(error)[:80]})", remedy) from None


def render_story(records: Sequence[StoryRecord]) -> str:
    """The page of one story as HTML, a row and a curve for each of `records`.

    Raises
    ------
    DataError
        If there are none, or of different stories.
    """
    kinds = list(dict.fromkeys(r.story for r in records))
    if len(kinds) != 1:
        problem = f"{len(records)} records tell of {', '.join(kinds) or 'nothing'}"
        raise DataError("page of a story", problem, "give records of one story")
    return template("story.html.j2").render(
        records=records,
        drawings=[r.drawing(f"run{i}") for i, r in enumerate(records)],
        sources=list(dict.fromkeys(r.energy_source for r in records if r.energy_joule)),
        **THEMES,
    )


def write_story(records: Sequence[StoryRecord], path: str | Path) -> Path:
    """Write the page of `records` to `path`, whole or not at all; its folder is made.

    Raises
    ------
    DataError
        See `render_story`.
    ConfigError
        If the disk refuses, or a file of somebody else stands there.
    """
    return write_file(path, render_story(records).encode(), ConfigError, marker=MARKER)

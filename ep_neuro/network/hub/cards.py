"""``hub:NAME``: models that come with the package, each a model directory with a card."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ep_neuro.errors import ModelError, nearest
from ep_neuro.storage.yaml_io import first_problem, load_yaml

PREFIX, CARD = "hub:", "card.yaml"

HUB = Path(__file__).parent

AGAIN = "install ep-neuro again"


class Figure(BaseModel):
    """One measured accuracy, and the command that measures it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["val", "test"]
    accuracy: float
    samples: int
    command: str


class Card(BaseModel):
    """What is to be known of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str
    """The network in a line."""
    data: str
    """What it was trained on, and from where."""
    recipe: str
    """The command that trains it again."""
    figures: tuple[Figure, ...]
    """Of the weights as they are here, in 8 bits."""
    before: dict[str, float]
    """Accuracy by split of the weights in float32 that these were packed from."""
    licence: str
    """Of the weights."""
    date: date
    """Of training."""
    sha256: dict[str, str]
    """Of each file beside the card."""

    def accuracy(self, split: str) -> float | None:
        """Of the weights as they are here; None where it was not measured."""
        return next((f.accuracy for f in self.figures if f.split == split), None)


def hub_names() -> list[str]:
    """Names of the models that are here."""
    return sorted(path.parent.name for path in HUB.glob(f"*/{CARD}"))


def read_card(name: str) -> Card:
    """The card of a model.

    Raises
    ------
    ModelError
        If there is no model of this name, or its card is damaged.
    """
    if name not in hub_names():
        known = f"there are {', '.join(PREFIX + n for n in hub_names())}"
        near = nearest(name, hub_names(), "")
        remedy = f"{near} {known}" if near.startswith("did") else known
        raise ModelError(f"model '{PREFIX}{name}'", "the hub has none of this name", remedy)
    path = HUB / name / CARD
    try:
        return Card.model_validate(load_yaml(path))
    except ValidationError as error:
        problem, _ = first_problem(error, Card)
        raise ModelError(str(path), problem, AGAIN) from None


def place_of(name: str | Path) -> Path:
    """The directory that `name` says: a path, or ``hub:NAME``, whose files are checked.

    Raises
    ------
    ModelError
        If the hub has no model of this name, or a file of it is missing or is not what its card
        says.
    """
    if not str(name).startswith(PREFIX):
        return Path(name)
    short = str(name).removeprefix(PREFIX)
    for file, digest in read_card(short).sha256.items():
        path = HUB / short / file
        if not path.is_file():
            raise ModelError(str(path), "the file is missing", AGAIN)
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ModelError(str(path), f"the file is damaged: not the sha256 of {CARD}", AGAIN)
    return HUB / short

"""How a model wants to be compiled: as it was fine-tuned, or seen, and with room to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ep_neuro.errors import ModelError

if TYPE_CHECKING:
    from ep_neuro.network.checkpoint import Model
    from ep_neuro.network.network import Network

DEPLOYED = "deployed"
"""Where the metadata of a model and the answers of commands say it."""

THRESHOLDS = ("precision", "start", "end", "decay")

FRESH_HEADROOM = 2
"""Bits of a weight that learning from fresh weights fills, if there are as many to spare."""


def deployment_of(model: Model) -> dict[str, Any]:
    """The deployment that `model` was fine-tuned on, as its metadata has it; {} if on none.

    Raises
    ------
    ModelError
        If the metadata says what `Deployment` does not take.
    """
    from ep_neuro.deployment.dynamics import (
        Deployment,  # here: importing the compiler shall not import torch
    )

    notes = model.metadata.get(DEPLOYED) or {}
    try:
        Deployment.model_validate(notes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (DEPLOYED, *first["loc"])))
        problem = f"{first['input']!r}: {first['msg'].lower()}"
        raise ModelError(f"metadata.json, {where}", problem, "correct the file") from None
    return dict(notes)


def taken_from(model: Model, **given: Any) -> dict[str, Any]:
    """The options that are left out and that `model` was fine-tuned with.

    Parameters
    ----------
    model : Model
    **given
        ``code``, ``bits``, ``steps``, ``leak``; None for what is left out.
    """
    notes = deployment_of(model)
    return {k: notes[k] for k, v in given.items() if v is None and notes.get(k) is not None}


def neurons_of(model: Model, code: str) -> dict[str, Any]:
    """Parameters of the neurons that `model` was fine-tuned with; none for another `code`."""
    notes: Mapping[str, Any] = deployment_of(model)
    if notes.get("code") != code or code == "graded":
        return {}
    if code == "spike":
        return {name: notes[name] for name in ("reset",) if name in notes}
    # Models of before there was a precision were fine-tuned with one threshold for all.
    said = {name: notes[name] for name in THRESHOLDS if notes.get(name) is not None}
    return said or {"precision": None}


def inferring(model: Model) -> Network:
    """The network of `model` with boxes drawn tight round the states that it was seen in.

    One that was fine-tuned on a deployment keeps the boxes that it was tuned in.
    """
    from ep_neuro.network.ranges import narrowed, read_ranges

    ranges = read_ranges(model.metadata)
    return model.network if deployment_of(model) or not ranges else narrowed(model.network, ranges)


def fresh_headroom(bits: int | None) -> int:
    """Headroom of weights of so many bits that are to be learnt from scratch."""
    return 0 if bits is None else max(0, min(FRESH_HEADROOM, bits - 2))

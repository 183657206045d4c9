"""What a fine-tuned model says of its deployment, and what of it a command takes."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ep_neuro.console import log
from ep_neuro.errors import ModelError

if TYPE_CHECKING:
    from ep_neuro.checkpoint import Model

DEPLOYED = "deployed"
"""Where the metadata of a model and the answers of commands say it."""

THRESHOLDS = ("precision", "start", "end", "decay")


def deployment_of(model: "Model") -> dict[str, Any]:
    """The deployment that `model` was fine-tuned on, as its metadata has it; {} if on none.

    Raises
    ------
    ModelError
        If the metadata says what `Deployment` does not take.
    """
    from ep_neuro.deployed import Deployment

    notes = model.metadata.get(DEPLOYED) or {}
    try:
        Deployment.model_validate(notes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (DEPLOYED, *first["loc"])))
        problem = f"{first['input']!r}: {first['msg'].lower()}"
        raise ModelError(f"metadata.json, {where}", problem, "correct the file") from None
    return dict(notes)


def completed(model: "Model", **given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords of `compile_network`: those `given`, else the model's own, else the defaults.

    Parameters
    ----------
    model : Model
    **given
        ``code``, ``bits``, ``steps``, ``leak``; None for what was left out.

    Returns
    -------
    keywords, taken : dict
        All keywords with ``parameters``, and those that were taken from the model.
    """
    notes = deployment_of(model)
    taken = {k: notes[k] for k, v in given.items() if v is None and notes.get(k) is not None}
    keywords = {"code": "graded", **{k: v for k, v in given.items() if v is not None}, **taken}
    if notes.get("code") == keywords["code"] == "sigma-delta":
        keywords["parameters"] = _thresholds(notes)
    _tell(taken)
    return keywords, taken


def completed_choices(
    model: "Model", texts: Sequence[str], steps: int | None, swept: Collection[str]
) -> tuple[list[str], int | None, dict[str, Any]]:
    """What `compare` is to run, with what is left out from the model.

    Parameters
    ----------
    model : Model
    texts : sequence of str
        ``target[:code[:bits]]``.
    steps : int, optional
    swept : collection of str
        ``bits`` and ``steps`` stay open if they are in it.

    Returns
    -------
    texts, steps, taken
        The same completed, and what was taken from the model.
    """
    notes = {k: v for k, v in deployment_of(model).items() if k not in swept and v is not None}
    taken: dict[str, Any] = {}
    found = []
    for text in texts:
        target, *said = text.split(":")
        for name in ("code", "bits")[len(said) :]:
            if name not in notes:
                break
            taken[name] = notes[name]
            said.append(str(notes[name]))
        found.append(":".join((target, *said)))
    if steps is None and "steps" in notes:
        steps = taken["steps"] = notes["steps"]
    _tell(taken)
    return found, steps, taken


def _thresholds(notes: Mapping[str, Any]) -> dict[str, float | None]:
    # Models of before there was a precision were fine-tuned with one threshold for all.
    said = {name: notes[name] for name in THRESHOLDS if notes.get(name) is not None}
    return said or {"precision": None}


def _tell(taken: Mapping[str, Any]) -> None:
    if taken:
        said = ", ".join(f"{name} {value}" for name, value in taken.items())
        log(f"as the model was fine-tuned: {said} (options of the command line go first)")

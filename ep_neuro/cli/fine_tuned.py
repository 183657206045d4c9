"""Compile options that a fine-tuned model records, as defaults of commands, which say so."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ep_neuro.cli.console import log

if TYPE_CHECKING:
    from ep_neuro.network.checkpoint import Model


def completed_choices(
    model: "Model", texts: Sequence[str], steps: int | None, swept: Collection[str]
) -> tuple[list[str], int | None, dict[str, Any]]:
    """What `compare` is to run: `texts` (``target[:code[:bits]]``), `steps`, and what was taken.

    What they leave out is taken from the model, but for ``bits`` and ``steps`` in `swept`.
    """
    from compilers.model_options import deployment_of

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
    tell(taken)
    return found, steps, taken


def tell(taken: Mapping[str, Any]) -> None:
    """Log what was `taken` from the model."""
    if taken:
        said = ", ".join(f"{name} {value}" for name, value in taken.items())
        log(f"as the model was fine-tuned: {said} (options of the command line go first)")

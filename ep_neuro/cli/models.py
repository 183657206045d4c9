"""Which model a command is given: one of ours, or a file that another tool wrote."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ep_neuro.cli import options

if TYPE_CHECKING:
    from ep_neuro.network.checkpoint import Model
    from ep_neuro.training.config import TrainConfig

OURS = ("", ".yaml", ".yml", ".txt", ".json")
"""Suffixes of text that no target reads."""


def foreign(name: str) -> "Model | None":
    """The model in a file of the format of a target, such as NIR; None for anything else."""
    path = Path(name)
    backend = _reader(path)
    model: Model | None = None if backend is None else backend.read(path)
    return model


def _reader(path: Path) -> Any:
    """The backend whose file this is, by its first bytes or its name; None if it is nobody's."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(8)
    if path.suffix.lower() in OURS and start.isascii():
        return None
    import targets

    for backend in targets.backends():
        signature, suffix = (getattr(backend, key, None) for key in ("signature", "suffix"))
        begins = signature is not None and start.startswith(signature)
        if hasattr(backend, "read") and (begins or path.suffix.lower() == suffix):
            return backend
    return None


def open_named(name: str, seed: int) -> "Model":
    """As `arguments.open_named`, and what `foreign` reads."""
    return foreign(name) or options.open_named(name, seed)


def config_in(name: str) -> "TrainConfig | None":
    """The training configuration in file `name`, or None if it is none."""
    return None if _reader(Path(name)) is not None else options.config_in(name)


def model_facts(name: str) -> dict[str, Any]:
    """What there is to say of a configuration, a spec, a model, or a file of another tool."""
    return options.model_facts(name, foreign(name))

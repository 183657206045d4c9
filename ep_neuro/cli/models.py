"""Which model a command is given: one of ours, or a file that another tool wrote."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ep_neuro.errors import ModelError

if TYPE_CHECKING:
    from ep_neuro.energy.spec import NetworkSpec
    from ep_neuro.network.checkpoint import Model
    from ep_neuro.training.config import TrainConfig

OURS = ("", ".yaml", ".yml", ".txt", ".json")
"""Suffixes of text that no target reads."""


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
        if hasattr(backend, "read") and (begins or path.suffix.lower() == (suffix or None)):
            return backend
    if start[:1] == b"\x80" or _holds_a_pickle(path):
        problem = "a checkpoint of torch.save tells no network"
        remedy = f"make a model of it: `ep-neuro import {path} --like NETWORK --out DIR`"
        raise ModelError(str(path), problem, remedy)
    return None


def _holds_a_pickle(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("data.pkl") for name in file.namelist())


def open_named(name: str, seed: int) -> "Model":
    """A model, or the file of another tool; the run directory of `train` is its best model."""
    from ep_neuro.network.checkpoint import open_model

    path = Path(name)
    backend = _reader(path)
    if backend is not None:
        found: Model = backend.read(path)
        return found
    return open_model(name, seed)


def config_in(name: str) -> "TrainConfig | None":
    """The training configuration in file `name`, or None if it is none."""
    from ep_neuro.storage.yaml_io import load_yaml
    from ep_neuro.training.config import build_config

    if not Path(name).is_file() or _reader(Path(name)) is not None:
        return None
    data = load_yaml(name)
    return build_config(data, name) if data.keys() & {"network", "start"} else None


def spec_like(name: str) -> "NetworkSpec":
    """The network of a model, a spec, a configuration, or the zoo, with ``zoo:`` or without."""
    from ep_neuro.network.architectures import ZOO, zoo

    if name.removeprefix("zoo:") in ZOO:
        return zoo(name.removeprefix("zoo:"))
    config = config_in(name)
    return open_named(name, 0).network.spec if config is None else config.spec()


def model_facts(name: str) -> dict[str, Any]:
    """What there is to say of a configuration, a spec, a model, or a file of another tool."""
    config = config_in(name)
    if config is not None:
        values = config.model_dump(mode="json")
        return {"kind": "config", "config": values, "yaml": config.to_yaml()}
    from ep_neuro.network.hub.cards import place_of
    from ep_neuro.network.stability import loops

    opened = open_named(name, 0)
    spec, found = opened.network.spec, loops(opened.network)
    text = f"# {spec.name}: {spec.parameters:,} parameters\n{spec.to_yaml()}"
    facts: dict[str, Any] = {
        "kind": "spec",
        "spec": spec.to_dict(),
        "parameters": spec.parameters,
        "couplings": [loop.facts() for loop in found],
        "yaml": text + "".join(f"# {loop}\n" for loop in found),
    }
    if place_of(name).is_dir():
        facts |= {"kind": "model", "metadata": dict(opened.metadata)}
        facts["yaml"] += f"# {json.dumps(facts['metadata'])}\n"
    return facts

"""Models and training states on disk: YAML, JSON and safetensors, written atomically, no pickle."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import EPNeuroError, ModelError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.hub.cards import place_of
from ep_neuro.network.hub.packing import unpacked
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.storage.atomic import replace_directory
from ep_neuro.storage.value_checks import fault

SPEC, WEIGHTS, METADATA = "spec.yaml", "weights.safetensors", "metadata.json"
TEXTS = ("data", "data.sha256", "estimator", "sha256", "start.sha256")
"""What `METADATA` holds as texts, if at all."""

STATE_TENSORS, STATE = "state.safetensors", "state.json"


class ModelWarning(UserWarning):
    """A model is not what it was when it was written."""


@dataclass(frozen=True)
class Model:
    """A network and where it comes from (data, seed, accuracy, versions: free-form JSON)."""

    network: Network
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fresh(self) -> bool:
        """Whether the weights are those that a seed drew (`open_model`)."""
        return self.metadata.keys() == {"seed"}

    @property
    def digest(self) -> str:
        """SHA-256 of spec and parameters."""
        return _digest(self.network.spec.to_yaml(), self.network)


def _digest(spec: str, network: Network) -> str:
    sha = hashlib.sha256(spec.encode())
    for name, value in sorted(parameter_names(network).items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def joint_digest(values: Any, *files: bytes) -> str:
    """SHA-256 of JSON `values` and of `files`, which belong together."""
    sha = hashlib.sha256(json.dumps(values).encode())
    for content in files:
        sha.update(content)
    return sha.hexdigest()


def save_model(model: Model, path: str | Path, state: Mapping[str, Any] | None = None) -> Path:
    """Write a model directory, replacing one of ours as a whole or not at all.

    Parameters
    ----------
    model : Model
        What to write.
    path : path
        The directory.
    state : mapping, optional
        Training state to keep beside it: nested mappings and lists of numbers, strings and
        tensors, as from ``state_dict()``.

    Raises
    ------
    ModelError
        If `path` holds something else, or the disk refuses.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in parameter_names(model.network).items()}
    with replace_directory(path, marker=SPEC, error=ModelError) as folder:
        (folder / SPEC).write_text(model.network.spec.to_yaml(), encoding="utf-8")
        (folder / WEIGHTS).write_bytes(save(tensors))
        metadata = {**model.metadata, "sha256": model.digest}
        (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        if state is not None:
            found: dict[str, Tensor] = {}
            tree = _take_tensors(state, "", found)
            packed = save(found)
            tree["sha256"] = joint_digest(tree["items"], packed)
            (folder / STATE_TENSORS).write_bytes(packed)
            (folder / STATE).write_text(json.dumps(tree) + "\n", encoding="utf-8")
    return Path(path)


def load_model(path: str | Path) -> Model:
    """Read a model directory, or ``hub:NAME``; the run directory of ``train`` is its best model.

    Raises
    ------
    ModelError
        If it is missing, truncated or inconsistent, or a weight is no finite number.

    Warns
    -----
    ModelWarning
        If it does not fit the SHA-256 in its metadata: it was changed after it was written.
    """
    path = best_in(path)
    if not (path / SPEC).is_file():
        raise ModelError(
            f"model '{path}'", f"there is no {SPEC}", "give a directory that `ep-neuro train` wrote"
        )
    network = Network(NetworkSpec.from_yaml(path / SPEC))
    tensors = unpacked(_read_tensors(path / WEIGHTS))
    expected = parameter_names(network)
    for name in sorted(expected.keys() | tensors.keys()):
        problem, remedy = _misfit(name, tensors.get(name), expected.get(name))
        if problem:
            raise ModelError(str(path / WEIGHTS), f"tensor '{name}' {problem}", remedy)
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])
    model = Model(network, _read_metadata(path / METADATA))
    _warn_if_changed(model, path)
    return model


def _misfit(name: str, found: Tensor | None, parameter: Tensor | None) -> tuple[str, str]:
    """Why tensor `found` cannot be `parameter` of this name, and a remedy; empty if it can."""
    if found is None or parameter is None:
        return "is missing" if found is None else "is not in the spec", "restore the file"
    if found.shape != parameter.shape:
        problem = f"is {list(found.shape)}, the spec says {list(parameter.shape)}"
        return problem, "restore the file that belongs to the spec"
    if found.is_floating_point():
        remedy = "restore the file, or train with a smaller learning rate"
    else:
        remedy = "save the real weights as float32"
    return tensor_fault(found) or "", remedy


def tensor_fault(found: Tensor) -> str | None:
    """`fault` of a tensor of any type."""
    if not found.is_floating_point():
        return f"is {str(found.dtype).removeprefix('torch.')}, not floating point"
    # NumPy lacks some of torch's floating types, and double holds them all.
    return fault(found.detach().double().numpy())


def _warn_if_changed(model: Model, path: Path) -> None:
    noted = model.metadata.get("sha256")
    # The text of the spec as it stands: another version may write the same spec otherwise.
    spec = (path / SPEC).read_text(encoding="utf-8")
    if noted not in (None, model.digest, _digest(spec, model.network)):
        warnings.warn(
            f"model '{path}': spec and weights do not fit the sha256 in {METADATA}, so they were "
            "changed after it was written; what the metadata says may not hold: restore them, or "
            "save the model anew",
            ModelWarning,
            stacklevel=3,
        )


def _read_metadata(path: Path) -> dict[str, Any]:
    """The notes of a model, whose names and digests are texts; None is what was not finite."""
    notes = _read_json(path, _finite)
    for key in TEXTS:
        if not isinstance(notes.get(key, ""), str):
            problem = f"'{key}' is {json.dumps(notes[key])}, not a text"
            raise ModelError(str(path), problem, "correct it, or leave it out")
    return notes


def best_in(path: str | Path) -> Path:
    """The directory of a model; the run directory of ``train`` stands for its best one."""
    place = place_of(path)
    best = place / "best"
    return best if (best / SPEC).is_file() else place


def load_state(path: str | Path) -> dict[str, Any]:
    """Read the training state beside a model; `ModelError` if it is missing or damaged."""
    path = Path(path)
    tree, tensors = _read_json(path / STATE), _read_tensors(path / STATE_TENSORS)
    try:
        if "sha256" in tree:
            packed = (path / STATE_TENSORS).read_bytes()
            if tree["sha256"] != joint_digest(tree["items"], packed):
                raise ValueError("their sha256 is another one")
        return {key: _put_tensors(value, tensors) for key, value in tree["items"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            str(path / STATE),
            f"does not fit {STATE_TENSORS} ({type(error).__name__}: {error})",
            "restore both files, or train again without --resume",
        ) from None


def open_model(name: str | Path, seed: int = 0) -> Model:
    """A model by what a user may call it: a directory, ``hub:NAME``, a spec, ``zoo:NAME``.

    A spec or zoo network gets fresh weights from `seed`.
    """
    name = str(name)
    if name.startswith("zoo:"):
        return Model(Network(zoo(name[4:]), seed), {"seed": seed})
    path = place_of(name)
    if path.is_dir():
        return load_model(path)
    if path.is_file():
        return Model(Network(NetworkSpec.from_yaml(path), seed), {"seed": seed})
    raise ModelError(
        f"model '{name}'",
        "no such directory or file",
        "give a model directory, a spec in YAML, hub:NAME or zoo:NAME",
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ModelError(str(path), "the file is missing", "restore it or train again") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            str(path), f"the file is truncated or damaged ({error})", "restore it or train again"
        ) from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _read_json(path: Path, number: Callable[[str], Any] = float) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, parse_constant=number, parse_float=number)
        if isinstance(data, dict):
            return data
        reason = "it holds no object"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    raise ModelError(str(path), f"cannot be read ({reason})", "restore it or train again")


def _take_tensors(tree: Any, at: str, found: dict[str, Tensor]) -> Any:
    """Copy of `tree` in JSON types; each tensor moves to `found` and leaves its key."""
    if isinstance(tree, Tensor):
        # Numbered, because a key may itself hold a slash: two paths must not meet.
        key = f"{len(found)}{at}"
        found[key] = tree.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(tree, Mapping):
        # Optimisers key their state by integers, which JSON would turn into strings.
        return {"items": [[k, _take_tensors(v, f"{at}/{k}", found)] for k, v in tree.items()]}
    if isinstance(tree, list | tuple):
        return [_take_tensors(v, f"{at}/{i}", found) for i, v in enumerate(tree)]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise EPNeuroError(f"training state {at}", f"is a {type(tree).__name__}", "keep plain values")


def _put_tensors(tree: Any, found: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict) and "tensor" in tree:
        return found[tree["tensor"]]
    if isinstance(tree, dict):
        return {k: _put_tensors(v, found) for k, v in tree["items"]}
    if isinstance(tree, list):
        return [_put_tensors(v, found) for v in tree]
    return tree

"""Checkpoints of published EP code as models, and models as such checkpoints.

Neither layout holds the shapes of the network: those come from a `NetworkSpec`, and order and
orientation are checked against it by shape.

``published``
    A list of tensors: the bias of every population, then the weight of every coupling, a dense one
    as (pre shape..., post shape...). So writes the code of arXiv:2509.26003 (BrainSeek-Lab/Scaling-
    Equilibrium-Propagation-to-Deeper-Neural-Network-Architectures), and that of Scellier et al.
    2023 (rain-neuromorphics/energy-based-learning) from which it comes: ``Function.save`` in
    ``model/function/interaction.py``.
``laborieux``
    A state dict ``synapses.I.weight``, ``synapses.I.bias`` of torch's own layers along a chain,
    alone or as ``model_state_dict`` of a ``checkpoint.tar``; a softmax readout is the last layer.
    So writes the code of Laborieux et al. 2021 (Laborieux-Axel/Equilibrium-Propagation, ``P_MLP``
    and ``P_CNN`` in ``model_utils.py``). Its vector fields, whose way back pools by itself, have no
    counterpart here.
"""

from __future__ import annotations

import itertools
import math
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ep_neuro.energy.spec import INPUT, CouplingSpec, NetworkSpec
from ep_neuro.errors import ConfigError, ModelError, nearest
from ep_neuro.network.architectures import ZOO
from ep_neuro.network.checkpoint import Model, ModelWarning, tensor_fault
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.storage.atomic import is_free, refuse_foreign, write_file
from ep_neuro.storage.value_checks import swollen

ARCHIVE = b"/data.pkl"
"""What tells a file of `torch.save`: this name, behind that of the archive."""

TENSORS_ALONE = (
    "let the code that trained it write tensors alone: torch.save([p.state for p in "
    "energy.params()], FILE), or torch.save(model.state_dict(), FILE)"
)


@dataclass(frozen=True)
class Place:
    """Where a file keeps the parameter `name` (`parameter_names`), and in which shape.

    ``neurons`` is the shape of the population of a bias; ``turned`` says that a dense weight is the
    transpose of ours.
    """

    key: int | str
    name: str
    shape: tuple[int, ...]
    neurons: tuple[int, ...] | None = None
    turned: bool = False


def _in_order(spec: NetworkSpec) -> list[CouplingSpec]:
    """The couplings as published code lists them: by their end, then by their start.

    But a skip from the input comes after what it skips: Hopfield-Resnet13 has 0-1 1-2 0-2, 2-3 2-4
    3-4, 4-5 4-6 5-6, 6-7 6-8 7-8, 8-9.
    """
    rank = {name: i for i, name in enumerate(spec.shapes)}
    return sorted(spec.couplings, key=lambda c: (rank[c.post], c.pre == INPUT, rank[c.pre]))


def _published(spec: NetworkSpec) -> list[Place]:
    shapes, weights = spec.shapes, spec.weight_shapes
    found = [
        Place(i, f"bias/{p.name}", p.shape[:1], p.shape) for i, p in enumerate(spec.populations)
    ]
    for c in _in_order(spec):
        dense = c.kind == "dense"
        shape = shapes[c.pre] + shapes[c.post] if dense else weights[c.name]
        found.append(Place(len(found), f"weight/{c.name}", shape, turned=dense))
    return found


def _laborieux(spec: NetworkSpec) -> list[Place]:
    """None at all if `spec` is no chain."""
    couplings, found = _in_order(spec), []
    if [(c.pre, c.post) for c in couplings] != list(itertools.pairwise(spec.shapes)):
        return []
    layers = [(f"weight/{c.name}", f"bias/{c.post}", spec.weight_shapes[c.name]) for c in couplings]
    if spec.readout is not None:
        size = math.prod(spec.shapes[spec.output])
        layers.append(("readout/weight", "readout/bias", (spec.classes, size)))
    for i, (weight, bias, shape) in enumerate(layers):
        found.append(Place(f"synapses.{i}.weight", weight, shape))
        found.append(Place(f"synapses.{i}.bias", bias, shape[:1]))
    return found


LAYOUTS: Mapping[str, Callable[[NetworkSpec], list[Place]]] = {
    "published": _published,
    "laborieux": _laborieux,
}
"""Where each kind of file keeps the parameters of a spec, in its order."""


def import_published(
    path: str | Path,
    like: NetworkSpec,
    *,
    average_biases: bool = False,
    slope: float | None = None,
) -> Model:
    """The model that published code saved to `path`; nothing that a pickle holds is run.

    Parameters
    ----------
    path : path
        A list of tensors, a state dict, or a ``checkpoint.tar`` with one.
    like : NetworkSpec
        The network that was saved: ``zoo("hopfield_resnet13")`` and ``zoo("hopfield_vgg5")`` of
        arXiv:2509.26003, ``zoo("vgg5")`` and ``zoo("vgg5_softmax")`` of Laborieux 2021. Mean and
        deviation of its input are to be those of the training.
    average_biases : bool
        Take the mean over a channel of biases that have one value a neuron, which changes the
        network: ours have one a channel.
    slope : float, optional
        Slope of the activation between its ends, by which weights and biases are multiplied:
        ``clip(slope * (W z + b))``. 1 by default, as of ``hard_sigmoid``; ``my_hard_sig`` of
        Laborieux has 0.5. A nudge of ``beta`` becomes one of ``slope * beta``.

    Returns
    -------
    Model
        In float64 if the file holds float64, else in float32.

    Raises
    ------
    ModelError
        If the file is damaged or holds classes; if a tensor is missing, has another shape than
        `like` has at its place, or holds what is no finite real number; or if `like` has parameters
        that such files lack.
    ConfigError
        If the slope is no finite number above 0, or takes weights out of float32.

    Warns
    -----
    ModelWarning
        If the file is one of Laborieux and no slope is given.
    """
    path = Path(path)
    layout, found = _read(path)
    network = Network(like)
    places, parameters = _places(layout, network), parameter_names(network)
    _refuse_misfits(path, found, layout, places, average_biases)
    if layout == "laborieux" and slope is None:
        warnings.warn(
            f"{path}: taken for one of --act hard_sigmoid; the published commands of this code "
            "have --act my_hard_sig, of slope 0.5: say which it was by --slope 1 or --slope 0.5",
            ModelWarning,
            stacklevel=2,
        )
    if any(value.dtype == torch.float64 for value in found.values()):
        network.double()
    with torch.no_grad():
        for place in places:
            value, own = found[place.key], parameters[place.name]
            if place.turned:
                value = value.reshape(own.shape[::-1]).T
            elif value.shape != own.shape:
                value = value.double().flatten(1).mean(1)
            scale = _scale(place, slope)
            own.copy_(value).mul_(scale)
            _refuse_lost(value, own, place, scale)
    return Model(network, {"imported_from": path.name})


def export_published(
    model: Model,
    path: str | Path,
    *,
    layout: str = "published",
    slope: float | None = None,
    force: bool = False,
) -> Path:
    """Write `model` as published code reads it, the way back of `import_published`; the file.

    Standardised and whitened weights are written as the dynamics sees them. A list of float32
    comes back in the same bytes under the same file name, by the same version of torch.

    Parameters
    ----------
    layout : {"published", "laborieux"}
        A list, or a state dict.
    slope : float, optional
        As in `import_published`.
    force : bool
        Replace a file of `torch.save`; others stay in any case.

    Raises
    ------
    ModelError
        If `model` has parameters that such files lack, `path` is taken, or the disk refuses.
    """
    path, network = Path(path), model.network.folded()
    if layout not in LAYOUTS:
        raise ConfigError(f"--as {layout}", "is no published layout", nearest(layout, LAYOUTS))
    refuse_foreign(path, ARCHIVE, ModelError)
    if not (force or is_free(path)):
        raise ModelError(str(path), "exists", "choose another path, or replace it (--force)")
    found, parameters = {}, parameter_names(network)
    for place in _places(layout, network):
        value, scale = parameters[place.name].detach().cpu(), _scale(place, slope)
        own = value / scale
        _refuse_lost(value, own, place, scale)
        found[place.key] = (own.T if place.turned else own).reshape(place.shape).contiguous()
    # torch names the archive after its file, so that the name is in the bytes.
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / path.name
        try:
            torch.save(list(found.values()) if layout == "published" else found, packed)
        except RuntimeError as error:
            problem = f"cannot be packed in {folder} ({error})"
            raise ModelError(str(path), problem, "make room there, or set TMPDIR") from None
        return write_file(path, packed.read_bytes(), ModelError, marker=ARCHIVE)


def _scale(place: Place, slope: float | None) -> float:
    """What a parameter is multiplied by; a readout is behind the activation."""
    if slope is None or place.name.startswith("readout/"):
        return 1.0
    if math.isfinite(slope) and slope > 0:
        return slope
    raise ConfigError(f"--slope {slope:g}", "is no finite number above 0", "give 0.5 or 1")


def _refuse_lost(before: Tensor, after: Tensor, place: Place, slope: float) -> None:
    """Raise `ConfigError` if the slope took the largest value out of what float32 holds."""
    most, limits = float(after.abs().max()), torch.finfo(torch.float32)
    if before.any() and not limits.tiny <= most <= limits.max and slope != 1:
        problem = f"leaves {most:g} of '{place.name}', out of float32"
        raise ConfigError(f"--slope {slope:g}", problem, "give 0.5 or 1")


def _places(layout: str, network: Network) -> list[Place]:
    """Where a file keeps all parameters of `network`; `ModelError` if it lacks one."""
    places = LAYOUTS[layout](network.spec)
    lost = parameter_names(network).keys() - {p.name for p in places}
    if lost:
        problem = f"'{min(lost)}' has no place in a file of layout '{layout}'"
        chain = "skips, " if layout == "laborieux" else "a readout, "
        remedy = f"take a network without {chain}standardise and untied"
        raise ModelError(f"network '{network.spec.name}'", problem, remedy)
    return places


# --- reading -----------------------------------------------------------------------------------


def _read(path: Path) -> tuple[str, dict[int | str, Any]]:
    """The layout of a file, and what it holds by key; nothing in it is run."""
    content = problem = None
    try:
        # Older versions of torch wrote no archives, and packed nothing.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            problem = swollen(unpacked, path.stat().st_size)
        # A pickle of an odd protocol is warned of before it is refused.
        with warnings.catch_warnings(action="ignore"):
            if problem is None:
                content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # The reader meets damage in the order of its own code, hence with whatever that raises.
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise ModelError(str(path), f"{error.strerror}", "check the path") from None
        problem = f"is no whole file of torch.save with tensors alone ({type(error).__name__})"
        classes = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        if classes:
            problem = f"is a pickle of classes ('{classes[1]}'), which only running it could read"
    else:
        if isinstance(content, dict):
            inner = content.get("model_state_dict")
            return "laborieux", inner if isinstance(inner, dict) else content
        if isinstance(content, list | tuple):
            return "published", dict(enumerate(content))
        problem = problem or f"holds a {type(content).__name__}, no list of tensors or state dict"
    raise ModelError(str(path), problem, TENSORS_ALONE)


def _refuse_misfits(
    path: Path, found: Mapping[int | str, Any], layout: str, places: Sequence[Place], average: bool
) -> None:
    """Raise `ModelError` unless `found` has numbers of the right shape at `places`, and no more."""
    shapes = {key: tuple(value.shape) for key, value in found.items() if _is_plain(value)}
    kept = {name: {p.key: p.shape for p in LAYOUTS[layout](spec())} for name, spec in ZOO.items()}
    fitting = [name for name in kept if shapes and kept[name] == shapes]
    otherwise = "give the network that was saved, its tensors in the order of the published code"
    if fitting:
        otherwise = f"give the network that it fits (zoo:{fitting[0]})"
    for place in places:
        problem, remedy = _misfit(place, found.get(place.key), average)
        if problem:
            subject = f"{path}: tensor {place.key!r} ({place.name})"
            raise ModelError(subject, problem, remedy or otherwise)
    extra = [key for key in found if key not in {p.key for p in places}]
    if extra:
        problem = f"has no place among the {len(places)} tensors of the network"
        raise ModelError(f"{path}: tensor {extra[0]!r}", problem, otherwise)


def _misfit(place: Place, value: Any, average: bool) -> tuple[str, str]:
    """Why `value` cannot be at `place`, and a remedy if there is one of its own."""
    if value is None:
        return f"is missing, expected {list(place.shape)}", ""
    if not _is_plain(value):
        return f"is a {type(value).__name__}, no plain tensor", TENSORS_ALONE
    shape = tuple(value.shape)
    if shape not in (place.shape, place.neurons):
        return f"is {list(shape)}, expected {list(place.shape)}", ""
    if shape != place.shape and value.numel() != shape[0] and not average:
        problem = f"is {list(shape)}, one value a neuron, expected one a channel, {place.shape[0]}"
        return problem, "average it, which changes the network (--average-biases)"
    return tensor_fault(value) or "", "save real, finite weights"


def _is_plain(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.is_nested:
        return False
    return value.layout == torch.strided and value.device.type == "cpu"

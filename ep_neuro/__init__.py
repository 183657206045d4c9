"""ep-neuro: energy-based networks, from equilibrium propagation to neuromorphic hardware.

The public names load on first use, so that ``import ep_neuro`` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ep_neuro._moved import lead_on
from ep_neuro.storage.cache_folders import provide_caches

if TYPE_CHECKING:
    from ep_neuro import data as data
    from ep_neuro.data.augmentation import Augmentation, register_augmentation
    from ep_neuro.energy.costs import Nudge, one_hot
    from ep_neuro.energy.spec import (
        CouplingSpec,
        InputSpec,
        NetworkSpec,
        PopulationSpec,
        ReadoutSpec,
    )
    from ep_neuro.estimators import (
        Centered,
        Deployed,
        Estimate,
        Estimator,
        FrozenMean,
        Holomorphic,
        OneSided,
        RandomSign,
        register_estimator,
    )
    from ep_neuro.estimators.autograd import loss
    from ep_neuro.estimators.baselines import (
        Backprop,
        FeedForwardTwin,
        Implicit,
        Unrolled,
        implicit_gradient,
    )
    from ep_neuro.estimators.gradient_check import check_network
    from ep_neuro.network.architectures import zoo
    from ep_neuro.network.checkpoint import Model, load_model, open_model, save_model
    from ep_neuro.network.initialization import keep_alive
    from ep_neuro.network.network import Landscape, Network, parameter_names
    from ep_neuro.network.published_files import export_published, import_published
    from ep_neuro.network.settling import Schedule, SettleResult, Status, settle
    from ep_neuro.network.whitening import whiten
    from ep_neuro.training.config import Optimiser, TrainConfig, read_config
    from ep_neuro.training.gradient_monitor import Truth
    from ep_neuro.training.loop import evaluate, train

__version__ = "0.1.0"

provide_caches()
lead_on()

_PUBLIC = {
    "data.augmentation": ("Augmentation", "register_augmentation"),
    "energy.costs": ("Nudge", "one_hot"),
    "energy.spec": ("CouplingSpec", "InputSpec", "NetworkSpec", "PopulationSpec", "ReadoutSpec"),
    "estimators": (
        "Centered",
        "Deployed",
        "Estimate",
        "Estimator",
        "FrozenMean",
        "Holomorphic",
        "OneSided",
        "RandomSign",
        "register_estimator",
    ),
    "estimators.autograd": ("loss",),
    "estimators.baselines": (
        "Backprop",
        "FeedForwardTwin",
        "Implicit",
        "Unrolled",
        "implicit_gradient",
    ),
    "estimators.gradient_check": ("check_network",),
    "network.architectures": ("zoo",),
    "network.checkpoint": ("Model", "load_model", "open_model", "save_model"),
    "network.initialization": ("keep_alive",),
    "network.network": ("Landscape", "Network", "parameter_names"),
    "network.published_files": ("export_published", "import_published"),
    "network.settling": ("Schedule", "SettleResult", "Status", "settle"),
    "network.whitening": ("whiten",),
    "training.config": ("Optimiser", "TrainConfig", "read_config"),
    "training.gradient_monitor": ("Truth",),
    "training.loop": ("evaluate", "train"),
}
"""Names that load on first use, by their module."""

_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "data":
        return importlib.import_module(f"{__name__}.data")
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "data"})


class _Package(ModuleType):
    """Keeps ``ep_neuro.settle`` and ``ep_neuro.zoo`` the functions of these names.

    The import system binds what it loads to its name in the package, and modules were once called
    so (`ep_neuro._moved`).
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

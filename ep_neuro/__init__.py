"""ep-neuro: energy-based networks, from equilibrium propagation to neuromorphic hardware.

The public names load on first use, so that ``import ep_neuro`` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ep_neuro._homeless import provide_caches

if TYPE_CHECKING:
    from ep_neuro import data as data
    from ep_neuro.augment import Augmentation, register_augmentation
    from ep_neuro.autograd import loss
    from ep_neuro.baselines import (
        Backprop,
        FeedForwardTwin,
        Implicit,
        Unrolled,
        implicit_gradient,
    )
    from ep_neuro.checkpoint import Model, load_model, open_model, save_model
    from ep_neuro.config import Optimiser, TrainConfig, read_config
    from ep_neuro.costs import Nudge, one_hot
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
    from ep_neuro.initialisation import keep_alive
    from ep_neuro.network import Landscape, Network, parameter_names
    from ep_neuro.settle import Schedule, SettleResult, Status, settle
    from ep_neuro.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec, ReadoutSpec
    from ep_neuro.training import evaluate, train
    from ep_neuro.truth import Truth
    from ep_neuro.verify import check_network
    from ep_neuro.whitening import whiten
    from ep_neuro.zoo import zoo

__version__ = "0.1.0"

provide_caches()

_HOMES = {
    "Augmentation": "augment",
    "Backprop": "baselines",
    "Centered": "estimators",
    "CouplingSpec": "spec",
    "Deployed": "estimators",
    "Estimate": "estimators",
    "Estimator": "estimators",
    "FeedForwardTwin": "baselines",
    "FrozenMean": "estimators",
    "Holomorphic": "estimators",
    "Implicit": "baselines",
    "InputSpec": "spec",
    "Landscape": "network",
    "Model": "checkpoint",
    "Network": "network",
    "NetworkSpec": "spec",
    "Nudge": "costs",
    "OneSided": "estimators",
    "Optimiser": "config",
    "PopulationSpec": "spec",
    "RandomSign": "estimators",
    "ReadoutSpec": "spec",
    "Schedule": "settle",
    "SettleResult": "settle",
    "Status": "settle",
    "TrainConfig": "config",
    "Truth": "truth",
    "Unrolled": "baselines",
    "check_network": "verify",
    "evaluate": "training",
    "implicit_gradient": "baselines",
    "keep_alive": "initialisation",
    "load_model": "checkpoint",
    "loss": "autograd",
    "one_hot": "costs",
    "open_model": "checkpoint",
    "parameter_names": "network",
    "read_config": "config",
    "register_augmentation": "augment",
    "register_estimator": "estimators",
    "save_model": "checkpoint",
    "settle": "settle",
    "train": "training",
    "whiten": "whitening",
    "zoo": "zoo",
}

__all__ = [
    "Augmentation",
    "Backprop",
    "Centered",
    "CouplingSpec",
    "Deployed",
    "Estimate",
    "Estimator",
    "FeedForwardTwin",
    "FrozenMean",
    "Holomorphic",
    "Implicit",
    "InputSpec",
    "Landscape",
    "Model",
    "Network",
    "NetworkSpec",
    "Nudge",
    "OneSided",
    "Optimiser",
    "PopulationSpec",
    "RandomSign",
    "ReadoutSpec",
    "Schedule",
    "SettleResult",
    "Status",
    "TrainConfig",
    "Truth",
    "Unrolled",
    "check_network",
    "evaluate",
    "implicit_gradient",
    "keep_alive",
    "load_model",
    "loss",
    "one_hot",
    "open_model",
    "parameter_names",
    "read_config",
    "register_augmentation",
    "register_estimator",
    "save_model",
    "settle",
    "train",
    "whiten",
    "zoo",
]


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

    The import system binds each submodule it loads to its name in the package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

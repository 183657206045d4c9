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
    from ep_neuro.network.settling import Schedule, SettleResult, Status, settle
    from ep_neuro.network.whitening import whiten
    from ep_neuro.training.config import Optimiser, TrainConfig, read_config
    from ep_neuro.training.gradient_monitor import Truth
    from ep_neuro.training.loop import evaluate, train

__version__ = "0.1.0"

provide_caches()
lead_on()

_HOMES = {
    "Augmentation": "data.augmentation",
    "Backprop": "estimators.baselines",
    "Centered": "estimators",
    "CouplingSpec": "energy.spec",
    "Deployed": "estimators",
    "Estimate": "estimators",
    "Estimator": "estimators",
    "FeedForwardTwin": "estimators.baselines",
    "FrozenMean": "estimators",
    "Holomorphic": "estimators",
    "Implicit": "estimators.baselines",
    "InputSpec": "energy.spec",
    "Landscape": "network.network",
    "Model": "network.checkpoint",
    "Network": "network.network",
    "NetworkSpec": "energy.spec",
    "Nudge": "energy.costs",
    "OneSided": "estimators",
    "Optimiser": "training.config",
    "PopulationSpec": "energy.spec",
    "RandomSign": "estimators",
    "ReadoutSpec": "energy.spec",
    "Schedule": "network.settling",
    "SettleResult": "network.settling",
    "Status": "network.settling",
    "TrainConfig": "training.config",
    "Truth": "training.gradient_monitor",
    "Unrolled": "estimators.baselines",
    "check_network": "estimators.gradient_check",
    "evaluate": "training.loop",
    "implicit_gradient": "estimators.baselines",
    "keep_alive": "network.initialization",
    "load_model": "network.checkpoint",
    "loss": "estimators.autograd",
    "one_hot": "energy.costs",
    "open_model": "network.checkpoint",
    "parameter_names": "network.network",
    "read_config": "training.config",
    "register_augmentation": "data.augmentation",
    "register_estimator": "estimators",
    "save_model": "network.checkpoint",
    "settle": "network.settling",
    "train": "training.loop",
    "whiten": "network.whitening",
    "zoo": "network.architectures",
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

    The import system binds what it loads to its name in the package, and modules were once called
    so (`ep_neuro._moved`).
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

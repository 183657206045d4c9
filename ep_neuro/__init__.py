"""ep-neuro: energy-based networks, from equilibrium propagation to neuromorphic hardware.

The public names load on first use, so that ``import ep_neuro`` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ep_neuro.baselines import FeedForwardTwin, implicit_gradient
    from ep_neuro.checkpoint import Model, load_model, open_model, save_model
    from ep_neuro.config import TrainConfig
    from ep_neuro.costs import Nudge
    from ep_neuro.estimators import (
        Centered,
        Deployed,
        FrozenMean,
        Holomorphic,
        OneSided,
        RandomSign,
    )
    from ep_neuro.initialisation import keep_alive
    from ep_neuro.network import Landscape, Network
    from ep_neuro.settle import Schedule, SettleResult, Status, settle
    from ep_neuro.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec, ReadoutSpec
    from ep_neuro.training import evaluate, train
    from ep_neuro.zoo import zoo

__version__ = "0.1.0"

_HOMES = {
    "Centered": "estimators",
    "CouplingSpec": "spec",
    "Deployed": "estimators",
    "FeedForwardTwin": "baselines",
    "FrozenMean": "estimators",
    "Holomorphic": "estimators",
    "InputSpec": "spec",
    "Landscape": "network",
    "Model": "checkpoint",
    "Network": "network",
    "NetworkSpec": "spec",
    "Nudge": "costs",
    "OneSided": "estimators",
    "PopulationSpec": "spec",
    "RandomSign": "estimators",
    "ReadoutSpec": "spec",
    "Schedule": "settle",
    "SettleResult": "settle",
    "Status": "settle",
    "TrainConfig": "config",
    "evaluate": "training",
    "implicit_gradient": "baselines",
    "keep_alive": "initialisation",
    "load_model": "checkpoint",
    "open_model": "checkpoint",
    "save_model": "checkpoint",
    "settle": "settle",
    "train": "training",
    "zoo": "zoo",
}

__all__ = [
    "Centered",
    "CouplingSpec",
    "Deployed",
    "FeedForwardTwin",
    "FrozenMean",
    "Holomorphic",
    "InputSpec",
    "Landscape",
    "Model",
    "Network",
    "NetworkSpec",
    "Nudge",
    "OneSided",
    "PopulationSpec",
    "RandomSign",
    "ReadoutSpec",
    "Schedule",
    "SettleResult",
    "Status",
    "TrainConfig",
    "evaluate",
    "implicit_gradient",
    "keep_alive",
    "load_model",
    "open_model",
    "save_model",
    "settle",
    "train",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``ep_neuro.settle`` and ``ep_neuro.zoo`` the functions of these names.

    The import system binds each submodule it loads to its name in the package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

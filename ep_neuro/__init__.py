"""ep-neuro: energy-based networks, from equilibrium propagation to neuromorphic hardware."""

from ep_neuro.baselines import FeedForwardTwin, implicit_gradient
from ep_neuro.checkpoint import Model, load_model, open_model, save_model
from ep_neuro.costs import Nudge
from ep_neuro.estimators import Centered
from ep_neuro.network import Landscape, Network
from ep_neuro.settle import Schedule, SettleResult, Status, settle
from ep_neuro.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.training import TrainConfig, evaluate, train
from ep_neuro.zoo import zoo

__version__ = "0.1.0"

__all__ = [
    "Centered",
    "CouplingSpec",
    "FeedForwardTwin",
    "InputSpec",
    "Landscape",
    "Model",
    "Network",
    "NetworkSpec",
    "Nudge",
    "PopulationSpec",
    "Schedule",
    "SettleResult",
    "Status",
    "TrainConfig",
    "evaluate",
    "implicit_gradient",
    "load_model",
    "open_model",
    "save_model",
    "settle",
    "train",
    "zoo",
]

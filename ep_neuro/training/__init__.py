"""Training: a configuration in; steps, epochs and measurements; a directory of results out."""

from ep_neuro.training.loop import TrainResult, evaluate, train

__all__ = ["TrainResult", "evaluate", "train"]

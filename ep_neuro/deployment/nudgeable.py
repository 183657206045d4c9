"""What a target can nudge an output towards, and the refusal of any other cost."""

from __future__ import annotations

from ep_neuro.errors import GraphError

SQUARED_ERROR = "squared-error"
"""The cost whose slope is linear in the output's state, so that a neuron's drive can hold it."""


def refuse_unnudgeable(network: str, cost: str) -> None:
    """Raise `GraphError` unless the nudge of a target, ``beta (y - z)``, is that of `cost`."""
    if cost != SQUARED_ERROR:
        raise GraphError(
            f"network '{network}'",
            f"a target nudges its output by beta (y - z), and cost {cost} asks for "
            "beta (y - softmax(z))",
            "train it off chip (estimator deployed: with response: smooth), or give the network "
            "cost: squared-error",
        )

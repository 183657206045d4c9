"""What a target can nudge an output towards, the refusal of any other cost, and a way to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ep_neuro.errors import GraphError, ModelError

if TYPE_CHECKING:
    import numpy as np

    from ep_neuro.network.checkpoint import Model

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


FITTED = 500
"""Samples that `with_squared_error` settles at most."""


def with_squared_error(model: Model, x: np.ndarray, y: np.ndarray) -> Model:
    """`model` with an output that answers the same on the scale of targets 0 and 1.

    A cross-entropy leaves logits. All of them are mapped by one line, that of least squares to the
    one-hot labels of the first `FITTED` samples, which goes into the weights and the bias of the
    output; so the largest stays the largest. What the output sends back changes with its scale,
    which units that shrink towards it make too faint to matter.

    Parameters
    ----------
    model : Model
        Returned as it is if its cost is the squared error.
    x, y : ndarray, (N, *input shape), (N,)
        Inputs and labels that it was trained on.

    Raises
    ------
    ModelError
        If its largest output is not the right one more often than others are.
    """
    import numpy as np
    import torch

    from ep_neuro.network.architectures import OUTPUT_BOX
    from ep_neuro.network.checkpoint import Model
    from ep_neuro.network.network import Landscape, Network, parameter_names
    from ep_neuro.network.settling import settle
    from ep_neuro.network.stability import calm_schedule

    network, spec = model.network, model.network.spec
    if spec.cost == SQUARED_ERROR:
        return model
    with torch.no_grad():
        landscape = Landscape(network, torch.from_numpy(x[:FITTED]))
        logits = settle(landscape, calm_schedule(network, 60)).state[spec.output].flatten(1)
    wanted = np.eye(logits.shape[1])[y[:FITTED]]
    slope, offset = np.polyfit(logits.double().numpy().ravel(), wanted.ravel(), 1)
    if not slope > 0:
        problem = f"its outputs say nothing of the labels of {len(wanted)} samples"
        raise ModelError(f"network '{spec.name}'", problem, "train it on these data first")
    populations = tuple(
        p.model_copy(update={"box": OUTPUT_BOX}) if p.name == spec.output else p
        for p in spec.populations
    )
    changed = Network(spec.model_copy(update={"populations": populations, "cost": SQUARED_ERROR}))
    changed.load_state_dict(network.state_dict())
    with torch.no_grad():
        named = parameter_names(changed)
        for c in spec.couplings:
            if c.post == spec.output:
                named[f"weight/{c.pre}->{c.post}"].mul_(slope)
        named[f"bias/{spec.output}"].mul_(slope).add_(offset)
    # Ranges and hash are those of the model before.
    kept = {k: v for k, v in model.metadata.items() if k not in ("ranges", "sha256")}
    return Model(changed, kept)

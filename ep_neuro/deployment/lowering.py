"""What a compiled graph cannot say of a network, and its refusal."""

from __future__ import annotations

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import GraphError


def refuse_unlowerable(spec: NetworkSpec) -> None:
    """Raise `GraphError` for the first thing in `spec` that a graph cannot say."""
    for p in spec.populations:
        if p.activation != "clip":
            raise GraphError(
                f"population '{p.name}'",
                f"activation {p.activation} has no neuron on hardware, which clips",
                "train with activation: clip",
            )
    for c in spec.couplings:
        if c.pool == "max":
            raise GraphError(
                f"coupling '{c.name}'",
                "a max-pool is not linear, and synapses are",
                "train with pool: avg, or with a stride in place of the pool",
            )
        if c.untied:
            raise GraphError(
                f"coupling '{c.name}'",
                "its way back has a weight of its own, and a graph has one for both ways",
                "train without untied",
            )
    if spec.readout is not None:
        raise GraphError(
            f"readout of '{spec.name}'",
            "a softmax layer outside the dynamics does not run on hardware",
            "train with the squared error on an output population",
        )

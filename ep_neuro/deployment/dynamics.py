"""How a network is deployed, and what training asks of it as it was compiled."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.deployment.lowering import refuse_unlowerable
from ep_neuro.energy.costs import Nudge
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, SettleResult

COMPILER = "compilers.execution.deployed_network"
"""Where `DeployedNetwork` is implemented; above this package, so found by name as plugins are."""


class DeployedNetwork(Protocol):
    """A network as it was compiled, with a batch of inputs clamped."""

    landscape: Landscape
    """The energy of what was compiled, in real units: weights on their grid, and the drive that its
    bias and the clamped input give."""

    def run(self, phase: str) -> SettleResult:
        """Run `phase`, ``free``, or from its end ``nudged+`` or ``nudged-``, as a target does.

        States are as the target reads them, in real units; the drive is the landscape's there.
        """
        ...


class Deployment(BaseModel):
    """How a network is deployed: the options of ``ep-neuro compile``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: Literal["graded", "sigma-delta", "spike"] = "graded"
    """What neurons send."""
    bits: Annotated[int, Field(ge=2, le=16)] | None = 8
    """Of a weight; None: floating point."""
    steps: Annotated[int, Field(ge=1)] = 64
    """Length of the free phase."""
    leak: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest leak; None: `compilers.passes.spectrum.largest_leak`. Stability may call for less."""
    precision: Annotated[float, Field(gt=0)] | Literal["auto"] | None = "auto"
    """Error of an output, in heights of its box, that the last thresholds of sigma-delta messages
    may cause; see `compilers.passes.thresholds.falls`. ``auto`` is `usual_precision` there."""
    start: Annotated[float, Field(ge=0)] | None = None
    end: Annotated[float, Field(ge=0)] | None = None
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """In place of `precision`, one threshold for all populations, in heights of the box:
    ``max(end, start * decay ** (t - 1))`` at step ``t``."""
    reset: Literal["soft", "hard"] = "soft"
    """What a spike takes off the membrane: 1, or all that is there, as PyNN's neurons have it."""
    tolerance: Annotated[float, Field(ge=0)] = 0.15
    """Residual, in heights of the box, up to which a sample counts as settled; the noise of spikes
    counted over 32 steps is about 0.1."""

    @property
    def free(self) -> Schedule:
        """The free phase in the words of the other estimators."""
        return Schedule(method="synchronous", sweeps=self.steps, tolerance=self.tolerance)

    def notes(self) -> dict[str, Any]:
        """What the metadata of a model that was trained like this say for compiling it."""
        kept = {"code", "bits", "steps", "leak"}
        if self.code == "sigma-delta":
            kept |= {"precision", "start", "end", "decay"}
        if self.reset == "hard":
            kept |= {"reset"}
        return {"deployed": self.model_dump(include=kept)}

    def check_spec(self, spec: NetworkSpec) -> None:
        """Raise `GraphError` or `ConfigError` if `spec` cannot be deployed like this."""
        refuse_unlowerable(spec)
        if self.reset == "hard" and self.code != "spike":
            problem = f"{self.code} neurons do not reset"
            raise ConfigError("reset hard", problem, "take code: spike, or drop it")
        for p in spec.populations:
            if self.code == "spike" and p.box is None:
                raise ConfigError(
                    f"population '{p.name}'",
                    "it is linear, and a spike rate lies between 0 and 1",
                    "give it a box, [-0.5, 1.5] for an output, or take code: sigma-delta",
                )

    def settle(self, network: Network, x: Tensor) -> SettleResult:
        """The free phase of raw inputs `x` (N, *input shape) as the compiled program computes it.

        In float64, and so to the last bit.
        """
        return self.deploy(network, x, torch.float64).run("free")

    def deploy(
        self, network: Network, x: Tensor, dtype: torch.dtype, nudge: Nudge | None = None
    ) -> DeployedNetwork:
        """Compile `network` and clamp raw inputs `x` (N, *input shape).

        Parameters
        ----------
        network : Network
            Its parameters are read as float32.
        x : Tensor
        dtype : dtype
            Of the states that are told, and of the arithmetic where weights are not quantised.
        nudge : Nudge, optional
            Of the squared error: ``nudged+`` adds it to the energy, ``nudged-`` takes it off.

        Raises
        ------
        DataError
            If `x` does not fit the network.
        GraphError
            For what a graph cannot say.
        """
        compiler = importlib.import_module(COMPILER)
        deployed: DeployedNetwork = compiler.deploy(network, x, self, dtype, nudge)
        return deployed

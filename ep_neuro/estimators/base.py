"""What every estimator is, and the registry from which a configuration chooses by ``kind``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ep_neuro.estimators.contrast import Estimate
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule, SettleResult
from ep_neuro.registry import Registry

T = TypeVar("T", bound=BaseModel)


class Estimator(BaseModel):
    """An estimator of the gradient of the mean cost: its settings, called with a batch.

    One of your own takes the same road as ours, in a configuration too, once its module is named
    under ``plugins``::

        @ep.register_estimator("mine")
        class Mine(ep.Estimator):
            kind: Literal["mine"] = "mine"
            free: ep.Schedule = ep.Schedule()

            def __call__(self, network, x, y, start=None): ...

    Attributes
    ----------
    kind : str
        Its name in a configuration, the only value that it may have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        """Estimate the gradient.

        An estimator that also takes a ``start``, where the free phase begins instead of at rest,
        can go on from where the batch before settled (``carry_states``).

        Parameters
        ----------
        network : Network
        x : Tensor, (N, *input shape)
            Raw inputs.
        y : Tensor, (N, *target shape)
            Targets.
        """
        raise NotImplementedError

    def free_phase(self, network: Network, x: Tensor) -> SettleResult:
        """The free phase alone, at the end of which the cost is taken; ``free`` says how."""
        return network.settle(x, getattr(self, "free", Schedule()))


ESTIMATORS = Registry("estimator", Estimator)
"""What may stand under ``estimator`` in a configuration."""


def register_estimator(kind: str) -> Callable[[type[T]], type[T]]:
    """A decorator that lets a class of one's own stand in a configuration; see `Estimator`."""
    return ESTIMATORS.register(kind)

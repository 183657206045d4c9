"""The mean cost as a scalar of autograd, whose ``backward`` hands on an estimate by EP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ep_neuro.energy.costs import one_hot
from ep_neuro.errors import ConfigError, DataError
from ep_neuro.estimators import Centered, Estimator
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.network.settling import SettleResult


def loss(network: nn.Module, x: Tensor, y: Tensor, *, estimator: Estimator | None = None) -> Tensor:
    """Mean cost at the free equilibrium; ``backward()`` fills ``grad`` with the estimate.

    The scalar may be scaled, and summed with others; the gradients are those of `estimator` times
    what comes in, added to what is there. So optimisers, schedulers, clipping and accumulation of
    gradients work as with any module::

        loss = ep.loss(net, x, y, estimator=ep.Centered(beta=0.2))
        loss.backward()
        optimiser.step()

    All phases settle in this call; where no gradient is wanted (``torch.no_grad()``, or every
    parameter frozen), the free phase alone.

    Parameters
    ----------
    network : Network, or a module around one
        Such as ``DistributedDataParallel``, which means gradients over processes only after a pass
        of its own: it is given `x`, and hands it to the network inside.
    x : Tensor, (N, *input shape)
        Raw inputs; no gradient comes back to them.
    y : Tensor, (N,) of integers, or (N, *target shape)
        Labels, or targets: one-hot, or class probabilities under a cross-entropy.
    estimator : Estimator, optional
        `Centered` by default.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    DataError
        If `x` or `y` does not fit the network.
    """
    estimator = estimator or Centered()
    if isinstance(network, Network):
        return _loss(network, x, y, estimator)
    inner = _inside(network)
    with _in_place_of_forward(inner, lambda x: _loss(inner, x, y, estimator)):
        found: Tensor = network(x)
    return found


def _loss(network: Network, x: Tensor, y: Tensor, estimator: Estimator) -> Tensor:
    x, y = x.detach(), _targets(network, y)
    if len(x) != len(y):
        problem = f"{len(y)} for {len(x)} inputs"
        raise DataError(f"targets of '{network.spec.name}'", problem, "give one for each input")
    moving = {k: p for k, p in parameter_names(network).items() if p.requires_grad}
    if not moving or not torch.is_grad_enabled():
        return _mean_cost(network, estimator.free_phase(network, x), y)
    with _thawed(network):
        estimate = estimator(network, x, y)
    value = _mean_cost(network, estimate.free, y)
    gradients = [estimate.gradient[name] for name in moving]
    handed: Tensor = _Handed.apply(value, gradients, *moving.values())
    return handed


class _Handed(torch.autograd.Function):
    """A value that is known, and its gradients, which are known too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(scale.to(g) * g for g in ctx.saved_tensors)


@torch.no_grad()
def _mean_cost(network: Network, free: SettleResult, y: Tensor) -> Tensor:
    return network.cost.value(free.state[network.spec.output].to(y), y).mean()


def _targets(network: Network, y: Tensor) -> Tensor:
    """`y` as targets (N, *target shape) in the type of the network."""
    spec, like = network.spec, next(network.parameters())
    subject = f"targets of '{spec.name}'"
    if y.dim() == 1 and not y.is_floating_point():
        least, most = (int(y.min()), int(y.max())) if len(y) else (0, 0)
        if least < 0 or most >= spec.classes:
            problem = f"labels {least} to {most}, but {spec.classes} classes"
            raise DataError(subject, problem, "choose a data set or a network that fits")
        return one_hot(y.to(like.device, torch.long), spec.target_shape, like.dtype)
    if tuple(y.shape[1:]) != spec.target_shape:
        raise DataError(
            subject,
            f"{y.dtype} {list(y.shape)}, the network takes {list(spec.target_shape)} a sample",
            "give those, or labels, integers (N,)",
        )
    return y.to(like)


@contextlib.contextmanager
def _thawed(network: Network) -> Iterator[None]:
    """Let every parameter require its gradient: estimators know of no frozen ones."""
    frozen = [p for p in network.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _inside(module: nn.Module) -> Network:
    """The network inside `module`."""
    for inner in module.modules():
        if isinstance(inner, Network):
            return inner
    subject, problem = f"loss of a {type(module).__name__}", "there is no Network in it"
    raise ConfigError(subject, problem, "give a Network, or a module around one")


@contextlib.contextmanager
def _in_place_of_forward(network: Network, call: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `network`, called by the modules around it, do `call`."""
    setattr(network, "forward", call)  # noqa: B010
    try:
        yield
    finally:
        del network.forward

"""One step of training: a batch of samples in, moved parameters and metrics out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ep_neuro.data.augmentation import augment, draws
from ep_neuro.data.datasets import Split
from ep_neuro.energy.costs import one_hot
from ep_neuro.errors import ConfigError, RunError
from ep_neuro.estimators import Estimate, FrozenMean
from ep_neuro.estimators.gradient_check import in_units
from ep_neuro.network.network import Network, State, parameter_names
from ep_neuro.network.stability import PATIENCE, with_more_sweeps
from ep_neuro.training.config import TrainConfig
from ep_neuro.training.distributed import Ranks, weighted_mean
from ep_neuro.training.evaluation import as_unit
from ep_neuro.training.gradient_monitor import TruthControl
from ep_neuro.training.metrics import Record
from ep_neuro.training.optimizer import make_optimiser, make_scheduler


class Stepper:
    """A network in training: its optimiser, the schedule of its rate, its running average.

    It moves `network` in place by samples of `split`, of which the `ranks` share each batch; the
    rate falls over `steps`, the whole training.
    """

    def __init__(
        self, config: TrainConfig, split: Split, network: Network, steps: int, ranks: Ranks
    ) -> None:
        if config.carry_states and ranks.world > 1:
            raise ConfigError(
                "carry_states: true",
                f"the states of {ranks.world} processes do not fit into one checkpoint",
                "train in one process, or set carry_states: false",
            )
        self.config, self.split, self.network, self.ranks = config, split, network, ranks
        self.optimiser = make_optimiser(config.optimiser, network)
        self.scheduler = make_scheduler(config.optimiser, self.optimiser, steps)
        average = get_ema_multi_avg_fn(config.average)
        self.averaged = AveragedModel(network, multi_avg_fn=average)
        self.carried: State = {}
        self.control: TruthControl | None = None
        # Untied feedback has no implicit gradient to be held against.
        if config.truth and isinstance(config.estimator, FrozenMean) and not network.feedback:
            self.control = TruthControl(config.truth, config.estimator)

    def __call__(self, index: Tensor, seed: int, where: str) -> Record:
        """Move the parameters by the batch of the samples `index` (N,), the same on all ranks.

        Gives its mean metrics. `seed` is that of the augmentation and of `disturbed`; errors say
        `where` in the training they happened.

        Raises
        ------
        RunError
            By the rule on unsettled batches, or if the gradient is not finite; the parameters are
            then unmoved.
        """
        mine = self.ranks.share(index)
        x, y = self._inputs(index, seed), self._targets(mine)
        step = self.scheduler.last_epoch
        noise = self.config.weight_noise
        network = disturbed(self.network, noise, seed) if noise else self.network
        if self.control is not None and self.control.due(step):
            self.control.look(step, network, x, y, self.ranks)
        estimate, retries = self._estimate(network, x, y, where)
        gradient = self.ranks.mean(self._gradient(estimate), len(mine))
        _refuse_infinity(gradient, estimate, where)
        self._move(gradient)
        if estimate is not None and self.config.carry_states:
            self._carry(estimate)
        measured = {} if estimate is None else self._measure(estimate, y, retries)
        return weighted_mean(self.ranks.gather((measured, len(mine))))

    def _inputs(self, index: Tensor, seed: int) -> Tensor:
        mine = self.ranks.share(index)
        pixels = torch.from_numpy(self.split.pixels)[mine]
        if self.config.augment:
            # Drawn for the global batch, so that the number of ranks changes nothing.
            u = self.ranks.share(draws(self.config.augment, len(index), seed))
            pixels = augment(pixels, self.config.augment, u)
        return as_unit(pixels.to(self.ranks.device))

    def _targets(self, index: Tensor) -> Tensor:
        spec = self.network.spec
        labels = torch.from_numpy(self.split.y)[index].to(self.ranks.device)
        exact = one_hot(labels, spec.target_shape, torch.float32)
        spread = self.config.label_smoothing
        return (1 - spread) * exact + spread / exact[0].numel() if spread else exact

    def _estimate(
        self, network: Network, x: Tensor, y: Tensor, where: str
    ) -> tuple[Estimate | None, int]:
        """The estimate and how often it was repeated; None where there are no samples."""
        rule, limit = self.config.on_unsettled, self.config.unsettled_limit
        factors = (1, *PATIENCE) if rule == "more-sweeps" else (1,)
        for retries, factor in enumerate(factors):
            estimate = self._with_sweeps(factor, network, x, y) if len(x) else None
            share = 0.0 if rule == "continue" else self._unsettled_everywhere(estimate)
            if share <= limit:
                return estimate, retries
        if rule == "stop":
            raise RunError(
                where,
                f"{share:.0%} of the batch did not settle, more than unsettled_limit {limit:g}",
                "give estimator.free more sweeps or a larger tolerance, lower optimiser.lr, "
                "or set on_unsettled: more-sweeps",
            )
        return estimate, len(PATIENCE)

    def _with_sweeps(self, factor: int, network: Network, x: Tensor, y: Tensor) -> Estimate:
        estimator: Any = self.config.estimator
        if self.control is not None:
            estimator = self.control.estimator
        if factor > 1:
            estimator = with_more_sweeps(estimator, factor)
        found: Estimate = estimator(network, x, y, **self._start(len(x)))
        if network is self.network:
            return found
        return replace(found, gradient=self.network.pulled_back(found.gradient))

    def _start(self, samples: int) -> dict[str, State]:
        """Keyword of the estimator for carried states; an epoch's last batch may be smaller."""
        if not self.carried or len(next(iter(self.carried.values()))) < samples:
            return {}
        return {"start": {p: v[:samples] for p, v in self.carried.items()}}

    def _carry(self, estimate: Estimate) -> None:
        held = next(iter(self.carried.values())) if self.carried else ()
        if len(estimate.free.residual) >= len(held):
            self.carried = estimate.free.state

    def _unsettled_everywhere(self, estimate: Estimate | None) -> float:
        share = {} if estimate is None else {"unsettled": self._unsettled(estimate)}
        samples = 0 if estimate is None else len(estimate.free.residual)
        return weighted_mean(self.ranks.gather((share, samples)))["unsettled"]

    def _unsettled(self, estimate: Estimate) -> float:
        if estimate.free.unmeasured:
            return 0.0
        tolerance = getattr(getattr(self.config.estimator, "free", None), "tolerance", 0.0)
        # A residual that is not a number is above every tolerance.
        return float((~(estimate.free.residual <= tolerance)).float().mean())

    def _gradient(self, estimate: Estimate | None) -> dict[str, Tensor]:
        if estimate is not None:
            return estimate.gradient
        return {k: torch.zeros_like(p) for k, p in parameter_names(self.network).items()}

    def _move(self, gradient: dict[str, Tensor]) -> None:
        for name, parameter in parameter_names(self.network).items():
            parameter.grad = gradient[name]
        longest = self.config.optimiser.clip_norm
        if longest is not None:
            norm = torch.nn.utils.get_total_norm(in_units(self.network, gradient).values())
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), longest, norm)
        self.optimiser.step()
        self.scheduler.step()
        if self.config.average:
            self.averaged.update_parameters(self.network)

    def _measure(self, estimate: Estimate, targets: Tensor, retries: int) -> Record:
        """Means over my part of the batch."""
        output = estimate.free.state[self.network.spec.output].to(targets.dtype)
        with torch.no_grad():
            loss = self.network.cost.value(output, targets).mean()
            hits = self.network.scores(output).argmax(1) == targets.flatten(1).argmax(1)
        measured = {"loss": float(loss), "train_accuracy": float(hits.float().mean())}
        if not estimate.free.unmeasured:
            measured["residual"] = float(estimate.free.residual.mean())
            measured["unsettled"] = self._unsettled(estimate)
        return {
            **measured,
            **self._truth(),
            "sweeps_free": float(estimate.free.sweeps),
            "sweeps_nudged": float(estimate.nudged.sweeps if estimate.nudged else 0),
            "retries": float(retries),
        }

    def _truth(self) -> Record:
        """The latest look at the gradient, if any."""
        latest = None if self.control is None else self.control.latest
        if latest is None:
            return {}
        return {"gradient_cosine": latest.cosine, "worst_cosine": latest.worst}

    def state(self) -> dict[str, Any]:
        """All that another `Stepper` needs to go on, besides the network's own parameters."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "averaged": self.averaged.state_dict(),
            "carried": self.carried,
            "truth": {} if self.control is None else self.control.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` of another gave."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.averaged.load_state_dict(state["averaged"])
        self.carried = {p: v.to(self.ranks.device) for p, v in state["carried"].items()}
        if self.control is not None:
            self.control.restore(state.get("truth", {}))


@torch.no_grad()
def disturbed(network: Network, noise: float, seed: int) -> Network:
    """`network` as arrays of erring devices would hold it, in plain weights; itself it stays.

    ``W_ij + noise max_j |W_ij| xi_ij`` with normal ``xi`` drawn by `seed`, as in Joshi et al. 2020
    (Nature Communications 11, 2473): a device errs by a share of its range, and each row, the
    weights of a neuron or an output channel, has a range of its own (`targets.crossbar`).
    """
    folded = network.folded()
    other = copy.deepcopy(network) if folded is network else folded
    generator = torch.Generator().manual_seed(seed)
    for weight in (*other.weights.values(), *other.feedback.values()):
        xi = torch.randn(weight.shape, generator=generator).to(weight)
        largest = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True)
        weight.addcmul_(largest, xi, value=noise)
    return other


def _refuse_infinity(gradient: dict[str, Tensor], estimate: Estimate | None, where: str) -> None:
    for name, value in gradient.items():
        if bool(torch.isfinite(value).all()):
            continue
        cause = "" if estimate is None or estimate.free.settled else f"; {estimate.free.message}"
        raise RunError(
            where,
            f"the gradient of {name} is not finite{cause}",
            "lower optimiser.lr or the gains of the network; the weights before this step are "
            "saved in 'last'",
        )

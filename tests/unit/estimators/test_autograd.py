"""Claims about `ep.loss`: its gradients are the estimator's, and PyTorch's own tools work on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ep_neuro.data import datasets
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, DataError
from ep_neuro.estimators import (
    Centered,
    Deployed,
    Estimate,
    Estimator,
    FrozenMean,
    OneSided,
    RandomSign,
)
from ep_neuro.estimators.autograd import loss
from ep_neuro.estimators.baselines import Backprop, Implicit, Unrolled
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.network.settling import Schedule
from tests.helpers.graphs import digits_like_dense, digits_like_residual
from tests.helpers.problems import chain, problem

SHORT = Schedule(sweeps=20)
FAST = Centered(free=SHORT, nudged=SHORT)
BOXED = {"box": (0.0, 1.0)}
REPARAMETRISED = NetworkSpec.from_dict(
    {
        "name": "reparametrised",
        "input": {"shape": [1, 6, 6]},
        "populations": [
            {"name": "a", "shape": [4, 6, 6], "box": [0, 2]},
            {"name": "b", "shape": [3, 3, 3], "box": [0, 2]},
            {"name": "out", "shape": [6], "box": [0, 1]},
        ],
        "couplings": [
            {"pre": "input", "post": "a", "kind": "conv", "kernel": 3, "padding": 1,
             "whiten": True},
            {"pre": "a", "post": "b", "kind": "conv", "kernel": 3, "stride": 2, "padding": 1,
             "standardise": True},
            {"pre": "b", "post": "out", "standardise": True},
        ],
        "readout": {"classes": 4},
    }
)  # fmt: skip


def gradients(network: Network) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in parameter_names(network).items()}


def digits(samples: int) -> tuple[Tensor, Tensor]:
    split = datasets.load("digits").train.head(samples)
    return torch.from_numpy(split.x), torch.from_numpy(split.y)


@pytest.mark.parametrize(
    ("estimator", "spec"),
    [
        (FAST, REPARAMETRISED),
        (FAST, chain(untied=True)),
        (FrozenMean(), REPARAMETRISED),
        (FrozenMean(), chain(cost="cross-entropy")),
        (OneSided(), chain(readout=True)),
        (RandomSign(), chain()),
        (Implicit(), chain(readout=True)),
        (Unrolled(free=SHORT), REPARAMETRISED),
        (Backprop(), REPARAMETRISED),
        (Deployed(steps=8), digits_like_residual()),
    ],
    ids=lambda one: getattr(one, "kind", None) or one.name,
)
def test_backward_fills_in_the_gradient_of_the_estimator_to_the_bit(
    estimator: Estimator, spec: NetworkSpec
) -> None:
    network, x, y = problem(3, spec, samples=3)
    network, x, y = network.float(), x.float(), y.float()
    expected = estimator(network, x, y)
    value = loss(network, x, y, estimator=estimator)
    output = expected.free.state[spec.output].to(y)
    assert value.item() == network.cost.value(output, y).mean().item()
    value.backward()
    for name, found in gradients(network).items():
        if name in network.fixed:
            assert found is None
        else:
            assert found is not None
            assert torch.equal(found, expected.gradient[name]), name


def test_labels_and_one_hot_targets_are_the_same() -> None:
    network, x, y = problem(1, chain(), samples=5)
    values = [loss(network, x, target) for target in (y, y.argmax(1), y.argmax(1).int(), y.bool())]
    assert len({value.item() for value in values}) == 1


def test_gradients_add_up_and_scale_with_the_loss() -> None:
    network, x, y = problem(2, chain(readout=True), samples=5)
    exact = FAST(network, x, y).gradient
    loss(network, x, y, estimator=FAST).backward()
    (0.5 * loss(network, x, y, estimator=FAST)).backward()
    for name, found in gradients(network).items():
        assert found is not None
        torch.testing.assert_close(found, 1.5 * exact[name])


def test_frozen_parameters_get_no_gradient_and_change_nothing_for_the_others() -> None:
    network, x, y = problem(2, chain(readout=True, untied=True), samples=5)
    exact = FAST(network, x, y).gradient
    frozen = {"weight/h->g", "readout/weight", "bias/out"}
    for name, p in parameter_names(network).items():
        p.requires_grad_(name not in frozen)
    loss(network, x, y, estimator=FAST).backward()
    for name, found in gradients(network).items():
        assert (found is None) == (name in frozen)
        assert found is None or torch.equal(found, exact[name])
    assert {n for n, p in parameter_names(network).items() if not p.requires_grad} == frozen


class Refuses(Estimator):
    """Has a free phase, and no gradient."""

    kind: str = "refuses"
    free: Schedule = SHORT

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        raise AssertionError("a gradient was estimated")


def test_without_gradients_the_free_phase_alone_settles() -> None:
    network, x, y = problem(2, chain(), samples=5)
    with torch.no_grad():
        value = loss(network, x, y, estimator=Refuses())
    assert not value.requires_grad
    assert value.item() == loss(network, x, y, estimator=FAST).item()
    network.requires_grad_(False)
    assert loss(network, x, y, estimator=Refuses()).item() == value.item()
    with pytest.raises(AssertionError, match="a gradient was estimated"):
        loss(network.requires_grad_(), x, y, estimator=Refuses())


@pytest.mark.parametrize(
    "estimator", [FAST, FrozenMean(precision="bfloat16"), Implicit(), Backprop(), Deployed(steps=8)]
)
def test_the_value_is_the_same_with_gradients_and_without(estimator: Estimator) -> None:
    network, x, y = problem(3, chain(**BOXED), samples=5)
    with torch.no_grad():
        value = loss(network, x, y, estimator=estimator).item()
    assert loss(network, x, y, estimator=estimator).item() == value


def test_a_plain_loop_with_adamw_learns_digits_in_a_few_steps() -> None:
    x, y = digits(512)
    network = Network(digits_like_dense(), 0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.003)
    first = None
    for _ in range(3):
        for some, labels in zip(x.split(32), y.split(32), strict=True):
            optimiser.zero_grad()
            value = loss(network, some, labels, estimator=FAST)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            first = value.item() if first is None else first
    assert value.item() < first / 5
    assert (network(x).argmax(1) == y).float().mean() > 0.8


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A process group of gloo with this process alone."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_gradients_are_reduced_by_distributed_data_parallel() -> None:
    # Of a single process the mean is the gradient itself: a hook that doubles it shows in the sum.
    network, x, y = problem(2, chain(readout=True), samples=5)
    exact = FAST(network, x, y).gradient
    reduced: list[int] = []

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch reads the annotations
        reduced.append(bucket.buffer().numel())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(2 * bucket.buffer())
        return future

    wrapped = DistributedDataParallel(network)
    wrapped.register_comm_hook(None, hook)
    for times in (1, 2):
        loss(wrapped, x, y, estimator=FAST).backward()
        assert sum(reduced) == times * network.spec.parameters
        for name, found in gradients(network).items():
            assert torch.equal(found, 2 * exact[name]), name  # type: ignore[arg-type]
        network.zero_grad()
    assert torch.equal(wrapped(x), network(x))


def test_a_module_around_a_network_may_prepare_its_input() -> None:
    network, x, y = problem(2, chain(), samples=5)
    value = loss(nn.Sequential(nn.Hardtanh(0, 0.5), network), x, y, estimator=FAST)
    assert value.item() == loss(network, x.clamp(0, 0.5), y, estimator=FAST).item()
    with pytest.raises(ConfigError, match=r"loss of a ReLU: there is no Network in it; give a"):
        loss(nn.ReLU(), x, y)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (torch.tensor([0, 3]), "labels 0 to 3, but 3 classes; choose"),
        (torch.tensor([-1, 0]), "labels -1 to 0, but 3 classes"),
        (torch.zeros(2, 4), r"torch.float32 \[2, 4\], the network takes \[3\] a sample; give"),
        (torch.zeros(2), r"torch.float32 \[2\], the network takes \[3\] a sample"),
        (torch.tensor([0, 1, 2]), "3 for 2 inputs; give one for each input"),
    ],
)
def test_targets_that_do_not_fit_are_refused_in_one_line(y: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=f"targets of 'chain': {says}"):
        loss(Network(chain()), torch.zeros(2, 5), y)

"""Claims about class weights: a factor of each sample's cost, the same for every estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.estimators import Centered, FrozenMean, Gradient, OneSided
from ep_neuro.estimators.baselines import Backprop, Implicit, Unrolled
from ep_neuro.training.class_weights import class_weights
from ep_neuro.training.loop import train
from tests.helpers.problems import TIGHT, aligned, chain, difference, problem
from tests.unit.training.test_loop import SCHEDULE, clusters, config, same

PHASES: dict[str, Any] = {"free": TIGHT, "nudged": TIGHT}
NUDGING = [kind(beta=1e-4, **PHASES) for kind in (OneSided, Centered, FrozenMean)]
EXACT = [Implicit(free=TIGHT), Unrolled(free=TIGHT), Backprop()]
COSTS = [chain(), chain(cost="cross-entropy"), chain(readout=True)]


def both_ways(estimator: Any, spec: NetworkSpec, seed: int) -> tuple[Gradient, Gradient]:
    """A gradient with weights, and the weighted mean of those of single samples by backprop."""
    network, x, y = problem(seed, spec, samples=6)
    by_class = torch.rand(spec.classes, dtype=torch.float64, generator=_generator(seed)) * 5 + 0.1
    factors = by_class[y.flatten(1).argmax(1)]
    exact = Backprop() if isinstance(estimator, Backprop) else Unrolled(free=TIGHT)
    alone = [exact(network, x[i : i + 1], y[i : i + 1]).gradient for i in range(len(x))]
    mean = {k: sum(w * g[k] for w, g in zip(factors, alone, strict=True)) / 6 for k in alone[0]}
    network.class_weights = by_class
    return estimator(network, x, y).gradient, mean  # type: ignore[return-value]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spec", COSTS, ids=["squared-error", "cross-entropy", "readout"])
@pytest.mark.parametrize("estimator", NUDGING, ids=lambda e: str(e.kind))
@given(seed=st.integers(0, 10**6))
@settings(max_examples=2)
def test_ep_with_weights_is_backprop_with_weights(
    estimator: Any, spec: NetworkSpec, seed: int
) -> None:
    found, expected = both_ways(estimator, spec, seed)
    assert aligned(found, expected) > 0.99999
    assert difference(found, expected) < 1e-2


@pytest.mark.parametrize("spec", COSTS, ids=["squared-error", "cross-entropy", "readout"])
@pytest.mark.parametrize("estimator", EXACT, ids=lambda e: str(e.kind))
def test_the_references_weigh_each_sample(estimator: Any, spec: NetworkSpec) -> None:
    assert difference(*both_ways(estimator, spec, 3)) < 1e-6


def test_balanced_weights_give_each_class_the_same_share() -> None:
    data = clusters()
    keep = (data.train.y > 0) | (torch.arange(40).numpy() < 6)
    data = replace(data, train=data.train.at(keep))
    found = class_weights("balanced", data, Backprop())
    assert found is not None
    weights = found[torch.from_numpy(data.train.y)]
    shares = [float(weights[torch.from_numpy(data.train.y == c)].sum()) for c in range(3)]
    assert shares == pytest.approx([len(data.train) / 3] * 3)
    assert float(weights.mean()) == pytest.approx(1)


def test_classes_are_weighed_by_name_or_by_number() -> None:
    named = class_weights({"b": 3.0}, clusters(), Backprop())
    listed = class_weights((1.0, 3.0, 1.0), clusters(), Backprop())
    assert named is not None
    assert listed is not None
    assert named.tolist() == listed.tolist() == [1, 3, 1]
    numbered = config(class_weights={1: 2}).class_weights
    assert numbered == {"1": 2.0}


@pytest.mark.parametrize(
    ("asked", "estimator", "says"),
    [
        ({"bb": 2.0}, Backprop(), "class_weights.bb: data 'clusters' has no class of this name; "),
        ((1.0, 2.0), Backprop(), "2 weights, data 'clusters' has 3 classes; give one for each"),
        (
            (1.0, 8.0, 1.0),
            Centered(beta=0.2),
            "the largest, 8, times beta 0.2 of estimator 'centered' is not below 1; "
            "set estimator.beta below 0.12",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(asked: Any, estimator: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        class_weights(asked, clusters(), estimator)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        ({"kind": "holomorphic"}, "estimator 'holomorphic' nudges every sample alike; leave"),
        ({"kind": "deployed", "response": "encoded"}, "estimator 'deployed' nudges every sample"),
    ],
)
def test_estimators_that_nudge_every_sample_alike_refuse_weights(
    estimator: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(estimator=estimator, class_weights="balanced")
    assert says in str(caught.value)


@pytest.mark.parametrize("asked", ["even", [0.0, 1.0, 1.0], {"a": -1}, [float("inf")], 3])
def test_weights_of_another_kind_are_refused(asked: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"class_weights: .*: neither balanced, nor positive numbers; list one"
    ):
        config(class_weights=asked)


@pytest.mark.parametrize("kind", ["centered", "frozen-mean", "backprop"])
def test_weights_of_one_change_nothing_and_others_do(kind: str) -> None:
    phases = {} if kind == "backprop" else {"free": SCHEDULE, "nudged": SCHEDULE}
    plain, ones, others = (
        train(config(estimator={"kind": kind, **phases}, epochs=1, **more), dataset=clusters())
        for more in ({}, {"class_weights": [1, 1, 1]}, {"class_weights": {"c": 4}})
    )
    assert same(plain.model.network, ones.model.network)
    assert not same(plain.model.network, others.model.network)
    assert others.model.network.class_weights is None

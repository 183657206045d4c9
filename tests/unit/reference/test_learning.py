"""Claims about learning on the reference: it is the EP update, and it goes on where it stopped."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import compilers
import targets
from compilers import Program, compile_network
from compilers.ir.plasticity import Rule
from compilers.learning.plastic_weights import PlasticWeights, true_bias
from compilers.passes.choose_leak import LeakWarning
from compilers.passes.make_plastic import make_plastic
from compilers.passes.quantize import quantize
from compilers.passes.validate import validate
from ep_neuro.data import datasets
from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import EPNeuroError, GraphError, RunError
from ep_neuro.estimators import Centered, OneSided
from ep_neuro.network.architectures import digits_dense, digits_residual
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from targets.interface.session import Session
from tests.helpers.graphs import random_residual_spec, samples

BETA = 0.2
TIGHT = Schedule(sweeps=2000, tolerance=1e-12)

Changes = dict[str, np.ndarray]


def compiled(
    network: Network, code: str = "graded", bits: int | None = None, steps: int = 60
) -> Program:
    """`network` on the reference; nothing learns yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeakWarning)
        return compile_network(
            network, targets.get("reference"), code=code, bits=bits, steps=steps, beta=BETA
        )


def plastic(program: Program, rule: str | Rule | None = None, **arguments: object) -> Program:
    """`program`, plastic, its graph valid."""
    graph = make_plastic(program.graph, rule, **arguments)  # type: ignore[arg-type]
    return replace(program, graph=validate(graph))


def real_values(program: Program) -> Changes:
    """Weights and true biases in real units, biases with one value a channel."""
    learner, values = PlasticWeights(program.graph), {}
    for s in learner.synapses:
        values[s.record.weight] = s.operand(learner.weights[s.record.weight]) * s.unit
    return values


def learnt_changes(program: Program, x: np.ndarray, y: np.ndarray) -> Changes:
    """What one batch changes, in real units, read off the learnt program."""
    with targets.learner(program) as session:
        session.learn(x, y, batch=len(x))
        after = real_values(session.learnt())
    before = real_values(program)
    return {name: after[name] - before[name] for name in before}


def descent(network: Network, x: np.ndarray, y: np.ndarray, estimator: object) -> Changes:
    """Minus the gradient of an estimator of `ep_neuro`, in float64."""
    twin = Network(network.spec, 0).double()
    twin.load_state_dict(network.state_dict())
    targets_ = one_hot(torch.tensor(y), network.spec.target_shape, torch.float64)
    estimate = estimator(twin, torch.tensor(x, dtype=torch.float64), targets_)  # type: ignore[operator]
    return {name: -value.numpy() for name, value in estimate.gradient.items()}


def cosine(a: Changes, b: Changes) -> float:
    """Cosine of the angle between two sets of arrays, taken as one vector each."""
    one, two = (np.concatenate([v[name].ravel() for name in sorted(a)]) for v in (a, b))
    return float(one @ two / np.sqrt((one @ one) * (two @ two)))


def a_network(seed: int) -> Network:
    """A random residual network on raw inputs, with biases that keep most neurons inside."""
    spec = random_residual_spec(seed)
    raw = {**spec.to_dict(), "input": {"shape": list(spec.input.shape)}}
    network = Network(NetworkSpec.from_dict(raw), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bias in network.biases.values():
            bias.uniform_(0.2, 0.4, generator=generator)
    return network


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first training digits."""
    train = datasets.load("digits").train.head(count)
    return train.x, train.y


# --- the update is the EP update ---------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 1, 2, 5])
def test_a_float_update_is_minus_the_centered_gradient(seed: int | None) -> None:
    """Digits, dense, and residual convolutions with several boxes: equal, and not only parallel."""
    network = Network(digits_dense(), 0) if seed is None else a_network(seed)
    x, y = digits(6) if seed is None else samples(network.spec, 6, seed)
    program = plastic(compiled(network, steps=150), lr=1.0, nudged_steps=150)
    changes = learnt_changes(program, x, y)
    gradient = descent(network, x, y, Centered(beta=BETA, free=TIGHT, nudged=TIGHT))
    assert changes.keys() == gradient.keys()
    assert cosine(changes, gradient) > 0.99999
    for name, value in gradient.items():
        np.testing.assert_allclose(
            changes[name], value, atol=2e-3 * np.abs(value).max() + 1e-6, err_msg=name
        )


def test_the_one_sided_rule_is_the_one_sided_estimator() -> None:
    network = a_network(1)
    x, y = samples(network.spec, 4, 0)
    program = plastic(compiled(network, steps=150), "one-sided", lr=1.0, nudged_steps=150)
    gradient = descent(network, x, y, OneSided(beta=BETA, free=TIGHT, nudged=TIGHT))
    assert cosine(learnt_changes(program, x, y), gradient) > 0.9999


def test_the_continual_rule_tends_to_the_one_sided_estimator_as_the_rate_tends_to_zero() -> None:
    network = a_network(1)
    x, y = samples(network.spec, 4, 0)
    gradient = descent(network, x, y, OneSided(beta=BETA, free=TIGHT, nudged=TIGHT))
    found = []
    for lr in (1e-2, 1e-5):
        program = plastic(compiled(network, steps=150), "continual", lr=lr, nudged_steps=100)
        with targets.learner(program) as session:
            result = session.learn(x, y, batch=4)
        assert result.commits == 100
        found.append(cosine(learnt_changes(program, x, y), gradient))
    assert found[1] > 0.9999
    assert found[0] < found[1]


@pytest.mark.parametrize(("code", "bits", "least"), [("graded", 8, 0.95), ("spike", None, 0.5)])
def test_a_coarse_update_points_the_same_way_on_average(
    code: str, bits: int | None, least: float
) -> None:
    """Before rounding, for single samples: what the tags hold."""
    network = Network(digits_dense(), 0)
    program = plastic(compiled(network, code, bits), lr=1.0)
    estimator = Centered(beta=BETA, free=Schedule(sweeps=60), nudged=Schedule(sweeps=60))
    found, agreeing = [], []
    for x, y in zip(*digits(12), strict=True):
        gradient = descent(network, x[None], y[None], estimator)
        held = tags(program, x[None], y[None])
        found.append(cosine(held, gradient))
        large = {k: np.abs(g) > 0.1 * np.abs(g).max() for k, g in gradient.items()}
        agreeing += [(np.sign(held[k]) == np.sign(g))[large[k]].mean() for k, g in gradient.items()]
    assert np.mean(found) > least
    assert np.mean(agreeing) > least


def test_finer_messages_teach_a_deep_convolutional_network_better() -> None:
    """What a nudge changes far from the output is below the last of 8 fractional bits."""
    network = Network(digits_residual(), 0)
    estimator = Centered(beta=BETA, free=Schedule(sweeps=60), nudged=Schedule(sweeps=60))
    found = {}
    for frac in (8, 12):
        program = compilers.compile(
            network, bits=8, message_frac=frac, steps=60, nudged_steps=60, beta=BETA
        )
        held = [
            (tags(plastic(program, lr=1.0), x[None], y[None]), x[None], y[None])
            for x, y in zip(*digits(3), strict=True)
        ]
        found[frac] = np.mean([cosine(h, descent(network, x, y, estimator)) for h, x, y in held])
    assert found[8] < 0.9
    assert found[12] > 0.98


def tags(program: Program, x: np.ndarray, y: np.ndarray) -> Changes:
    """Tags in real units before a commit, from a program that commits in a phase of its own."""
    with targets.learner(program) as session:
        learner, held = session.learner, Changes()

        def commit(samples: int, scale: float = 1.0) -> None:
            for s in learner.synapses:
                held[s.record.weight] = learner.tags[s.record.weight] * s.tag_unit

        learner.commit = commit  # type: ignore[method-assign]
        session.learn(x, y, batch=len(x))
    return held


# --- the learnt program ------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["graded", "sigma-delta", "spike"])
@pytest.mark.parametrize("bits", [None, 8])
def test_the_session_computes_what_the_learnt_program_computes(code: str, bits: int | None) -> None:
    """Both directions of every tied weight and the folded biases followed the change."""
    network = a_network(2)
    x, y = samples(network.spec, 6, 1)
    program = plastic(compiled(network, code, bits, steps=16), lr=0.5)
    with targets.learner(program) as session:
        before = session.settle(x).free.outputs
        session.learn(x, y, batch=2)
        here = session.settle(x)
        learnt = session.learnt()
    assert validate(learnt.graph)
    with targets.open(learnt) as fresh:
        there = fresh.settle(x)
    assert np.abs(here.free.outputs - before).max() > 1e-3
    tolerance = 1e-5 if bits is None and code == "graded" else 0.05 if bits is None else 0.0
    np.testing.assert_allclose(here.free.outputs, there.free.outputs, rtol=0, atol=tolerance)


def test_the_true_bias_stays_where_only_weights_learn() -> None:
    """An output rests at -0.5, which reaches its neighbours through the weights that change."""
    network = Network(digits_dense(), 0)
    program = compiled(network)
    weights = plastic(program, only=program.graph.ties, lr=0.5)
    x, y = digits(8)
    with targets.learner(weights) as session:
        session.learn(x, y, batch=4)
        learnt = session.learnt().graph
    for population in program.graph.neurons:
        assert population.bias is not None
        before, after = (
            true_bias(g, g.population(population.name)) for g in (program.graph, learnt)
        )
        np.testing.assert_allclose(after, before, atol=1e-6)
    folded = program.graph.arrays["bias/h1"], learnt.arrays["bias/h1"]
    assert np.abs(folded[0] - folded[1]).max() > 1e-3


def test_the_true_bias_is_the_bias_of_the_network() -> None:
    network = a_network(5)
    program = compiled(network)
    for name, bias in network.biases.items():
        p = program.graph.population(name)
        real = true_bias(program.graph, p) * p.readout.gain
        expected = bias.detach().numpy().reshape(-1, *[1] * (len(p.shape) - 1))
        np.testing.assert_allclose(real, np.broadcast_to(expected, p.shape), atol=1e-5)


# --- order, memory, ends -----------------------------------------------------------------------


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("rule", ["contrastive", "continual"])
def test_learning_that_was_interrupted_ends_at_the_same_weights(
    bits: int | None, rule: str
) -> None:
    network = a_network(1)
    x, y = samples(network.spec, 6, 1)
    program = plastic(compiled(network, bits=bits, steps=8), rule, lr=0.3)
    with targets.learner(program) as whole:
        whole.learn(x, y, batch=2)
    with targets.learner(program) as one, targets.learner(program) as two:
        one.learn(x[:2], y[:2], batch=2)
        saved = {name: value.copy() for name, value in one.memory().items()}
        one.learn(x[2:], y[2:], batch=2)
        two.restore(saved)
        two.learn(x[2:], y[2:], batch=2)
        assert_same_memory(one, two, bits)


def assert_same_memory(one: Session, two: Session, bits: int | None) -> None:
    a, b = one.memory(), two.memory()
    assert a.keys() == b.keys()
    for name, value in a.items():
        # Sums in another order where arrays lie elsewhere in memory; integers have no such luck.
        tolerance = 1e-9 if bits is None else 0
        np.testing.assert_allclose(b[name], value, rtol=0, atol=tolerance, err_msg=name)


def test_a_memory_of_another_program_is_refused() -> None:
    network = a_network(1)
    program = plastic(compiled(network, steps=4))
    integers = plastic(compiled(network, bits=8, steps=4))
    with targets.learner(program) as session, targets.learner(integers) as other:
        memory = session.memory()
        for bad in (other.memory(), {}, {**memory, "more": np.zeros(1)}):
            with pytest.raises(RunError, match="memory: '"):
                session.restore(bad)
        session.restore(memory)


def test_batches_commit_once_each_and_predictions_come_in_order() -> None:
    network = a_network(1)
    x, y = samples(network.spec, 7, 1)
    program = plastic(compiled(network, steps=12), lr=1e-9)
    seen: list[tuple[int, int]] = []
    with targets.learner(program) as session:
        settled = session.settle(x).predictions
        result = session.learn(x, y, batch=3, progress=lambda a, b: seen.append((a, b)))
    np.testing.assert_array_equal(result.predictions, settled)
    assert result.commits == 3
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert result.changed > 0
    assert result.clipped == 0


def test_the_rate_scale_scales_every_change() -> None:
    network = a_network(1)
    x, y = samples(network.spec, 2, 1)
    program = plastic(compiled(network, steps=20), lr=0.1)
    moved = []
    for scale in (1.0, 0.25):
        with targets.learner(program) as session:
            moved.append(session.learn(x, y, batch=2, rate_scale=scale).changed)
    assert moved[1] == pytest.approx(0.25 * moved[0])


def test_events_are_those_of_all_phases() -> None:
    network = a_network(1)
    x, y = samples(network.spec, 3, 1)
    for code in ("graded", "sigma-delta", "spike"):
        program = plastic(compiled(network, code, steps=10), lr=1e-12)
        with targets.learner(program) as session:
            settled = session.settle(x, y).phases.values()
            result = session.learn(x, y, batch=3)
        events = sum(int(e.sum()) for p in settled for e in p.events.values()) / 3
        synops = sum(int(e.sum()) for p in settled for e in p.synops.values()) / 3
        assert result.events_per_sample == pytest.approx(events)
        assert result.synops_per_sample == pytest.approx(synops)


def test_what_does_not_learn_says_so_in_one_line() -> None:
    program = compiled(a_network(1), steps=4)
    x, y = samples(random_residual_spec(1), 2)
    with pytest.raises(GraphError, match="nothing in it learns; compile with --learn"):
        targets.learner(program)
    with targets.open(program) as session, pytest.raises(GraphError, match="nothing in it learns"):
        session.learn(x, y)  # type: ignore[attr-defined]
    with targets.learner(plastic(program)) as session:
        for bad in (dict(batch=0), dict(rate_scale=0.0), dict(rate_scale=np.nan)):
            with pytest.raises(EPNeuroError) as caught:
                session.learn(x, y, **bad)
            assert "\n" not in str(caught.value)
        with pytest.raises(EPNeuroError, match="target y"):
            session.learn(x, y[:1])


def test_a_closed_session_does_not_learn() -> None:
    program = plastic(compiled(a_network(1), steps=4))
    session = targets.learner(program)
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.memory()


# --- from scratch ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "bits", "batch", "lr", "least"),
    [
        ("graded", None, 8, 0.5, 0.97),
        ("graded", 8, 8, 0.5, 0.97),
        ("spike", 8, 8, 0.4, 0.965),
        ("graded", None, 1, 0.1, 0.97),
    ],
)
def test_digits_are_learnt_from_scratch_within_ten_thousand_samples(
    code: str, bits: int | None, batch: int, lr: float, least: float
) -> None:
    """64-128-10 from fresh weights; the controller lowers the rate to a twentieth on the way."""
    steps = 64 if code == "spike" else 24
    program = compiled(Network(digits_dense(), 0), code, steps=steps)
    if bits is not None:
        program = replace(program, graph=quantize(program.graph, bits, headroom=2))
    slower = {"weight/h1->output": 0.4 * lr, "bias/output": 0.4 * lr}
    rates = {"weight/input->h1": lr, "bias/h1": lr, **slower}
    program = plastic(program, lr=rates, nudged_steps=steps // 2)
    train, test = datasets.load("digits").train, datasets.load("digits").test
    draw = np.random.default_rng(0)
    order = np.concatenate([draw.permutation(len(train)) for _ in range(8)])[:10_000]
    with targets.learner(program) as session:
        for number, piece in enumerate(np.split(order, 40)):
            scale = 0.05 ** (number / 40)
            session.learn(train.x[piece], train.y[piece], batch=batch, rate_scale=scale)
        found = session.settle(test.x).predictions
    assert (found == test.y).mean() >= least

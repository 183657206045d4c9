"""Claims about the numbers that learning is computed in: short ones change no integer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import compilers
import targets
from compilers import Program
from compilers.execution import arithmetic, engine
from compilers.passes.make_plastic import make_plastic
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network
from targets.interface.graph_simulator import GraphSimulator
from targets.interface.simulator import SimulatorSession
from tests.helpers.graphs import random_residual_spec, samples


def program_of(code: str, bits: int | None = 8, **options: str) -> Program:
    """A small convolutional residual network that learns."""
    return plastic(Network(random_residual_spec(5), 0), code, bits, **options)


def plastic(network: Network, code: str, bits: int | None = 8, **options: str) -> Program:
    """`network`, learning, on the reference."""
    found = compilers.compile(
        network, code=code, bits=bits, steps=12, leak=0.5, beta=0.5, options=options
    )
    return replace(found, graph=make_plastic(found.graph, lr=0.3))


def learnt(program: Program) -> tuple[dict[str, np.ndarray], torch.dtype]:
    """The memory after a few samples, and the numbers of the membranes."""
    x, y = samples(random_residual_spec(5), 6, 1)
    with targets.learner(program) as session:
        session.learn(x, y, batch=3)
        assert isinstance(session, SimulatorSession)
        simulator = session._simulator
        assert isinstance(simulator, GraphSimulator)
        return session.memory(), simulator.engine.numbers.wide


def assert_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value, err_msg=name)


@pytest.mark.parametrize("code", ["graded", "sigma-delta", "spike"])
def test_integers_learn_the_same_in_short_and_in_long_numbers(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = program_of(code)
    short, kind = learnt(program)
    assert kind == torch.float32
    monkeypatch.setattr(engine.Engine, "runs_compiled", False)
    assert_same(short, learnt(program)[0])
    monkeypatch.setattr(arithmetic, "learns_between_samples", lambda _: False)
    long, kind = learnt(program)
    assert kind == torch.float64
    assert_same(short, long)


@pytest.mark.parametrize("code", ["graded", "spike"])
def test_so_do_those_of_a_dense_network(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, (x, y) = plastic(Network(digits_dense(), 0), code), samples(digits_dense(), 40, 1)
    memories = []
    for _ in range(2):
        with targets.learner(program) as session:
            session.learn(x, y, batch=10)
            memories.append(session.memory())
        monkeypatch.setattr(engine.Engine, "runs_compiled", False)
        monkeypatch.setattr(arithmetic, "learns_between_samples", lambda _: False)
    assert_same(*memories)


@pytest.mark.parametrize("code", ["graded", "spike"])
def test_a_sum_that_is_too_long_is_made_in_longer_numbers_before_it_comes(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = program_of(code)
    short, _ = learnt(program)
    monkeypatch.setattr(engine, "SINGLE", 0.0)
    long, kind = learnt(program)
    assert kind == torch.float64
    assert_same(short, long)


def test_weights_that_grow_too_large_on_the_way_change_no_integer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first batches fit, a later one does not."""
    program = program_of("graded")
    wanted, kind = learnt(program)
    assert kind == torch.float32
    fits = iter([True, False])
    clamp = engine.Batch.clamp
    monkeypatch.setattr(engine.Batch, "clamp", lambda *a: clamp(*a) and next(fits, True))
    found, kind = learnt(program)
    assert kind == torch.float64
    assert_same(wanted, found)


def test_float32_learns_about_the_same_as_float64() -> None:
    double, kind = learnt(program_of("graded", None))
    assert kind == torch.float64
    single, kind = learnt(program_of("graded", None, precision="float32"))
    assert kind == torch.float32
    for name, value in double.items():
        np.testing.assert_allclose(single[name], value, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("name", "value"), [("precision", "float16"), ("device", "tpu")])
def test_another_precision_or_device_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}': is '{value}'; choose from "):
        program_of("graded", None, **{name: value})

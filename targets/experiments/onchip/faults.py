"""Arrays that err: synapses that stick, neurons that are dead, weights that drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from compilers.program import Program
from ep_neuro.errors import ConfigError

DEAD_BIAS = -64.0
"""Bias of a dead neuron in box heights: below what any drive lifts, within a state of 24 bits."""

DAY = 86400.0
"""Seconds."""

FIRST_READ = 20.0
"""Seconds from programming to the first read, from which the power law of drift counts."""

Stuck = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By weight id: which synapses are stuck (bool), and at which values (units of the weight)."""


@dataclass(frozen=True, eq=False)
class Damaged:
    """A program on a damaged array.

    Attributes
    ----------
    program : Program
        With the stuck values in its weights and the dead neurons silent.
    stuck : mapping
        Synapses that no learning moves; see `Stuck`.
    dead : mapping of ndarray of bool
        Neurons that never leave the lower end of their box, by population.
    """

    program: Program
    stuck: Stuck
    dead: Mapping[str, np.ndarray]


def damage(
    program: Program,
    *,
    stuck: float = 0.0,
    dead: float = 0.0,
    at: Literal["zero", "random"] = "random",
    seed: int = 0,
) -> Damaged:
    """`program` on an array of which a share of the synapses and of the neurons does not work.

    A synapse sticks in both directions: its weight is one device. The output's neurons live, since
    an answer that cannot be given cannot be learnt.

    Parameters
    ----------
    program : Program
        In floating point or in integers; where it learns, the stuck synapses do not.
    stuck : float
        Share of the synapses of each weight that keep one value for ever.
    dead : float
        Share of the neurons of each hidden population that never send.
    at : {"zero", "random"}
        Where synapses stick: open, or at a value drawn evenly from the range of their weight.
    seed : int
        Of the choice.

    Raises
    ------
    ConfigError
        If a share is not in [0, 1], or `at` is neither.
    """
    _refuse(stuck, dead, at)
    generator = np.random.default_rng([seed, 5])
    graph = program.graph
    arrays = dict(graph.arrays)
    held = {}
    for weight in graph.ties:
        mask = _some(generator, arrays[weight].shape, stuck)
        values = _stuck_values(generator, arrays[weight], at)
        held[weight] = (mask, values)
        arrays[weight] = np.where(mask, values, arrays[weight])
    populations, lost = [], {}
    for p in graph.populations:
        if p in graph.neurons and p.name != graph.output:
            lost[p.name] = _some(generator, p.shape, dead)
            one = 1 if p.state is None else p.state.one
            old = np.zeros(p.shape, np.float32 if p.state is None else np.int32)
            old = old if p.bias is None else arrays[p.bias]
            p = replace(p, bias=p.bias or f"bias/{p.name}")
            silent = np.asarray(DEAD_BIAS * one, old.dtype)
            arrays[str(p.bias)] = np.where(lost[p.name], silent, old)
        populations.append(p)
    masks = {name: f"mask/{name}" for name, (mask, _) in held.items() if mask.any()}
    arrays |= {key: (~held[name][0]).astype(np.int32) for name, key in masks.items()}
    broken = graph.with_arrays(
        populations=tuple(populations),
        arrays=arrays,
        plasticity=tuple(replace(p, mask=masks.get(p.weight, p.mask)) for p in graph.plasticity),
    )
    return Damaged(replace(program, graph=broken), held, lost)


def _refuse(stuck: float, dead: float, at: str) -> None:
    for name, share in (("stuck", stuck), ("dead", dead)):
        if not 0 <= share <= 1:
            raise ConfigError(f"damage, {name}", f"{share:g} is no share", "give 0 to 1")
    if at not in ("zero", "random"):
        raise ConfigError("damage, at", f"'{at}' is no value", "choose from zero, random")


def _some(generator: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    """Exactly `share` of the elements, rounded, chosen evenly."""
    mask = np.zeros(int(np.prod(shape)), bool)
    mask[: round(share * mask.size)] = True
    return generator.permutation(mask).reshape(shape)


def _stuck_values(generator: np.random.Generator, weight: np.ndarray, at: str) -> np.ndarray:
    if at == "zero":
        return np.zeros_like(weight)
    largest = np.abs(weight).max(initial=0)
    if np.issubdtype(weight.dtype, np.integer):
        return generator.integers(-largest, largest + 1, weight.shape).astype(weight.dtype)
    return generator.uniform(-largest, largest, weight.shape).astype(weight.dtype)


# --- drift ---------------------------------------------------------------------------------------


def drift(
    program: Program,
    *,
    seconds: float = DAY,
    exponent: float = 0.055,
    spread: float = 0.015,
    seed: int = 0,
) -> Program:
    """`program` some time after its weights were written to phase-change memory.

    A weight falls as ``W(t) = W ((t + t0) / t0)^-nu``, each device with a ``nu`` of its own
    (Joshi et al. 2020, Nature Communications 11, 2473; its figures are the defaults of
    `targets.crossbar` as well); integer weights are rounded anew. Biases are digital, and stay.

    Parameters
    ----------
    program : Program
        In floating point or in integers.
    seconds : float
        Time since programming.
    exponent, spread : float
        Mean and standard deviation of ``nu`` over the devices, which is never below 0.
    seed : int
        Of the devices.

    Raises
    ------
    ConfigError
        If a number is below 0.
    """
    for name, value in (("seconds", seconds), ("exponent", exponent), ("spread", spread)):
        if not 0 <= value < np.inf:
            raise ConfigError(
                f"drift, {name}", f"{value:g} is below 0 or infinite", "give 0 or more"
            )
    generator = np.random.default_rng([seed, 7])
    arrays = dict(program.graph.arrays)
    for weight in program.graph.ties:
        old = arrays[weight]
        nu = np.maximum(exponent + spread * generator.standard_normal(old.shape), 0)
        fallen = old * ((seconds + FIRST_READ) / FIRST_READ) ** -nu
        whole = np.issubdtype(old.dtype, np.integer)
        arrays[weight] = (np.rint(fallen) if whole else fallen).astype(old.dtype)
    return replace(program, graph=program.graph.with_arrays(arrays=arrays))

"""What `Session.settle` is given, checked once for all targets: inputs, targets, probes, phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from compilers.ir.bounds import BOUNDS
from compilers.ir.graph import Graph, Phase, Population, Source, Spiking
from ep_neuro.deployment.nudgeable import refuse_unnudgeable
from ep_neuro.errors import DataError, GraphError, TargetError, nearest


@dataclass(frozen=True)
class Probe:
    """One variable of one population that is recorded at every step."""

    population: str
    variable: str

    @property
    def name(self) -> str:
        """``population.variable``."""
        return f"{self.population}.{self.variable}"


@dataclass(frozen=True)
class RunRequest:
    """A checked call of `Session.settle`."""

    x: np.ndarray
    """Inputs, float64 (N, *input shape), raw units."""
    y: np.ndarray | None
    """Targets of the nudge, float64 (N, *output shape), graph units."""
    phases: tuple[Phase, ...]
    """The phases to run, with the steps to run."""
    probes: tuple[Probe, ...]
    """What to record."""
    steps: int | None = None
    """What replaced the lengths of the phases; None: nothing."""
    updates: bool = False
    """Count the membranes that change in the first phase."""


def prepare(
    graph: Graph,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    steps: int | None = None,
    probes: Sequence[str] = (),
    updates: bool = False,
) -> RunRequest:
    """Check the arguments of `Session.settle` against `graph`.

    Raises
    ------
    DataError
        If `x` or `y` has the wrong shape, no samples, labels out of range, or values that are
        not finite numbers.
    TargetError
        If a probe does not exist or `steps` is out of bounds (`compilers.ir.bounds`).
    GraphError
        If the graph has not exactly one input, has no phase, a phase starts from one that does
        not precede it, or `y` is given and no target nudges by the graph's cost.
    """
    if y is not None:
        refuse_unnudgeable(graph.name, graph.cost)
    if len(graph.sources) != 1:
        problem = f"it has {len(graph.sources)} input populations, and a run feeds exactly 1"
        raise GraphError(f"graph '{graph.name}'", problem, "give it one Source population")
    inputs = _finite("input x", x)
    shape = graph.sources[0].shape
    if inputs.ndim == 0 or inputs.shape[1:] != shape:
        takes = ", ".join(map(str, ("N", *shape)))
        problem = f"shape {list(inputs.shape)} where the network takes [{takes}]"
        raise DataError("input x", problem, "reshape the data")
    if len(inputs) == 0:
        raise DataError("input x", "it holds 0 samples", "give at least one")
    targets = None if y is None else _targets(graph, y, len(inputs))
    phases = _phases(graph, y is not None, steps)
    return RunRequest(inputs, targets, phases, _probes(graph, probes), steps, updates)


def one_hot(graph: Graph, labels: np.ndarray) -> np.ndarray:
    """Labels (N,) as targets (N, classes) in real units: 1 for the class, 0 for the others."""
    classes = graph.population(graph.output).size
    if labels.min() < 0 or labels.max() >= classes:
        problem = f"labels from {labels.min()} to {labels.max()} for {classes} classes"
        raise DataError("target y", problem, f"use labels 0 to {classes - 1}")
    return np.eye(classes)[labels]


def variables(population: Population) -> tuple[str, ...]:
    """Names of the variables of `population` that can be probed; none for an input."""
    if isinstance(population.dynamics, Source):
        return ()
    if isinstance(population.dynamics, Spiking):
        return ("v", "u", "message")
    return ("v", "z", "message")


def _finite(subject: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        problem = f"type {array.dtype} is not a real number"
        raise DataError(subject, problem, "give an array of numbers")
    array = array.astype(np.float64)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        problem = f"{bad} of {array.size} values are NaN or infinite"
        raise DataError(subject, problem, "clean the data")
    return array


def _targets(graph: Graph, y: np.ndarray, samples: int) -> np.ndarray:
    population = graph.population(graph.output)
    values = _finite("target y", y)
    if values.shape == (samples,):
        labels = values.astype(np.int64)
        if (labels != values).any():
            raise DataError("target y", "labels are not whole numbers", "give classes, or one-hot")
        values = one_hot(graph, labels)
    elif values.shape not in ((samples, population.size), (samples, *population.shape)):
        problem = f"shape {list(values.shape)} for {samples} samples of {population.size} classes"
        raise DataError("target y", problem, f"give [{samples}] or [{samples}, {population.size}]")
    readout = population.readout
    return (values.reshape(samples, *population.shape) - readout.offset) / readout.gain


def _phases(graph: Graph, nudged: bool, steps: int | None) -> tuple[Phase, ...]:
    if not graph.phases:
        raise GraphError(f"graph '{graph.name}'", "it has no phase", "give it a free phase")
    low, high = BOUNDS[Phase, "steps"]
    if steps is not None and not low <= steps <= high:
        raise TargetError("steps", f"{steps} is not in {low} to {high:,}", "choose one in between")
    phases = graph.phases if nudged else graph.phases[:1]
    before: set[str] = set()
    for phase in phases:
        if phase.start is not None and phase.start not in before:
            problem = f"it starts from '{phase.start}', which does not precede it"
            raise GraphError(f"phase '{phase.name}'", problem, "reorder the phases")
        before.add(phase.name)
    return tuple(p if steps is None else replace(p, steps=int(steps)) for p in phases)


def _probes(graph: Graph, names: Sequence[str]) -> tuple[Probe, ...]:
    choices = [Probe(p.name, variable).name for p in graph.populations for variable in variables(p)]
    if isinstance(names, str):
        names = (names,)
    for name in names:
        if name not in choices:
            problem = "the graph has no such variable"
            raise TargetError(f"probe '{name}'", problem, nearest(name, choices))
    return tuple(Probe(*name.split(".", 1)) for name in dict.fromkeys(names))

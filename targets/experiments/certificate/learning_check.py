"""A certificate for a program that learns: its updates against the exact gradient, what limits."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter

import targets
from compilers.ir.graph import Graph
from compilers.ir.plasticity import DIFFERENCE
from compilers.passes.units import unit_power
from compilers.program import Program
from ep_neuro.data.datasets import Split
from ep_neuro.errors import CheckFailed, ConfigError, ProgramError
from targets.experiments.certificate.engine_limits import EngineLimit, engine_limits
from targets.experiments.certificate.lifted_limits import ALL, LIFTS, Way, lifts
from targets.experiments.certificate.updates import Directions, exact, learnt_by, written
from targets.experiments.comparison.compare import fit, weight_bits
from targets.experiments.onchip.schedule import Plan
from targets.interface.protocols import Progress

LEAST_COSINE = 0.7
"""Cosine of a coupling at which half of its update, in squares, is the gradient and half is not."""

GOOD_COSINE = 0.99
"""Cosine above which nothing is said to limit a coupling."""

TOLD, ALIKE = 0.01, 0.9
"""Least gain of a cosine that is one, and share of the best gain from which on two are alike."""

MATTERS = 0.1
"""Least size of a slope whose sign matters, in root mean squares of its coupling's."""


@dataclass(frozen=True)
class CouplingCheck:
    """The update of one weight or bias against the exact gradient."""

    name: str
    """Id of the weight or bias."""
    population: str
    """The one that it drives."""
    depth: int
    """Couplings from there to the output, on the shortest way."""
    cosine: float | None
    """To the negative gradient, of the update before it is rounded to the steps of the weight; None
    where the gradient is zero."""
    signs: float | None
    """Share of the slopes that matter (`MATTERS`) whose sign the update has."""
    norm: float | None
    """Length of the update over that of the gradient."""
    written: float | None
    """Cosine of what one commit writes in integers, at the rate that the program has come to."""
    commits: float | None
    """Commits after which the rounding of the weights, at random, weighs as much as the updates."""
    lifted: Mapping[str, float]
    """The cosine with one limit lifted, by its name, and with ``all``."""
    limit: str
    """What limits the cosine most: one of `LIFTS`, ``several``, or ``the network`` if it stays with
    all of them lifted. Above `GOOD_COSINE` ``nothing``, or ``bits`` if those of the weight are too
    few for one commit to be as true."""

    @property
    def told(self) -> str:
        """The limit, and what lifting it brings."""
        if self.limit in ("nothing", "no gradient"):
            return self.limit
        if self.limit == "bits":
            return f"bits, of one commit ({self.written:.2f} -> {self.cosine:.2f} over many)"
        name = self.limit if self.limit in LIFTS else ALL
        how = LIFTS[name].how if name in LIFTS else "with all lifted"
        return f"{self.limit} ({self.cosine:.2f} -> {self.lifted[name]:.2f} {how})"

    @property
    def remedy(self) -> str:
        """What one does about the limit."""
        if self.limit in LIFTS:
            return f"{self.limit} limit it: {LIFTS[self.limit].remedy}"
        if self.limit == "several":
            return "several limits act together: take more steps, finer messages, a smaller beta"
        return "its equilibria are not those in floating point: scale the weights down"


@dataclass(frozen=True)
class LearningCheck:
    """What `check_learning` found.

    Attributes
    ----------
    program : Program
    learnt : int
        Samples that it had learnt before.
    samples : int
        Of the batch.
    update_cosine : float
        Of all weights and biases, in units.
    unsettled : float
        Share of the samples whose equilibrium was not found in floating point.
    couplings : tuple of CouplingCheck
        Those next to the output first.
    engine : tuple of EngineLimit
    """

    program: Program
    learnt: int
    samples: int
    update_cosine: float
    unsettled: float
    couplings: tuple[CouplingCheck, ...]
    engine: tuple[EngineLimit, ...]

    @property
    def worst(self) -> CouplingCheck:
        """The coupling of the least cosine."""
        known = [c for c in self.couplings if c.cosine is not None]
        return min(known, key=lambda c: c.cosine or 0.0)

    @property
    def holds(self) -> bool:
        """Whether the cosine of every coupling is above `LEAST_COSINE`."""
        return (self.worst.cosine or 0.0) > LEAST_COSINE

    @property
    def remedy(self) -> str:
        """What one does about the limit of the worst coupling."""
        differs = self.program.graph.plasticity[0].rule.differs
        if self.worst.limit != "messages" or differs:
            return self.worst.remedy
        louder = f"{DIFFERENCE.name}, whose messages hold what is small (reference, lava)"
        return f"{self.worst.remedy}, or compile with --code graded --learn {louder}"

    def fields(self) -> dict[str, Any]:
        """Plain data, as in the command line's contract.

        ``holds`` is of the updates alone, ``engine_holds`` of the widths that the engine has.
        """
        graph = self.program.graph
        return {
            "target": self.program.target,
            "code": graph.encoding,
            "bits": weight_bits(self.program),
            "rule": graph.plasticity[0].rule.name,
            "learnt_samples": self.learnt,
            "samples": self.samples,
            "update_cosine": self.update_cosine,
            "worst": self.worst.name,
            "worst_cosine": self.worst.cosine,
            "unsettled": self.unsettled,
            "holds": self.holds,
            "engine_holds": all(e.holds for e in self.engine),
            "couplings": [{**asdict(c), "told": c.told} for c in self.couplings],
            "engine": [{**asdict(e), "holds": e.holds} for e in self.engine],
        }


def check_learning(
    program: Program, split: Split, *, progress: Progress | None = None
) -> LearningCheck:
    """Compare what `program` would write for one batch with the exact gradient.

    A program says where it stands: one that `compile` wrote is at the start of learning, one that
    `learn` wrote late in it.

    Parameters
    ----------
    program : Program
        With plasticity.
    split : Split
        The batch.
    progress : callable, optional
        Called with updates computed, and updates in all.

    Raises
    ------
    TargetError, GraphError
        As `targets.learner`.
    CheckFailed
        If there is no gradient to compare with.
    """
    split = fit(split, program.graph)
    x, y, learnt = split.x, split.y, _learnt_samples(program)
    with targets.learner(program) as session:
        graph = session.learnt().graph
    ways: dict[str, Way] = {"": partial(learnt_by, program), **lifts(program)}
    found = {}
    truth, unsettled = exact(graph, x, y)
    if not any(slope.any() for slope in truth.values()):
        problem = (
            "the exact gradient is zero: every answer is at its target or at an end of its box"
        )
        remedy = "check other samples (--seed)"
        masks = [r.mask for r in graph.plasticity]
        if not any(name is None or graph.arrays[name].any() for name in masks):
            problem, remedy = "every synapse that would learn is stuck", "let some go (the masks)"
        raise CheckFailed(f"program '{graph.name}'", problem, remedy)
    for done, (name, way) in enumerate(ways.items()):
        found[name] = way(x, y)
        if progress is not None:
            progress(done + 1, len(ways) + 1)
    stored = written(program, x, y, _rate_scale(program)) if graph.quantised else None
    rows = [_row(graph, name, truth[name], found, stored) for name in truth]
    return LearningCheck(
        program=program,
        learnt=learnt,
        samples=len(split),
        update_cosine=_in_units(graph, found[""], truth),
        unsettled=unsettled,
        couplings=tuple(sorted(rows, key=lambda row: row.depth)),
        engine=engine_limits(program),
    )


# --- figures -----------------------------------------------------------------------------------


def _row(
    graph: Graph,
    name: str,
    truth: np.ndarray,
    found: Mapping[str, Directions],
    stored: Directions | None,
) -> CouplingCheck:
    update = found[""][name]
    population = graph.tie(name).post if name in graph.ties else _biased(graph, name)
    length = float(np.linalg.norm(truth))
    cosine = _cosine(update, truth)
    lifted = {k: c for k, v in found.items() if k and (c := _cosine(v[name], truth)) is not None}
    put = None if stored is None else _cosine(stored[name], truth)
    large = np.abs(truth) >= MATTERS * length / truth.size**0.5
    return CouplingCheck(
        name=name,
        population=population,
        depth=_depths(graph)[population],
        cosine=cosine,
        signs=float((np.sign(update) == np.sign(truth))[large].mean()) if length else None,
        norm=float(np.linalg.norm(update)) / length if length else None,
        written=put,
        commits=max(0.0, (cosine / put) ** 2 - 1) if cosine and put and cosine * put > 0 else None,
        lifted=lifted,
        limit=_limit(cosine, lifted, put),
    )


def _limit(cosine: float | None, lifted: Mapping[str, float], put: float | None) -> str:
    """What limits `cosine`, by what it is with one limit lifted, and as it is `put` down."""
    if cosine is None:
        return "no gradient"
    if cosine > GOOD_COSINE:
        return "nothing" if put is None or put > GOOD_COSINE else "bits"
    best = max(value for name, value in lifted.items() if name != ALL)
    if best > GOOD_COSINE or best - cosine >= TOLD:
        enough = cosine + ALIKE * (best - cosine)
        return next(n for n in LIFTS if lifted.get(n, -1.0) >= enough)
    return "several" if lifted[ALL] - cosine >= TOLD else "the network"


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """Cosine of two arrays; 0 where only `a` vanishes, None where `b` does."""
    if not b.any():
        return None
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b))) if a.any() else 0.0


def _in_units(graph: Graph, update: Directions, truth: Directions) -> float:
    a, b = (
        np.concatenate([v.ravel() * 2.0 ** (unit_power(graph, k) / 2) for k, v in one.items()])
        for one in ({k: update[k] for k in truth}, truth)
    )
    return _cosine(a, b) or 0.0


def _biased(graph: Graph, bias: str) -> str:
    return next(p.name for p in graph.neurons if p.bias == bias)


def _depths(graph: Graph) -> dict[str, int]:
    """Couplings from each population to the output, on the shortest way."""
    found, ends = {graph.output: 0}, [graph.output]
    for end in ends:
        for tie in graph.tied():
            if tie.post == end and tie.pre not in found:
                found[tie.pre] = found[end] + 1
                ends.append(tie.pre)
    return found


# --- how far it has learnt ---------------------------------------------------------------------


def _plan(program: Program) -> Plan | None:
    """The plan by which `learn` wrote the program; None if it did not."""
    noted = {
        key.removeprefix("learnt."): value
        for key, value in program.provenance.items()
        if key.startswith("learnt.")
    }
    if not noted:
        return None
    try:
        read = {key: ast.literal_eval(value) for key, value in noted.items()}
        return TypeAdapter(Plan).validate_python(asdict(Plan(**read)))
    except (ConfigError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        told = ", ".join(f"{key} {value!s:.20}" for key, value in noted.items())
        subject, problem = f"program '{program.graph.name}'", f"its notes 'learnt.*' ({told:.200})"
        remedy = "compile the model again, and let that learn"
        raise ProgramError(subject, f"{problem} are of no plan", remedy) from None


def _learnt_samples(program: Program) -> int:
    plan = _plan(program)
    return plan.samples if plan else 0


def _rate_scale(program: Program) -> float:
    plan = _plan(program)
    return plan.rate_scale(plan.samples) if plan else 1.0

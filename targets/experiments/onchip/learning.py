"""On-chip learning from start to end: samples in order, points of measurement, state to resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import targets
from compilers.ir.graph import Graph
from compilers.program import Program, save_program
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.errors import ConfigError
from ep_neuro.storage.atomic import remove_leftovers
from ep_neuro.training.metrics import Record, column, write_metrics
from ep_neuro.training.run_directory import claimed
from targets.experiments.comparison.compare import fit, weight_bits
from targets.experiments.onchip import run_state
from targets.experiments.onchip.gradient_alignment import (
    compare_updates,
    ep_step,
    powers_of,
    watched_synapses,
    weights_of,
)
from targets.experiments.onchip.mistakes import LOOKED_AT, is_behind, summed
from targets.experiments.onchip.schedule import Plan
from targets.interface.protocols import LearnResult, RunResult
from targets.interface.session import Session

COMPARED = 100
"""Samples over which updates are compared with the float gradient, at each point."""

HELD_OUT = 500
"""Most samples of the validation split that are settled at each point."""

COSTED = 32
"""Samples from whose events the energy is estimated."""

Monitor = Callable[[int, int, str], None]
"""Told of samples done, samples in all, and the accuracies so far in words."""


@dataclass(frozen=True, eq=False)
class Learnt:
    """What came of a learning run.

    Attributes
    ----------
    program : Program
        With the learnt weights and biases.
    history : list of Record
        The points, the first before any learning.
    accuracy_before, accuracy_after : float
        Of the test samples.
    energy_joule : float or None
        Of all samples, each one learning step on the nominal hardware: an estimate.
    figures : list of Path
    energy_source : str
        Origin of the constants of the estimate.
    """

    program: Program
    history: list[Record]
    accuracy_before: float
    accuracy_after: float
    energy_joule: float | None
    figures: list[Path]
    energy_source: str = ""

    def fields(self) -> dict[str, Any]:
        """Plain data, as in the command line's contract."""
        learnt = [r for r in self.history if r["samples"] > 0]
        share = np.diff([0.0, *column(learnt, "samples")])

        def mean(key: str) -> float | None:
            values = column(learnt, key)
            known = np.isfinite(values)
            return float(np.average(values[known], weights=share[known])) if known.any() else None

        return {
            "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after,
            "samples": int(self.history[-1]["samples"]),
            "taught": int(sum(r.get("taught", 0.0) for r in learnt)),
            "weight_bits": weight_bits(self.program),
            "sign_agreement": mean("sign_agreement"),
            "update_cosine": mean("cosine"),
            "events_per_sample": mean("events"),
            "synops_per_sample": mean("synops"),
            "energy_joule": self.energy_joule,
            "clipped": int(sum(r["clipped"] for r in learnt)),
            "seconds": float(sum(r["seconds"] for r in learnt)),
        }


def learn(
    program: Program,
    data: Dataset,
    plan: Plan,
    *,
    test: Split | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    compared: int = COMPARED,
    monitor: Monitor | None = None,
) -> Learnt:
    """Let a plastic program learn on its target.

    Parameters
    ----------
    program : Program
        With plasticity; see `compilers.passes.make_plastic`.
    data : Dataset
        Learns from ``train``; ``val`` tells how far it is.
    plan : Plan
        How many samples, in which batches and order.
    test : Split, optional
        Settled before and after, and at no other time; ``data.test`` by default.
    out : path, optional
        Run directory: ``last`` (to resume from), ``metrics.jsonl``, and figures.
    resume : bool
        Go on from ``out/last``, if it is there, with the same weights as without interruption.
    force : bool
        Replace the run that stands in `out`.
    compared : int
        Samples over which updates are compared with the float gradient, at each point; 0: none.
    monitor : callable, optional
        Told of every sample.

    Raises
    ------
    ConfigError
        If `resume` meets another plan or program, or `out` holds a run and neither `resume` nor
        `force` is set, or something else than a run; if the plan augments what are no images.
    TargetError
        If the target cannot learn.
    """
    (source,) = program.graph.sources
    if plan.augment and len(source.shape) != 3:
        raise ConfigError(
            "learning, augment",
            f"program '{program.graph.name}' takes {list(source.shape)}, not images",
            "learn without augmentation, or give its input the shape [channels, height, width]",
        )
    with (
        claimed(out, run_state.MARKER, resume=resume, force=force),
        targets.learner(program) as session,
    ):
        run = _Run(session, program, data, plan, test or data.test, out, compared, monitor)
        if resume:
            run.restore()
        run.start()
        for stop in plan.stops:
            if stop > run.done:
                run.advance(stop)
        return run.finish()


class _Run:
    """The state of a learning run between points."""

    def __init__(
        self,
        session: Session,
        program: Program,
        data: Dataset,
        plan: Plan,
        test: Split,
        out: Path | None,
        compared: int,
        monitor: Monitor | None,
    ) -> None:
        self.compared = compared
        self.session, self.program, self.plan = session, program, plan
        graph = program.graph
        self.train, self.val, self.test = (fit(s, graph) for s in (data.train, data.val, test))
        self.order = plan.order(len(self.train))
        self.val = self.val.head(HELD_OUT)
        self.watched = watched_synapses(graph, plan.seed)
        self.out, self.monitor = out, monitor or (lambda *_: None)
        self.history: list[Record] = []
        self.seen: run_state.Arrays = {}
        self.before = float("nan")
        # Places of samples: learnt since the last point, and to be learnt in the next batch.
        self.taught: list[int] = []
        self.waiting: list[int] = []

    @property
    def done(self) -> int:
        """Samples learnt."""
        return int(self.history[-1]["samples"]) if self.history else 0

    def start(self) -> None:
        """Measure what there is before learning, unless the run was resumed."""
        if self.out is not None:
            remove_leftovers(self.out)
        if not self.history:
            self.before = self._accuracy(self.test)
            self._note({"samples": 0.0})
        elif self.out is not None:
            # A run that was stopped between the two had saved a point and not yet told of it.
            write_metrics(self.history, self.out)

    def advance(self, stop: int) -> None:
        """Learn up to `stop`; over the first samples of the way, compare with the gradient."""
        first, batch = self.done, self.plan.batch
        compared = min(stop, first + -(-self.compared // batch) * batch)
        record: Record = {"samples": float(stop), "compared_from": float(first)}
        parts = []
        self.taught = []
        if compared > first:
            graph = self._graph()
            parts = self._learn(first, compared)
            if self.taught:
                step = ep_step(graph, self._samples(self.taught))
                now, powers = weights_of(self._graph()), powers_of(graph)
                agreement = compare_updates(weights_of(graph), now, step, powers)
                record |= {"sign_agreement": agreement.sign, "cosine": agreement.cosine}
        if compared < stop:
            parts += self._learn(compared, stop)
        record["taught"] = float(len(self.taught))
        self._note({**record, **_joined(parts, self.train.y[self.order[first:stop]])})

    def finish(self) -> Learnt:
        """Test what was learnt, draw, and hand over the program."""
        few, target = self.val.head(COSTED), targets.get(self.program)
        estimate = target.estimate(self.program, self.session.settle(few.x, few.y))
        energy, taught, answered = estimate.learning_joule, float(self.done), 0.0
        if self.plan.margin is not None:
            taught = sum(record["taught"] for record in self.history[1:])
            answered = (estimate.energy_joule or 0.0) * self.done
        title = f"{self.program.graph.name} learns on {self.program.target}"
        return Learnt(
            program=self._learnt(),
            history=self.history,
            accuracy_before=self.before,
            accuracy_after=self._accuracy(self.test),
            energy_joule=None if energy is None else energy * taught + answered,
            figures=run_state.draw(title, self.history, self.seen, self.out) if self.out else [],
            energy_source=estimate.source,
        )

    # --- measuring -----------------------------------------------------------------------------

    def _graph(self) -> Graph:
        return self.session.learnt().graph

    def _samples(self, places: Sequence[int]) -> Split:
        """Those that come at `places`."""
        some = self.train.at(self.order[np.asarray(places, int)])
        return Split(self.plan.augmented(some.pixels, places), some.y)

    def _learn(self, first: int, stop: int) -> list[LearnResult]:
        some = self._all if self.plan.margin is None else self._mistakes
        return [some(*ends) for ends in self.plan.stretches(first, stop)]

    def _all(self, first: int, stop: int) -> LearnResult:
        return self._teach(range(first, stop), first, self._tell)

    def _mistakes(self, first: int, stop: int) -> LearnResult:
        """Answer all, and learn in whole batches those that are not answered well."""
        answers: list[RunResult] = []
        learnt, batch = [], self.plan.batch
        for begin in range(first, stop, max(batch, LOOKED_AT)):
            places = range(begin, min(begin + max(batch, LOOKED_AT), stop))
            some = self._samples(places)
            answers.append(self.session.settle(some.x))
            behind = is_behind(answers[-1].free.outputs, some.y, self.plan.margin or 0.0)
            self.waiting += [place for place, wrong in zip(places, behind, strict=True) if wrong]
            count = len(self.waiting) // batch * batch
            chosen, self.waiting = self.waiting[:count], self.waiting[count:]
            if chosen:
                learnt.append(self._teach(chosen, begin, lambda _: None))
            self._tell(places.stop)
        return summed(answers, learnt)

    def _teach(self, places: Sequence[int], begin: int, told: Callable[[int], None]) -> LearnResult:
        some = self._samples(places)
        self.taught += places
        return self.session.learn(
            some.x,
            some.y,
            batch=self.plan.batch,
            rate_scale=self.plan.rate_scale(begin),
            progress=lambda done, _: told(begin + done),
        )

    def _tell(self, done: int) -> None:
        self.monitor(done, self.plan.samples, _in_words(self.history[-1]))

    def _accuracy(self, split: Split) -> float:
        return self.session.settle(split.x).accuracy(split.y)

    def _note(self, record: Record) -> None:
        """Take down a point: `record`, the held-out accuracy, and the watched synapses."""
        self.history.append({**record, "val_accuracy": self._accuracy(self.val)})
        weights = weights_of(self._graph())
        row = {name: weights[name].ravel()[chosen][None] for name, chosen in self.watched.items()}
        self.seen = {
            k: np.concatenate([self.seen[k], now]) if self.seen else now for k, now in row.items()
        }
        if self.out is not None:
            facts = {**self._identity(), "before": self.before, "history": self.history}
            facts["waiting"] = self.waiting
            saved = run_state.RunState(self.session.memory(), self.seen, facts)
            run_state.save_state(saved, self.out / run_state.LAST)
            write_metrics(self.history, self.out)

    def _learnt(self) -> Program:
        program = self.session.learnt()
        notes = {f"learnt.{key}": str(value) for key, value in asdict(self.plan).items()}
        # Its files are those of a graph that did not learn yet.
        now = targets.get(program).emit(program.graph)
        notes = {**program.provenance, **notes}
        return replace(program, graph=now.graph, files=now.files, provenance=notes)

    # --- on disk -------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that it resumes."""
        plan = {**self.plan.facts, "augment": self.plan.facts["augment"] or None}
        # A rate that falls to the end depends on where the end is, and on the points on the way.
        fixed = ("samples", "points") if self.plan.anneal not in (None, 1) else ()
        kept = ("batch", "seed", "anneal", "augment", "margin", *fixed)
        return {"program": self.program.digest(), **{key: plan[key] for key in kept}}

    def restore(self) -> None:
        """Go back to the last point on disk, if there is one."""
        saved = None if self.out is None else run_state.load_state(self.out / run_state.LAST)
        if saved is None:
            return
        where = f"--resume {self.out}"
        for key, mine in self._identity().items():
            if saved.facts.get(key) != mine:
                problem = f"its {key} was {saved.facts.get(key)}, and now is {mine}"
                raise ConfigError(where, problem, "repeat it as it was, or learn without --resume")
        self.history = [dict(record) for record in saved.facts["history"]]
        if self.done > self.plan.samples or (
            self.done % self.plan.batch and self.done < self.plan.samples
        ):
            problem = f"{self.done} samples are learnt, and {self.plan.samples} are asked for"
            raise ConfigError(where, problem, "ask for more, in whole batches")
        self.before, self.seen = saved.facts["before"], dict(saved.probes)
        self.waiting = list(saved.facts.get("waiting", ()))
        self.session.restore(saved.memory)


def _joined(parts: list[LearnResult], labels: np.ndarray) -> Record:
    """Several stretches of learning as one record."""
    sizes = [len(part.predictions) for part in parts]
    predictions = np.concatenate([part.predictions for part in parts])
    return {
        "running_accuracy": float((predictions == labels).mean()),
        "events": float(np.average([p.events_per_sample for p in parts], weights=sizes)),
        "synops": float(np.average([p.synops_per_sample for p in parts], weights=sizes)),
        "changed": float(np.average([p.changed for p in parts], weights=sizes)),
        "clipped": float(sum(part.clipped for part in parts)),
        "seconds": float(sum(part.seconds for part in parts)),
    }


def _in_words(record: Record) -> str:
    said = f"held out {record['val_accuracy']:.1%}"
    running = record.get("running_accuracy")
    return said if running is None else f"{said}, while learning {running:.1%}"


def write(learnt: Learnt, out: Path) -> dict[str, Any]:
    """Write the learnt program to the directory `out`; the fields of the command line."""
    save_program(learnt.program, out)
    figures = [str(path) for path in learnt.figures]
    return {"program": str(out), **learnt.fields(), "figures": figures}

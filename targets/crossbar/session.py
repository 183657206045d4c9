"""A loaded program: digital neurons around arrays that compute every drive."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compilers.artifact import Program
from compilers.ir import Graph, Phase, Projection, Spiking
from compilers.operators import apply
from ep_neuro.errors import RunError, TargetError
from targets.base import Closing, LearnResult, PhaseResult, Progress, RunResult, closed
from targets.crossbar.analog import Randomness
from targets.crossbar.array import Array
from targets.crossbar.dynamics import State, advance, at_rest
from targets.crossbar.layouts import layout
from targets.crossbar.options import read_options
from targets.crossbar.plan import input_mean, is_forward, sites
from targets.crossbar.record import Record
from targets.crossbar.teacher import Teacher
from targets.inputs import Job, prepare
from targets.lessons import learn
from targets.records import synapses_of

CHUNK_BYTES = 64 << 20
"""Working memory of one batch: lines of the largest array, in and out."""

CONDUCTANCES, NOISE = "conductances/", "noise"
"""Keys of a memory: conductances by id of their weight, and the state of the noise of reads."""

States = Mapping[str, State]


@dataclass(frozen=True)
class Moment:
    """Steps made since rest, and the states then."""

    t: int
    states: States


class CrossbarSession(Closing):
    """Settles inputs on noisy arrays and learns on them; see `targets.base.LearningSession`.

    The arrays are programmed once, when the session opens; noise of reads goes on from call to
    call. A session of the same program and seed repeats all of it.

    Attributes
    ----------
    graph : Graph
        What runs.
    arrays : dict of str to Array
        By projection; both directions of a coupling hold the same one.
    biases : dict of ndarray
        By population, digital; learning changes them.
    fanouts : dict of ndarray
        Synapses that a message of each neuron meets, by population.
    """

    def __init__(self, program: Program) -> None:
        self.graph: Graph = program.graph
        self._program = program
        self._teacher: Teacher | None = None
        options = read_options(program.options)
        self._randomness = Randomness(options.seed)
        self.arrays: dict[str, Array] = {}
        widest = 1
        for n, (site, projections) in enumerate(sites(self.graph, options.conv).items()):
            lines = layout(site.operator, site.pre, site.post, site.kernel, site.conv)
            weight = self.graph.arrays[site.weight]
            array = Array(weight, lines, options, self._randomness, 10_000 * options.seed + n)
            self.arrays |= {p.name: array for p in projections}
            widest = max(widest, site.reads * sum(site.lines))
        self.biases = {p.name: _bias(self.graph, p.name) for p in self.graph.neurons}
        self._mean = input_mean(self.graph)
        self._given_back = {
            p.name: apply(
                p.operator,
                self.graph.arrays[p.weight].astype(np.float64),
                self._mean[None],
                self.graph.population(p.post).shape,
            )
            for p in self.graph.projections
            if p.pre not in self.biases
        }
        if self.graph.plasticity or not options.centre:
            self.read_inputs_as_they_are()
        self._chunk = max(1, CHUNK_BYTES // (8 * widest))
        self.fanouts = {p.name: synapses_of(self.graph, p) for p in self.graph.populations}
        self._depth = max((p.delay for p in self.graph.projections), default=1)
        self._closed = False

    def settle(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        *,
        steps: int | None = None,
        probes: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> RunResult:
        """Settle inputs; see `targets.base.Session.settle`."""
        self._refuse_closed()
        began = time.perf_counter()
        job = prepare(self.graph, x, y, steps=steps, probes=probes)
        samples, parts = len(job.x), []
        for first in range(0, samples, self._chunk):
            part = slice(first, first + self._chunk)
            y_part = None if job.y is None else job.y[part]
            parts.append(self._run(replace(job, x=job.x[part], y=y_part))[0])
            if progress is not None:
                progress(min(first + self._chunk, samples), samples)
        phases = {p.name: PhaseResult.joined([part[p.name] for part in parts]) for p in job.phases}
        return RunResult(phases, time.perf_counter() - began)

    def equilibria(self, x: np.ndarray, y: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """The states that each phase ends with, by phase and population, in graph units.

        Parameters
        ----------
        x, y : ndarray
            Inputs and targets as for `settle`; one batch.

        Raises
        ------
        TargetError
            If neurons spike: their states are rates over time, which this does not collect.
        """
        self._refuse_closed()
        if any(isinstance(p.dynamics, Spiking) for p in self.graph.neurons):
            problem = "spiking neurons have no state to read at the end of a phase"
            raise TargetError(f"graph '{self.graph.name}'", problem, "compile it as graded")
        job = prepare(self.graph, x, y)
        (source,) = self.graph.sources
        _, ends = self._run(job)
        return {
            phase: {source.name: job.x, **{name: s.z for name, s in moment.states.items()}}
            for phase, moment in ends.items()
        }

    def _run(self, job: Job) -> tuple[dict[str, PhaseResult], dict[str, Moment]]:
        (source,) = self.graph.sources
        constant = self.constant(job.x)
        rest = self.rest(len(job.x))
        ends: dict[str, Moment] = {}
        results: dict[str, PhaseResult] = {}
        for phase in job.phases:
            record = Record(self.graph, job, phase, self.fanouts)
            if not results:
                record.count(0, source.name, job.x)
            moment = rest if phase.start is None else ends[phase.start]
            # A network that diverges is reported once, as an error; not by NumPy, at every step.
            with np.errstate(over="ignore", invalid="ignore"):
                for step in range(phase.steps):
                    moment = self.step(moment, constant, phase, job.y)
                    record.take(step, moment.states)
            ends[phase.name], results[phase.name] = moment, record.result()
        return results, ends

    def rest(self, samples: int) -> Moment:
        """The moment before the first step."""
        return Moment(0, {p.name: at_rest(p, samples, self._depth) for p in self.graph.neurons})

    def step(
        self,
        before: Moment,
        constant: Mapping[str, np.ndarray],
        phase: Phase,
        y: np.ndarray | None,
    ) -> Moment:
        """The moment after one step of `phase`, under the `constant` drive of input and bias."""
        drives = dict(constant)
        for p in self.graph.projections:
            if p.pre in before.states:
                held = before.states[p.pre].held[p.delay - 1]
                drives[p.post] = drives[p.post] + p.scale * self._read(p, held)
        if phase.nudge and y is not None:
            output = self.graph.output
            drives[output] = drives[output] + phase.nudge * (y - before.states[output].z)
        t = before.t + 1
        states = {
            p.name: advance(p, before.states[p.name], drives[p.name], t) for p in self.graph.neurons
        }
        return Moment(t, states)

    def constant(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Bias and input drive; the input's arrays are read once and the result is held."""
        drives = {name: np.stack([bias] * len(x)) for name, bias in self.biases.items()}
        for p in self.graph.projections:
            if p.pre not in self.biases:
                drive = self._read(p, x - self._mean) + self._given_back[p.name]
                drives[p.post] = drives[p.post] + p.scale * drive
        return drives

    def read_inputs_as_they_are(self) -> None:
        """Let the mean of the input go through the arrays, whose weights may learn."""
        self._mean = np.zeros_like(self._mean)
        self._given_back = dict.fromkeys(self._given_back, np.zeros(1))

    def _read(self, projection: Projection, states: np.ndarray) -> np.ndarray:
        array = self.arrays[projection.name]
        return (array.forward if is_forward(projection) else array.backward)(states)

    def learn(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch: int = 1,
        rate_scale: float = 1.0,
        progress: Progress | None = None,
    ) -> LearnResult:
        """Learn from samples in their order; see `targets.base.LearningSession.learn`.

        A commit is an ideal write, up to the end of the conductance range; for pulses see
        `targets.crossbar.learning`.
        """
        teacher = self._teach()
        return learn(
            teacher,
            self.graph,
            x,
            y,
            batch=batch,
            rate_scale=rate_scale,
            progress=progress,
        )

    def memory(self) -> dict[str, np.ndarray]:
        """A copy of what learning needs, conductances and the state of the noise included."""
        memory = self._teach().learner.memory()
        for p in self.graph.projections:
            memory[f"{CONDUCTANCES}{p.weight}"] = self.arrays[p.name].conductances()
        return {**memory, NOISE: self._randomness.state()}

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        teacher = self._teach()
        own = {k: v for k, v in memory.items() if k != NOISE and not k.startswith(CONDUCTANCES)}
        needed = {NOISE, *(f"{CONDUCTANCES}{p.weight}" for p in self.graph.projections)}
        if missing := sorted(needed - set(memory)):
            problem = f"'{missing[0]}' is not in the memory"
            raise RunError("memory", problem, "give the memory of a session of this program")
        teacher.learner.restore(own)
        for p in self.graph.projections:
            self.arrays[p.name].restore(memory[f"{CONDUCTANCES}{p.weight}"])
        self._randomness.restore(memory[NOISE])
        self.biases.update(teacher.learner.biases())

    def learnt(self) -> Program:
        """The program with the present weights, as the devices hold them, and biases."""
        return replace(self._program, graph=self._teach().learner.learnt())

    def _teach(self) -> Teacher:
        self._refuse_closed()
        # Made when it is first asked for: most sessions only settle.
        if self._teacher is None:
            self._teacher = Teacher(self)
        return self._teacher

    def weights(self) -> dict[str, np.ndarray]:
        """Weights by id as the devices hold them; where cells share one, their mean."""
        self._refuse_closed()
        return {p.weight: self.arrays[p.name].weights() for p in self.graph.projections}

    def close(self) -> None:
        """Forget the arrays; closing twice is harmless."""
        self._closed = True
        self.arrays, self._teacher = {}, None

    def _refuse_closed(self) -> None:
        if self._closed:
            raise closed()


def _bias(graph: Graph, name: str) -> np.ndarray:
    population = graph.population(name)
    if population.bias is None:
        return np.zeros(population.shape)
    return graph.arrays[population.bias].astype(np.float64)

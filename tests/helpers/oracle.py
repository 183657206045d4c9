"""A second, plain reading of `compilers.ir.graph`: one sample, dense matrices, no batches.

It shares no code with the reference target, so that agreement of the two means something.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from compilers.ir import graph as ir

Step = dict[str, np.ndarray]
"""Values after one step, keyed ``population.variable``, flat."""


def unrolled(graph: ir.Graph, p: ir.Projection) -> np.ndarray:
    """The matrix (post size, pre size) of a projection, entry by entry from the definition."""
    w = graph.arrays[p.weight].astype(np.float64)
    pre, post = graph.population(p.pre).shape, graph.population(p.post).shape
    match p.operator:
        case ir.Dense():
            return w
        case ir.DenseTranspose():
            return w.T
        case ir.Conv(stride, padding):
            return _unrolled_conv(w, pre, post, stride, padding)
        case ir.ConvTranspose(stride, padding):
            return _unrolled_conv(w, post, pre, stride, padding).T


def _unrolled_conv(
    w: np.ndarray, pre: tuple[int, ...], post: tuple[int, ...], stride: int, padding: int
) -> np.ndarray:
    matrix = np.zeros((*post, *pre))
    for i, j, k, l in itertools.product(*map(range, (post[1], post[2], w.shape[2], w.shape[3]))):
        row, column = stride * i + k - padding, stride * j + l - padding
        if 0 <= row < pre[1] and 0 <= column < pre[2]:
            matrix[:, i, j, :, row, column] += w[:, :, k, l]
    return matrix.reshape(math.prod(post), math.prod(pre))


class Sample:
    """One sample on its way through the phases of a graph."""

    def __init__(self, graph: ir.Graph, x: np.ndarray, y: np.ndarray | None = None) -> None:
        self.graph, self.y = graph, y
        self.matrices = {p.name: self._matrix(p) for p in graph.projections}
        (source,) = graph.sources
        self.x = self._input(source, x.ravel().astype(np.float64))
        self.ends: dict[str | None, tuple[int, Step, dict[str, list[np.ndarray]]]] = {
            None: (0, self._rest(), {p.name: [] for p in graph.neurons})
        }

    def phases(self) -> Iterator[tuple[str, list[Step], np.ndarray]]:
        """(phase, values after each step, output in real units)."""
        for phase in self.graph.phases[: None if self.y is not None else 1]:
            t, values, sent = self.ends[phase.start]
            sent = {name: list(messages) for name, messages in sent.items()}
            steps = []
            for _ in range(phase.steps):
                t += 1
                values = self._step(t, values, sent, phase.nudge)
                steps.append(values)
            self.ends[phase.name] = (t, values, sent)
            yield phase.name, steps, self._output(steps, phase.start is None)

    def _step(self, t: int, old: Step, sent: dict[str, list[np.ndarray]], nudge: float) -> Step:
        drives = {p.name: self._drive(t, p, old, sent, nudge) for p in self.graph.neurons}
        new: Step = {}
        for p in self.graph.neurons:
            advance = self._integer if self.graph.quantised else self._float
            values = advance(t, p, old, sent[p.name], drives[p.name])
            new.update({f"{p.name}.{variable}": value for variable, value in values.items()})
        for p in self.graph.neurons:
            sent[p.name].append(new[f"{p.name}.message"])
        return new

    def _drive(
        self,
        t: int,
        population: ir.Population,
        old: Step,
        sent: dict[str, list[np.ndarray]],
        nudge: float,
    ) -> np.ndarray:
        drive = np.zeros(population.size, np.int64 if self.graph.quantised else np.float64)
        if population.bias is not None:
            drive = drive + self.graph.arrays[population.bias].ravel()
        for p in self.graph.into(population.name):
            acc = self.matrices[p.name] @ self._meaning(p, t - p.delay, sent)
            if self.graph.quantised:
                assert p.rescale is not None
                drive = drive + _shift(acc * p.rescale.multiplier, p.rescale.shift)
            else:
                drive = drive + p.scale * acc
        if nudge and population.name == self.graph.output:
            drive = drive + self._nudge(population, old, nudge)
        return drive

    def _meaning(self, p: ir.Projection, t: int, sent: dict[str, list[np.ndarray]]) -> np.ndarray:
        """``s_pre(t)``: what the message stream of the source means at step `t`."""
        source = self.graph.population(p.pre)
        if isinstance(source.dynamics, ir.Source):
            return self.x
        if t < 1:
            return np.zeros_like(self.matrices[p.name][0])
        messages = sent[p.pre]
        if isinstance(source.dynamics, ir.SigmaDelta):
            return np.sum(messages[:t], axis=0)
        return messages[t - 1]

    def _nudge(self, population: ir.Population, old: Step, nudge: float) -> np.ndarray:
        spiking = isinstance(population.dynamics, ir.Spiking)
        shown = old[f"{population.name}.{'message' if spiking else 'z'}"]
        assert self.y is not None
        y = (self.y.ravel() - population.readout.offset) / population.readout.gain
        if not self.graph.quantised:
            return nudge * (y - shown)
        state, message = _formats(population)
        f, m = state.frac, message.frac
        target = np.floor(y * 2**f + 0.5).astype(np.int64)
        return (round(4096 * nudge) * (target - (shown << (f - m)))) >> 12

    # --- float ---

    def _float(
        self, t: int, p: ir.Population, old: Step, sent: list[np.ndarray], drive: np.ndarray
    ) -> dict[str, np.ndarray]:
        v, d = old[f"{p.name}.v"], p.dynamics
        assert not isinstance(d, ir.Source)
        if isinstance(d, ir.Spiking):
            u = old[f"{p.name}.u"]
            u = u + d.leak * (drive - u)
            v = np.minimum(np.maximum(v + u, -d.bound), 1 + d.bound)
            message = np.where(v >= 1, 1.0, 0.0)
            kept = np.where(message, 0.0, v) if d.reset == "hard" else v - message
            return {"u": u, "v": kept, "message": message}
        v = v + d.leak * (drive - v)
        z = v if p.box is None else np.minimum(np.maximum(v, p.box[0]), p.box[1])
        if isinstance(d, ir.Graded):
            return {"v": v, "z": z, "message": z}
        change = z - np.sum(sent, axis=0)
        threshold = max(d.end, d.start * d.decay ** (t - 1))
        return {"v": v, "z": z, "message": np.where(np.abs(change) >= threshold, change, 0.0)}

    # --- integers ---

    def _integer(
        self, t: int, p: ir.Population, old: Step, sent: list[np.ndarray], drive: np.ndarray
    ) -> dict[str, np.ndarray]:
        v, r, d = old[f"{p.name}.v"], old[f"{p.name}.r"], p.dynamics
        assert not isinstance(d, ir.Source)
        state, message_format = _formats(p)
        f, m = state.frac, message_format.frac
        a = round(4096 * d.leak)
        if isinstance(d, ir.Spiking):
            u = old[f"{p.name}.u"]
            total = a * (drive - u) + r
            u, r = _saturated(u + (total >> 12), state.bits), total & 4095
            edge = round(d.bound * 2**f)
            v = _saturated(np.minimum(np.maximum(v + u, -edge), 2**f + edge), state.bits)
            message = (v >= 2**f).astype(np.int64)
            kept = v * (1 - message) if d.reset == "hard" else v - message * 2**f
            return {"u": u, "v": kept, "r": r, "message": message}
        total = a * (drive - v) + r
        v, r = _saturated(v + (total >> 12), state.bits), total & 4095
        z = _shift(v, m - f)
        if p.box is not None:
            z = np.minimum(np.maximum(z, round(p.box[0] * 2**m)), round(p.box[1] * 2**m))
        z = _saturated(z, message_format.bits)
        if isinstance(d, ir.Graded):
            return {"v": v, "z": z, "r": r, "message": z}
        change = z - np.sum(sent, axis=0, dtype=np.int64)
        theta = max(1, round(max(d.end, d.start * d.decay ** (t - 1)) * 2**m))
        message = np.where(np.abs(change) >= theta, change, 0)
        return {"v": v, "z": z, "r": r, "message": _saturated(message, message_format.bits)}

    # --- ends ---

    def _matrix(self, p: ir.Projection) -> np.ndarray:
        matrix = unrolled(self.graph, p)
        if not self.graph.quantised:
            return matrix
        if p.exponent is None:
            return matrix.astype(np.int64)
        exponent = self.graph.arrays[p.exponent]
        shifted = self.graph.arrays[p.weight].astype(np.int64)
        shifted = np.stack([row << e for row, e in zip(shifted, exponent, strict=True)])
        arrays = {**self.graph.arrays, p.weight: shifted}
        return unrolled(ir.Graph("", self.graph.populations, arrays=arrays), p).astype(np.int64)

    def _input(self, source: ir.Population, x: np.ndarray) -> np.ndarray:
        if not self.graph.quantised:
            return x
        _, message = _formats(source)
        q = np.floor(x * 2**message.frac + 0.5).astype(np.int64)
        return _saturated(q, message.bits)

    def _rest(self) -> Step:
        values: Step = {}
        dtype = np.int64 if self.graph.quantised else np.float64
        for p in self.graph.neurons:
            zero = np.zeros(p.size, dtype)
            v = zero
            if isinstance(p.dynamics, ir.Spiking):
                half = 2 ** (_formats(p)[0].frac - 1) if self.graph.quantised else 0.5
                v = zero + half
            rest = {"v": v, "u": zero, "z": zero, "r": zero, "message": zero}
            values.update({f"{p.name}.{k}": value for k, value in rest.items()})
        return values

    def _output(self, steps: list[Step], from_rest: bool) -> np.ndarray:
        p = self.graph.population(self.graph.output)
        if isinstance(p.dynamics, ir.Spiking):
            counted = steps[len(steps) // 2 :] if from_rest else steps
            weights = [min(i + 1, len(counted) - i) for i in range(len(counted))]
            z = np.average([s[f"{p.name}.message"] for s in counted], axis=0, weights=weights)
        else:
            z = steps[-1][f"{p.name}.z"]
            z = z / 2 ** _formats(p)[1].frac if self.graph.quantised else z
        return p.readout.offset + p.readout.gain * z


def _formats(p: ir.Population) -> tuple[ir.FixedPoint, ir.FixedPoint]:
    """Formats of the membrane and the message; an input has no membrane."""
    assert p.message is not None
    return p.state or p.message, p.message


def _shift(values: np.ndarray, bits: int) -> np.ndarray:
    if bits >= 0:
        return values * 2**bits
    return (values + 2 ** (-bits - 1)) // 2**-bits


def _saturated(values: np.ndarray, bits: int) -> np.ndarray:
    return np.minimum(np.maximum(values, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)

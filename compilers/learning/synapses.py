"""One plastic weight at work: its tag, and the change at a commit, in real numbers or integers.

Every target learns by this arithmetic, so that all agree. In a graph of integers, with ``T`` the
trace of a neuron (`compilers.learning.traces`), ``E`` the base unit of the weight
(``w = (q << e) * E``),

    tag  += sign * sum T_post T_pre                     (saturates at 32 bits when it is read)
    dq    = (rescale(tag) + (r << e)) >> (16 + e)       (``tag`` in units of E 2**-16)
    q     = clip(q + dq, -top, top)

where ``r`` is uniform in ``[0, 2**16)``, or 2**15 for a rule that keeps what rounding leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from compilers.ir.graph import Conv, Dense, FixedPoint, Graph, Population, Projection
from compilers.ir.integers import shift
from compilers.ir.operators import pairings
from compilers.ir.plasticity import Plasticity, Term
from compilers.ir.weight_grid import integer_gain
from compilers.learning.traces import Traces, trace_unit
from ep_neuro.errors import GraphError

TAG = FixedPoint(32, 0)
"""Format of an integer tag."""

LEAST_TAG = 24
"""Bits of it that have to fit a word where a rate in large units leaves no room for 32."""

NOISE_BITS = 16
"""Bits of a random number, and fractional bits of a change before it is rounded."""

WORD_BITS = 62
"""Bits of a product of integers that fits a word of 64 with room for a sum."""

SMALLEST = 1e-90
"""Least unit of a weight, of which some powers still are numbers."""


# --- units -------------------------------------------------------------------------------------


def weight_unit(graph: Graph, p: Projection) -> float:
    """Real value of 1 in the integer weight of `p`, where its channel's shift is 0.

    Raises
    ------
    GraphError
        If the gain of `p` is 0, or not that in real units, so that its weight means nothing.
    """
    if p.rescale is None:
        return 1.0
    state, message = graph.population(p.post).state, graph.population(p.pre).message
    assert state is not None
    assert message is not None
    gain = p.rescale.multiplier * 2.0 ** (p.rescale.shift + message.frac - state.frac)
    unit = gain / p.scale if p.scale else 0.0
    if not SMALLEST < unit < 1 / SMALLEST:
        problem = (
            f"its gain is {gain:g}, for {p.scale:g} in real units, so its weight means nothing"
        )
        raise GraphError(f"projection '{p.name}'", problem, "freeze it, or compile the model again")
    # The gain has 15 bits; a power of two that went into it comes back exactly.
    power = 2.0 ** round(math.log2(unit))
    return power if abs(unit / power - 1) < 2.0**-12 else unit


# --- synapses ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What a commit left: weight and tag, the sum of |change| in real units, values clipped."""

    weight: np.ndarray
    tag: np.ndarray
    total: float
    clipped: int


@dataclass(frozen=True)
class _Product:
    """One term of a commit: `constant` times powers of the scale of the rate and of arrays."""

    constant: float
    scale: int
    tag: int
    weight: int
    noise: int


class Synapses:
    """All synapses of one `Plasticity` record of `graph`.

    Attributes
    ----------
    record : Plasticity
    pre : Population or None
        None for a bias, whose pre trace is 1.
    post : Population
    shape : tuple of int
        Of the weight, or one value for each element of a biased population's first axis.
    unit, tag_unit : float
        Real value of 1 in the weight (with its channel's shift at 0) and in the tag.
    """

    def __init__(self, graph: Graph, index: int) -> None:
        self.record: Plasticity = graph.plasticity[index]
        self.index, self.integer = index, graph.quantised
        self.pre: Population | None = None
        self.operator: Dense | Conv | None = None
        self._exponent = np.zeros((), np.int64)
        self._range = (0, 0)
        if self.record.weight in graph.ties:
            self._join(graph)
        else:
            self._lift(graph)
        units = {end: trace_unit(p, self.integer) for end, p in self._ends().items()}
        self._units = {"pre": units.get("pre", 1.0), "post": units["post"]}
        self._coarser = 2.0**self.record.coarser if self.integer else 1.0
        differs = self.record.rule.differs
        self._louder = {e: p.louder if differs else 0 for e, p in self._ends().items()}
        self.tag_unit = self._units["pre"] * self._units["post"] * self._coarser
        self.tag_unit *= 2.0 ** -self._louder["post"]
        mask = self.record.mask
        self._mask = None if mask is None else graph.arrays[mask] != 0
        self._tags = [t for t in self.record.rule.tag_terms if t.factors != ("tag",)]
        if differs and self.pre is None:
            # What drives a bias is the same in every phase.
            self._tags = [t for t in self._tags if not t.power("pre")]
        self._products = [p for t in self.record.rule.commit_terms if (p := self._product(t))]
        self._tag_bits = LEAST_TAG if self.record.power > 0 else TAG.bits
        gains = [(p, self._gain(p, samples=1, scale=1.0)) for p in self._products]
        # A larger tag would change any weight by more than its range.
        rooms = [(WORD_BITS - self._bits(p, gain)) // p.tag for p, gain in gains if p.tag]
        self._tag_bits = min([TAG.bits, *rooms]) if self.integer else TAG.bits

    def _join(self, graph: Graph) -> None:
        """Become the synapses of a weight."""
        tie = graph.tie(self.record.weight)
        self.pre, self.post = graph.population(tie.pre), graph.population(tie.post)
        self.operator, self.shape = tie.operator, graph.arrays[tie.weight].shape
        self.unit = weight_unit(graph, tie.first)
        if tie.first.exponent is not None:
            column = (-1, *[1] * (len(self.shape) - 1))
            self._exponent = graph.arrays[tie.first.exponent].astype(np.int64).reshape(column)
        top = (1 << ((self.record.bits or 1) - 1)) - 1
        self._range = (-top, top)

    def _lift(self, graph: Graph) -> None:
        """Become the synapses of a bias."""
        self.post = next(p for p in graph.neurons if p.bias == self.record.weight)
        self.shape = self.post.shape[:1]
        state = self.post.state
        self._range = state.range if state else (0, 0)
        self.unit = self.post.readout.gain * (2.0**-state.frac if state else 1.0)

    def _ends(self) -> dict[str, Population]:
        return {"post": self.post} if self.pre is None else {"pre": self.pre, "post": self.post}

    @property
    def dtype(self) -> type[np.generic]:
        """Of weight and tag."""
        return np.int64 if self.integer else np.float64

    def operand(self, weight: np.ndarray) -> np.ndarray:
        """`weight` as operators take it: float64, shifted by channel."""
        return self._shifted(weight).astype(np.float64, copy=False)

    def _shifted(self, weight: np.ndarray) -> np.ndarray:
        return weight << self._exponent if self.integer else weight

    # --- while the phases run ---

    def accumulate(
        self, tag: np.ndarray, weight: np.ndarray, sign: int, now: Traces, before: Traces
    ) -> np.ndarray:
        """The tag after the rule was evaluated for each sample of a batch.

        Parameters
        ----------
        tag, weight : ndarray
        sign : int
            Plasticity sign of the phase.
        now, before : mapping of ndarray, (N, *shape)
            Traces by population, and those one step ago, or in the free phase (for rules
            that read them).
        """
        for term in self._tags:
            summed = self._summed(term, now, before)
            if self.integer:
                summed = summed.astype(np.int64)
            for _ in range(term.power("weight")):
                summed = summed * self._shifted(weight)
            summed = self._scaled(summed, self._tag_gain(term))
            turned = sign ** term.power("sign")
            tag = tag + (summed if turned == 1 else turned * summed)
        return tag

    def _summed(self, term: Term, now: Traces, before: Traces) -> np.ndarray:
        post = _factor(term, "post", self.post, now, before)
        if self.pre is None or self.operator is None:
            return post.reshape(len(post), self.shape[0], -1).sum((0, 2))
        pre = _factor(term, "pre", self.pre, now, before)
        return pairings(self.operator, self.shape, pre, post)

    def _tag_gain(self, term: Term) -> float:
        gain = term.coefficient * self.unit ** term.power("weight") / self._coarser
        for end, unit in self._units.items():
            gain *= unit ** (term.power(end, f"{end}_before", f"{end}_free") - 1)
            gain *= 2.0 ** -(self._louder.get(end, 0) * term.power(end))
        return gain * 2.0 ** self._louder["post"]

    def _scaled(self, values: np.ndarray, gain: float) -> np.ndarray:
        """``values * gain``; in integers by a multiplier and a shift, so that every target can."""
        if gain == 1:
            return values
        if not self.integer:
            return values * gain
        multiplier, bits = integer_gain(gain)
        return shift(values * multiplier, bits)

    # --- at a commit ---

    def commit(
        self, weight: np.ndarray, tag: np.ndarray, samples: int, scale: float, number: int
    ) -> Change:
        """Weight and tag after commit `number` (from 0), by the mean over `samples`.

        `scale` multiplies the rule's rate.
        """
        lost = 0
        if self.integer:
            # Not while phases run: a chip has one sample's phases after another, and a sum of
            # products of one sign over a whole batch never stands in its tag.
            held = np.clip(tag, *FixedPoint(self._tag_bits, 0).range)
            tag, lost = held, int(np.count_nonzero(held != tag))
        noise = self._noise(number)
        change = self._change(weight, tag, noise, samples, scale)
        if self.integer:
            rounded = self._rounded(weight, tag, change, noise, samples, scale)
            return replace(rounded, clipped=rounded.clipped + lost)
        if self._mask is not None:
            change = change * self._mask
        total = float(np.abs(change).sum()) * self.unit
        return Change(weight + change, np.zeros_like(tag), total, 0)

    def _change(
        self, weight: np.ndarray, tag: np.ndarray, noise: np.ndarray, samples: int, scale: float
    ) -> np.ndarray:
        """What the rule's commit says, before it is rounded; integers have `NOISE_BITS` more."""
        shifted, parts = self._shifted(weight), []
        for p in self._products:
            factors = [tag] * p.tag + [shifted] * p.weight + [noise] * p.noise
            values = reduce(np.multiply, factors) if factors else np.ones(self.shape, self.dtype)
            parts.append(self._scaled(values, self._gain(p, samples, scale)))
        return reduce(np.add, parts) if parts else np.zeros(self.shape, self.dtype)

    def _rounded(
        self,
        weight: np.ndarray,
        tag: np.ndarray,
        change: np.ndarray,
        noise: np.ndarray,
        samples: int,
        scale: float,
    ) -> Change:
        keep = self.record.rule.keep
        dice = np.int64(1 << (NOISE_BITS - 1)) if keep else noise
        step = (change + (dice << self._exponent)) >> (NOISE_BITS + self._exponent)
        left = np.zeros_like(tag)
        if keep:
            (learnt,) = (p for p in self._products if p.tag)
            applied = 2.0**NOISE_BITS / self._gain(learnt, samples, scale)
            left = tag - self._scaled(step << self._exponent, applied)
        if self._mask is not None:
            step, left = step * self._mask, left * self._mask
        # A bias that keeps a neuron dead lies outside, and stays where it is.
        low, high = np.minimum(self._range[0], weight), np.maximum(self._range[1], weight)
        new = np.clip(weight + step, low, high)
        total = float(np.abs((new - weight) << self._exponent).sum()) * self.unit
        return Change(new, left, total, int(np.count_nonzero(new != weight + step)))

    def _product(self, term: Term) -> _Product | None:
        """`term` with the constants of the record put in; None if they make it zero."""
        rates = term.power("rate")
        constant = term.coefficient * self.record.step**rates
        constant *= self.record.decay ** term.power("decay")
        if constant == 0:
            return None
        return _Product(constant, rates, *(term.power(n) for n in ("tag", "weight", "noise")))

    def _gain(self, p: _Product, samples: int, scale: float) -> float:
        """What the product of tag, weight and noise counts in a change before it is rounded."""
        fine = 2.0**NOISE_BITS if self.integer else 1.0
        gain = p.constant * scale**p.scale * (self.tag_unit / samples) ** p.tag
        gain *= self.unit ** (p.weight - 1) * fine ** (1 - p.noise)
        if self.integer:
            self._refuse_overflow(p, gain)
        return gain

    def _bits(self, p: _Product, gain: float) -> int:
        """Bits that all but the tags of a change can take."""
        bits = p.noise * NOISE_BITS
        bits += p.weight * (self._range[1].bit_length() + int(np.max(self._exponent)))
        multiplier, left = integer_gain(gain)
        return bits + multiplier.bit_length() + max(left, 0)

    def _refuse_overflow(self, p: _Product, gain: float) -> None:
        bits = self._bits(p, gain) + p.tag * self._tag_bits
        if bits > WORD_BITS:
            problem = f"one change can take {bits} bits, which exceed {WORD_BITS}"
            remedy = "lower the rate, shorten the rule, or let units shrink less"
            if (power := self.record.power) > 0:
                problem += f", as its rate counts 2**{power} in units"
                remedy = "learn in floating point (compile without bits), or let units shrink less"
                if not self.record.rule.differs:
                    remedy = f"compile with --learn difference (code graded), {remedy}"
            raise GraphError(f"plasticity of '{self.record.weight}'", problem, remedy)

    def _noise(self, number: int) -> np.ndarray:
        """The random numbers of a commit; zeros where nothing reads them."""
        rounds = self.integer and not self.record.rule.keep
        if not rounds and not any(p.noise for p in self._products):
            return np.zeros(self.shape, self.dtype)
        generator = np.random.default_rng([self.record.seed, self.index, number])
        drawn = generator.integers(0, 1 << NOISE_BITS, self.shape)
        return drawn if self.integer else drawn * 2.0**-NOISE_BITS


def _factor(
    term: Term, end: str, population: Population, now: Traces, before: Traces
) -> np.ndarray:
    """Product of the traces of one end that stand in `term`, (N, *shape); ones if none does."""
    value: np.ndarray | None = None
    for name, traces in ((end, now), (f"{end}_before", before), (f"{end}_free", before)):
        for _ in range(term.power(name)):
            trace = traces[population.name]
            value = trace if value is None else value * trace
    return np.ones_like(now[population.name]) if value is None else value

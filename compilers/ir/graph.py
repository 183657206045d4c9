"""The chip-neutral IR: a frozen graph of leaky integrators joined by directed projections.

All populations step at once. At step ``t`` the drive of a population is

    I(t) = b + sum_p scale_p * op_p(W_p, s_pre(t - delay_p)) + nudge * (y - z(t - 1))

over its incoming projections ``p``; the last term stands at the output only, in a nudged phase.
``s_pre`` is what the message stream of the source means: the message itself for `Graded` and
`Spiking`, the sum of all messages so far for `SigmaDelta` and `Source`. After `fold_boxes` every
bounded population lives in *graph units*, where its box is [0, 1]; `Readout` leads back.

Number formats: where a population has formats, its states and messages are integers, and so are
its weights. With ``F = state.frac`` and ``M = message.frac``,

    acc_p = op_p(w_p << e_p, q_pre)                       (exact integers; e_p per channel or 0)
    I     = b + sum_p rescale(acc_p) + nudge              (b, nudge in units of 2**-F)
    rescale(acc) = (acc * multiplier) << shift            (shift < 0: right, rounded to nearest)
    v    += (A (I - v) + r) >> 12,  r the remainder kept  (A = round(4096 * leak))
    q     = clip((v + (1 << (F - M - 1))) >> (F - M), box)

and every value saturates at its format, which is counted.

The records that a graph is made of can all be had from here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import numpy as np

from compilers.ir.dynamics import (
    ENCODINGS,
    Dynamics,
    Encoding,
    Graded,
    SigmaDelta,
    Source,
    Spiking,
)
from compilers.ir.integers import LEAK_BITS, FixedPoint, Rescale
from compilers.ir.operators import (
    Conv,
    ConvTranspose,
    Dense,
    DenseTranspose,
    Operator,
    Partial,
    Shape,
    Total,
    adjoint,
)
from compilers.ir.plasticity import Plasticity
from ep_neuro.deployment.nudgeable import SQUARED_ERROR
from ep_neuro.errors import GraphError

INPUT_MEAN = "input.mean"
"""Note of the mean that the biases take off, by channel of the raw input, in JSON."""

WHITENED = "input.whitened"
"""Note of the weights that whiten the input, a list of ids in JSON."""


@dataclass(frozen=True)
class Readout:
    """Real units of a state: ``real = offset + gain * z``."""

    offset: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True)
class Population:
    """Neurons of one shape and one dynamics; `box` is (lo, hi) or None for a linear one.

    `bias` is the id of an array of the population's full shape, None for zero. `state` and
    `message` are number formats, None in floating point. In phases that send differences, states
    and messages are ``2**louder`` times as large.
    """

    name: str
    shape: Shape
    dynamics: Dynamics
    box: tuple[float, float] | None = None
    bias: str | None = None
    readout: Readout = Readout()
    state: FixedPoint | None = None
    message: FixedPoint | None = None
    louder: int = 0

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Coupling:
    """A symmetric coupling, as specified: forward ``operator``, backward its adjoint."""

    pre: str
    post: str
    operator: Dense | Conv
    weight: str


@dataclass(frozen=True)
class Projection:
    """A directed connection. Projections that name the same `weight` are tied.

    `scale` is the gain in floating point; `rescale` and `exponent` (id of an integer array, one
    shift per output channel of the forward weight, None for zero) the one in integers.
    """

    pre: str
    post: str
    operator: Operator
    weight: str
    scale: float = 1.0
    delay: int = 1
    rescale: Rescale | None = None
    exponent: str | None = None

    @property
    def name(self) -> str:
        """``pre->post``, unique in a graph."""
        return f"{self.pre}->{self.post}"


@dataclass(frozen=True)
class Tie(Coupling):
    """A coupling with its projections; one is None where the weight serves one way only."""

    forward: Projection | None = None
    backward: Projection | None = None

    @property
    def first(self) -> Projection:
        """The projection forward, or else the one backward."""
        found = self.forward or self.backward
        assert found is not None
        return found

    @property
    def name(self) -> str:
        """``pre->post``."""
        return f"{self.pre}->{self.post}"


@dataclass(frozen=True)
class Phase:
    """Some steps of settling under one nudge.

    `nudge` is the nudging factor beta with its sign, `start` the phase whose last state this one
    continues (None: at rest), `sign` the sign of the plasticity that the phase contributes.
    At the end of a phase with `commit` the weights change (at each of its steps, by a rule that
    runs at every step). With `difference` populations send what differs from the end of `start`,
    times ``2**louder``: inputs and biases are silent, ``v`` and the messages begin at 0, and with
    ``m`` the membrane there ``z = clip(m + v / 2**louder) - clip(m)``.
    """

    name: str
    steps: int
    nudge: float = 0.0
    start: str | None = None
    sign: int = 0
    commit: bool = False
    difference: bool = False


@dataclass(frozen=True)
class Tile:
    """A box of one population's neurons on one neuro-core, as half-open ranges of its shape.

    A population that is no (channels, height, width) map counts as that many channels of one
    neuron. `core` counts through the whole machine, `chip` is the one that holds it.
    """

    population: str
    core: int
    chip: int
    channels: tuple[int, int]
    rows: tuple[int, int] = (0, 1)
    columns: tuple[int, int] = (0, 1)

    @property
    def positions(self) -> int:
        """Number of places in the plane."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    @property
    def size(self) -> int:
        """Number of neurons."""
        return (self.channels[1] - self.channels[0]) * self.positions


Named = TypeVar("Named", Population, Phase)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as a directed graph; see the module's docstring for what it computes.

    `arrays` holds weights and biases by id (float32, or int32 once quantised), `timestep` is the
    duration of a step in seconds, `provenance` names what the graph was made from (under ``cost``
    the network's cost, if a target cannot nudge by it: such a graph only settles). `placement`
    is empty until `map_to_cores` lays the populations out on a machine; `plasticity` lists what
    learns, and is empty in a graph that only settles.
    """

    name: str
    populations: tuple[Population, ...]
    couplings: tuple[Coupling, ...] = ()
    projections: tuple[Projection, ...] = ()
    phases: tuple[Phase, ...] = ()
    output: str = ""
    encoding: Encoding = "graded"
    timestep: float = 1e-3
    provenance: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    placement: tuple[Tile, ...] = ()
    plasticity: tuple[Plasticity, ...] = ()

    def population(self, name: str) -> Population:
        """The population called `name`; `GraphError` if there is none."""
        return self._called("population", name, self.populations)

    def phase(self, name: str) -> Phase:
        """The phase called `name`; `GraphError` if there is none."""
        return self._called("phase", name, self.phases)

    def _called(self, kind: str, name: str, among: tuple[Named, ...]) -> Named:
        for one in among:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in among)
        raise GraphError(
            f"{kind} '{name}'", f"graph '{self.name}' has none", f"choose from {known}"
        )

    def into(self, name: str) -> tuple[Projection, ...]:
        """Projections that end at population `name`."""
        return tuple(p for p in self.projections if p.post == name)

    def out_of(self, name: str) -> tuple[Projection, ...]:
        """Projections that start at population `name`."""
        return tuple(p for p in self.projections if p.pre == name)

    @property
    def cost(self) -> str:
        """The cost that the network was trained with, as `NetworkSpec` names it."""
        return self.provenance.get("cost", SQUARED_ERROR)

    @property
    def sources(self) -> tuple[Population, ...]:
        """Input populations."""
        return tuple(p for p in self.populations if isinstance(p.dynamics, Source))

    @property
    def neurons(self) -> tuple[Population, ...]:
        """All populations that have dynamics of their own."""
        return tuple(p for p in self.populations if not isinstance(p.dynamics, Source))

    @property
    def split(self) -> tuple[Projection, ...]:
        """Projections whose sums are made by share; see `split_fan_in`."""
        return tuple(p for p in self.projections if isinstance(p.operator, Partial))

    @property
    def ties(self) -> dict[str, tuple[str, ...]]:
        """Names of the projections by the weight that they share."""
        groups: dict[str, tuple[str, ...]] = {}
        for p in self.projections:
            groups[p.weight] = (*groups.get(p.weight, ()), p.name)
        return groups

    def tied(self, recurrent: bool = False) -> tuple[Tie, ...]:
        """Every weight between two populations with the projections of both directions.

        In the order of the projections; if `recurrent`, without those that start at a source.
        """
        skipped = {p.name for p in self.sources} if recurrent else set()
        found: dict[Coupling, Tie] = {}
        for p in (p for p in self.projections if p.pre not in skipped):
            back = isinstance(p.operator, DenseTranspose | ConvTranspose)
            pre, post = (p.post, p.pre) if back else (p.pre, p.post)
            operator = adjoint(p.operator) if back else p.operator
            # Sums by share have no way back either; they stand as they are.
            ends = Coupling(pre, post, cast("Dense | Conv", operator), p.weight)
            tie = found.get(ends, Tie(**vars(ends)))
            found[ends] = replace(tie, backward=p) if back else replace(tie, forward=p)
        return tuple(found.values())

    def tie(self, weight: str) -> Tie:
        """The first place of `weight` with a projection forward, or else the first of all."""
        places = [tie for tie in self.tied() if tie.weight == weight]
        return next((tie for tie in places if tie.forward is not None), places[0])

    @property
    def quantised(self) -> bool:
        """Whether states are integers."""
        return any(p.state is not None for p in self.populations)

    def with_arrays(self, **changes: object) -> Graph:
        """A copy with `changes`; arrays that nothing names any more are dropped."""
        graph = replace(self, **changes)  # type: ignore[arg-type]
        used = {p.bias for p in graph.populations}
        used |= {c.weight for c in graph.couplings}
        used |= {i for p in graph.projections for i in (p.weight, p.exponent)}
        used |= {p.mask for p in graph.plasticity}
        return replace(graph, arrays={k: a for k, a in graph.arrays.items() if k in used})

    def digest(self) -> str:
        """SHA-256 of everything the graph holds; equal graphs have equal digests."""
        from compilers.ir.text import print_graph

        sha = hashlib.sha256(print_graph(self, arrays=False).encode())
        for name in sorted(self.arrays):
            a = np.ascontiguousarray(self.arrays[name])
            sha.update(f"{name} {a.dtype.str} {a.shape}".encode())
            sha.update(a.tobytes())
        return sha.hexdigest()

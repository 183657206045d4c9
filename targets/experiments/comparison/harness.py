"""A compiled network as modules of torch, so that NeuroBench's own harness measures it.

NeuroBench hooks `Linear` and `Conv` modules, and asks neurons of snnTorch for their membranes. So
every projection, feedback by transposed convolution included, is such a module of its own, whose
weight is the very parameter of the other direction, and every population a neuron of snnTorch. What
neurons compute is what the executor computes (`compilers.execution.neurons`), in floating point or
in integers; messages between modules are in graph units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import snntorch
import torch
import torch.nn.functional as F
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import TorchModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import targets
from compilers.execution.constants import formats
from compilers.execution.engine import Engine
from compilers.execution.maps import channels_first, channels_last
from compilers.execution.neurons import Cells, advance
from compilers.ir.graph import (
    Conv,
    ConvTranspose,
    DenseTranspose,
    Graph,
    Population,
    Projection,
    Shape,
    SigmaDelta,
    Source,
    Spiking,
)
from compilers.learning.traces import spike_weights
from ep_neuro.data.datasets import Split
from ep_neuro.errors import GraphError
from ep_neuro.results import NeuroBench
from targets.experiments.comparison.compare import Compared, fit
from targets.experiments.comparison.neurobench import held_bits, whole_bytes

EXACT = 1e-9
"""Tolerance of targets whose states are those of the graph, but for the last bits."""

MOST_VALUES = 1 << 21
"""Values of one kind that hooks hold at once: they keep all time steps of a batch."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Coupling(nn.Module):
    """One projection, as NeuroBench hooks it; without a bias, which is the population's.

    Parameters
    ----------
    projection : Projection
    post : tuple of int
        Shape of the receiving population.
    weight : Parameter
        That of the forward direction, for both directions.
    gains : Tensor, optional
        What channels of an integer weight are multiplied by.
    """

    def __init__(
        self, projection: Projection, post: Shape, weight: nn.Parameter, gains: Tensor | None = None
    ) -> None:
        # That of `Linear` or `Conv2d` would draw weights.
        nn.Module.__init__(self)
        self.projection, self.post, self.gains = projection, post, gains
        self.weight: Tensor = weight
        self.bias: Any = None

    def __deepcopy__(self, memo: object) -> Coupling:
        """NeuroBench counts by a copy whose weights it sets to 1: gains stay out of that."""
        weight = nn.Parameter(self.weight.detach().clone(), requires_grad=False)
        return type(self)(self.projection, self.post, weight)

    def extra_repr(self) -> str:
        """The projection's name."""
        return self.projection.name

    def forward(self, x: Tensor) -> Tensor:
        """What messages `x` (N, *pre) are to the receiver, (N, *post)."""
        weight = self.weight.to(x.dtype)
        return self.through(x, weight if self.gains is None else weight * self.gains)

    def through(self, x: Tensor, weight: Tensor) -> Tensor:
        """The operator."""
        raise NotImplementedError


class DenseCoupling(Coupling, nn.Linear):
    """A dense projection, either way."""

    def through(self, x: Tensor, weight: Tensor) -> Tensor:
        back = isinstance(self.projection.operator, DenseTranspose)
        return F.linear(x.flatten(1), weight.T if back else weight).view(-1, *self.post)


class ConvCoupling(Coupling, nn.Conv2d):
    """A convolution, or the transposed one that is the way back."""

    def through(self, x: Tensor, weight: Tensor) -> Tensor:
        operator = self.projection.operator
        assert isinstance(operator, Conv | ConvTranspose)
        stride, padding = operator.stride, operator.padding
        if isinstance(operator, Conv):
            return F.conv2d(x, weight, stride=stride, padding=padding)
        spare = [
            n - ((m - 1) * stride - 2 * padding + k)
            for n, m, k in zip(self.post[1:], x.shape[2:], weight.shape[2:], strict=True)
        ]
        return F.conv_transpose2d(x, weight, None, stride, padding, spare)


class PopulationNeurons(snntorch.SpikingNeuron):
    """One population on the executor; NeuroBench reads its membranes as ``mem``."""

    init_hidden, output = True, False

    def __init__(self, engine: Engine, population: Population, bias: nn.Parameter | None) -> None:
        # That of snnTorch has thresholds and surrogates of its own.
        nn.Module.__init__(self)
        self.engine, self.population, self.bias = engine, population, bias

    def rest(self, samples: int) -> Tensor:
        """Go to the moment before the first step; the drive of the bias, (N, *shape)."""
        self.cells, self.t = Cells([self.population], self.engine, samples), 0
        self.cells.rest()
        self._show()
        drive = torch.zeros(samples, *self.population.shape, dtype=self.engine.numbers.wide)
        return drive if self.bias is None else drive + self.bias

    def forward(self, drive: Tensor) -> Tensor:
        """Messages (N, *shape) of one step under `drive`, in units of the membrane."""
        self.t += 1
        self._part(self.cells.drive).copy_(channels_last(drive))
        advance(self.cells.dynamics, self.cells, self.t)
        self._show()
        return self._real(self.cells.message)

    @property
    def state(self) -> Tensor:
        """What the readout sees, (N, *shape), graph units."""
        return self._real(self.cells.z)

    def _show(self) -> None:
        spiking = isinstance(self.cells.dynamics, Spiking)
        self.mem = self._part(self.cells.v if spiking else self.cells.plain).clone()

    def _part(self, values: Tensor) -> Tensor:
        return self.cells.part(values, self.population.name)

    def _real(self, values: Tensor) -> Tensor:
        real = self.engine.numbers.real(self.population, self._part(values))
        return channels_first(real).clone()


class NeuroBenchNetwork(nn.Module):
    """The free phase of a compiled graph: inputs (N, *shape) to outputs in real units.

    Parameters
    ----------
    graph : Graph
    steps : int, optional
        Those of its free phase by default.

    Raises
    ------
    GraphError
        If sums are split over cores, as only chips need it.
    """

    def __init__(self, graph: Graph, steps: int | None = None) -> None:
        super().__init__()
        if graph.split:
            problem = "has sums that are split over cores"
            raise GraphError(f"graph '{graph.name}'", problem, "compile it for reference")
        self.graph, self.steps = graph, steps or graph.phases[0].steps
        self.engine = Engine(graph)
        held = {name: self._held(name, bits) for name, bits in held_bits(graph).items()}
        self.shifts = nn.ParameterList(
            held[name] for name in dict.fromkeys(p.exponent for p in graph.projections) if name
        )
        self.ways = [self._coupling(p, held) for p in graph.projections]
        self.populations = {
            p.name: PopulationNeurons(self.engine, p, None if p.bias is None else held[p.bias])
            for p in graph.neurons
        }
        # Lists and mappings of Python hold no modules that torch would find.
        self.couplings = nn.ModuleList(self.ways)
        self.neurons = nn.ModuleList(self.populations.values())

    def _held(self, name: str, bits: int) -> nn.Parameter:
        array = self.graph.arrays[name]
        kind = torch.float32 if array.dtype.kind == "f" else _INTEGERS[whole_bytes(bits)]
        return nn.Parameter(torch.from_numpy(array).to(kind, copy=True), requires_grad=False)

    def _coupling(self, p: Projection, held: dict[str, nn.Parameter]) -> Coupling:
        kind = ConvCoupling if isinstance(p.operator, Conv | ConvTranspose) else DenseCoupling
        weight, gains = held[p.weight], None
        if p.exponent is not None:
            gains = 2.0 ** held[p.exponent].double().view(-1, *[1] * (weight.ndim - 1))
        return kind(p, self.graph.population(p.post).shape, weight, gains)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Settle inputs `x`, raw units; outputs are (N, *output shape)."""
        graph, numbers, (source,) = self.graph, self.engine.numbers, self.graph.sources
        neurons = self.populations
        constant = {name: one.rest(len(x)) for name, one in neurons.items()}
        ways = [Way(self.engine, coupling) for coupling in self.ways]
        said = numbers.real(source, numbers.message(source, x.double()))
        for way in (w for w in ways if w.pre is source):
            way.send(said)
            constant[way.post] = constant[way.post] + way.arriving.popleft()
        shown: list[Tensor] = []
        recurrent = [w for w in ways if w.pre is not source]
        for _ in range(self.steps):
            drives = dict(constant)
            for way in recurrent:
                drives[way.post] = drives[way.post] + way.arriving.popleft()
            messages = {name: one(drives[name]) for name, one in neurons.items()}
            for way in recurrent:
                way.send(messages[way.pre.name])
            shown.append(messages[graph.output])
        return self._read_out(shown)

    def _read_out(self, shown: list[Tensor]) -> Tensor:
        output = self.graph.population(self.graph.output)
        if isinstance(output.dynamics, Spiking):
            weights = torch.from_numpy(spike_weights(self.steps, from_rest=True)).to(shown[0])
            found = torch.tensordot(weights, torch.stack(shown), 1) / weights.sum()
        else:
            found = self.populations[output.name].state
        return output.readout.offset + output.readout.gain * found


class Way:
    """What a coupling delivers in one run: currents, some steps late; changes are added up."""

    def __init__(self, engine: Engine, coupling: Coupling) -> None:
        self.numbers, self.coupling, p = engine.numbers, coupling, coupling.projection
        self.pre, self.post = engine.graph.population(p.pre), p.post
        self.one = formats(self.pre)[1].one if self.numbers.integers else 1
        delay = 0 if isinstance(self.pre.dynamics, Source) else p.delay
        self.arriving: deque[Any] = deque([0.0] * delay)
        self.total: Any = 0.0

    def send(self, messages: Tensor) -> None:
        """Let `messages`, graph units, arrive after the delay of the projection."""
        found = (self.coupling(messages) * self.one).to(self.numbers.wide)
        self.total = found + (self.total if isinstance(self.pre.dynamics, SigmaDelta) else 0)
        self.arriving.append(self.numbers.gain(self.coupling.projection, self.total))


def by_harness(compared: Sequence[Compared], split: Split) -> list[dict[str, Any]]:
    """The harness's figures of all runs that compute what their graph says, beside their names."""
    found = []
    for one in compared:
        if one.program is None or targets.get(one.program).tolerance > EXACT:
            continue
        graph = one.program.graph
        figures = harness(graph, fit(split, graph), one.row.steps)
        found.append({**one.names(), "neurobench": asdict(figures)})
    return found


def harness(graph: Graph, split: Split, steps: int | None = None) -> NeuroBench:
    """What NeuroBench's harness says of the free phase of `graph` on `split`, `steps` long.

    Parameters
    ----------
    graph : Graph
        Of a program; it runs here as the reference would run it.
    split : Split
        In the input shape of the graph.
    steps : int, optional
        Those of its free phase by default.
    """
    network = NeuroBenchNetwork(graph, steps)
    model = TorchModel(network)
    model.add_activation_module(PopulationNeurons)
    held = network.steps * sum(p.size for p in graph.neurons)
    data = TensorDataset(torch.from_numpy(split.x), torch.from_numpy(split.y))
    loader = DataLoader(data, batch_size=max(1, MOST_VALUES // held))
    metrics = [
        [Footprint, ConnectionSparsity],
        [ActivationSparsity, SynapticOperations, MembraneUpdates],
    ]
    found = Benchmark(model, loader, [], [], metrics).run(quiet=True)
    operations = found["SynapticOperations"]
    return NeuroBench(
        footprint=found["Footprint"],
        connection_sparsity=found["ConnectionSparsity"],
        activation_sparsity=found["ActivationSparsity"],
        effective_macs=operations["Effective_MACs"],
        effective_acs=operations["Effective_ACs"],
        dense=operations["Dense"],
        membrane_updates=found["MembraneUpdates"],
    )

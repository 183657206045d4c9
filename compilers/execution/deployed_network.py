"""A network as a target settles it: lowered by the passes, its phases run by the executor."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from compilers.execution.engine import Batch, Engine, Snapshot
from compilers.execution.maps import channels_first, channels_last
from compilers.frontend import lower
from compilers.ir.graph import Graph, Spiking
from compilers.learning.real_units import real_weight, spec_of
from compilers.learning.traces import spike_weights
from compilers.model_options import THRESHOLDS
from compilers.passes.choose_leak import LeakWarning
from compilers.pipeline import Lowering, common_passes, run_passes
from ep_neuro.deployment.dynamics import Deployment
from ep_neuro.energy.activations import HardReset, distance
from ep_neuro.energy.costs import Nudge
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import SettleResult, Status


@torch.no_grad()
def deploy(
    network: Network, x: Tensor, how: Deployment, dtype: torch.dtype, nudge: Nudge | None = None
) -> EngineNetwork:
    """See `ep_neuro.deployment.dynamics.Deployment.deploy`."""
    network.check_input(x)
    graph = compiled(network, how, None if nudge is None else float(nudge.beta))
    engine = Engine(graph, dtype, str(x.device))
    (source,), output = graph.sources, graph.population(graph.output)
    target = None
    if nudge is not None:
        shown = (nudge.y.double() - output.readout.offset) / output.readout.gain
        target = engine.numbers.target(output, channels_last(shown))
    batch = engine.batch(engine.numbers.message(source, channels_last(x.double())), target)
    return EngineNetwork(batch, _landscape(batch, x, dtype), target, how.tolerance)


def compiled(network: Network, how: Deployment, beta: float | None = None) -> Graph:
    """The graph of `network` as ``ep-neuro compile`` has it after the passes of all targets."""
    said = how.model_dump(include=set(THRESHOLDS), exclude_none=True) or {"precision": None}
    own = {"sigma-delta": said, "spike": {"reset": how.reset}}
    lowering = Lowering(
        how.code,
        bits=how.bits,
        leak=how.leak,
        steps=how.steps,
        beta=beta,
        parameters=own.get(how.code, {}),
    )
    with warnings.catch_warnings():
        # Training meets it at every step, and its residual tells; `compile` warns.
        warnings.simplefilter("ignore", LeakWarning)
        return run_passes(lower(network), common_passes(lowering)).final


class EngineNetwork:
    """A batch on the executor, led from phase to phase.

    Parameters
    ----------
    batch : Batch
        With its input clamped.
    landscape : Landscape
    y : Tensor or None
        Targets as `Engine.target` has them.
    tolerance : float
        Residual, in heights of the box, up to which a sample counts as settled.
    """

    def __init__(
        self, batch: Batch, landscape: Landscape, y: Tensor | None, tolerance: float
    ) -> None:
        self.batch, self.landscape, self.graph = batch, landscape, batch.engine.graph
        self._y, self._tolerance = y, tolerance
        self._ends: dict[str, Snapshot] = {}

    @torch.no_grad()
    def run(self, phase: str) -> SettleResult:
        """Run `phase` from rest, or from the end of the phase that it names."""
        batch, run = self.batch, self.graph.phase(phase)
        if run.start is None:
            batch.rest()
        else:
            batch.go_to(self._ends[run.start])
        names = [p.name for p in self.graph.neurons if isinstance(p.dynamics, Spiking)]
        spikes = {name: torch.zeros_like(batch.view("z", name)) for name in names}
        weights = spike_weights(run.steps, from_rest=run.start is None)
        for step in range(run.steps):
            batch.step(run, self._y)
            for name, total in spikes.items():
                total.add_(batch.view("z", name), alpha=int(weights[step]))
        self._ends[phase] = batch.moment()
        rates = {name: total.double() / int(weights.sum()) for name, total in spikes.items()}
        return self._result(run.steps, rates)

    def _result(self, steps: int, rates: dict[str, Tensor]) -> SettleResult:
        numbers, landscape, state = self.batch.engine.numbers, self.landscape, {}
        for p in self.graph.neurons:
            if p.name in rates:
                shown = rates[p.name]
            else:
                shown = numbers.real(p, self.batch.view("z", p.name))
            real = p.readout.offset + p.readout.gain * channels_first(shown)
            state[p.name] = real.to(landscape.constant[p.name])
        drive = {p: landscape.drive(state, p) for p in state}
        kinds = landscape.activations
        away = [distance(kinds[p], kinds[p](drive[p]), z) for p, z in state.items()]
        residual = torch.stack(away).amax(0)
        settled = bool((residual <= self._tolerance).all())
        status = Status.SETTLED if settled else Status.NOT_SETTLED
        if not bool(torch.isfinite(residual).all()):
            status = Status.DIVERGED
        return SettleResult(state, status, residual, steps, float(steps), drive)


@torch.no_grad()
def energy_of(graph: Graph, x: Tensor) -> Landscape | None:
    """The energy that `graph` descends in real units under raw inputs `x` (N, *input shape).

    None where there is none: a weight that serves one way only, or at several places.
    """
    ties = graph.tied(recurrent=True)
    symmetric = all(tie.forward and tie.backward for tie in ties) and not graph.split
    if not symmetric or len(graph.tied()) != len(graph.ties):
        return None
    engine, (source,) = Engine(graph), graph.sources
    batch = engine.batch(engine.numbers.message(source, channels_last(x.double())))
    return _landscape(batch, x, torch.float64)


def _landscape(batch: Batch, x: Tensor, dtype: torch.dtype) -> Landscape:
    """The energy that the graph of `batch` descends in real units, under its constant drive."""
    graph = batch.engine.graph
    network = Network(spec_of(graph)).to(x.device, dtype)
    for tie in map(graph.tie, graph.ties):
        network.weights[tie.name].copy_(torch.from_numpy(real_weight(graph, tie.weight)))
    landscape, low = Landscape(network, x), {}
    for p in graph.neurons:
        if isinstance(p.dynamics, Spiking) and p.dynamics.reset == "hard":
            lo, height = p.readout.offset, p.readout.gain
            landscape.activations[p.name] = HardReset((lo, lo + height))
        one = 1 if p.state is None else p.state.one
        drive = channels_first(batch.view("constant", p.name)).double() / one
        landscape.constant[p.name] = (p.readout.offset + p.readout.gain * drive).to(dtype)
        low[p.name] = landscape.constant[p.name].new_full((1, *p.shape), p.readout.offset)
    for name, constant in landscape.constant.items():
        constant.sub_(landscape.linear_drive(low, name))
    return landscape

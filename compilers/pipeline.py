"""Ordered passes, the trace of every stage, and the way from a network to a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from compilers.hardware.limits import Violation
from compilers.ir.graph import FixedPoint, Graph
from compilers.ir.plasticity import DIFFERENCE
from compilers.model_options import fresh_headroom, inferring, neurons_of, taken_from
from compilers.options import declared, refuse_unknown
from compilers.passes.choose_leak import choose_leak
from compilers.passes.encode import encode
from compilers.passes.expand_couplings import expand_couplings
from compilers.passes.fold_boxes import fold_boxes
from compilers.passes.make_plastic import make_plastic
from compilers.passes.quantize import FEW_BITS, MESSAGE_FRAC, quantize
from compilers.passes.spectrum import MAX_LEAKS, largest_leak
from compilers.passes.units import faintness
from compilers.passes.validate import validate
from compilers.program import Program, versions
from ep_neuro.deployment.nudgeable import refuse_unnudgeable
from ep_neuro.errors import CheckFailed, GraphError

if TYPE_CHECKING:
    from ep_neuro.network.checkpoint import Model
    from ep_neuro.network.network import Network

FRONTEND = "frontend"
"""Name of the stage that comes before every pass."""

STATE_BITS = 24
"""Bits of a membrane in a graph of integers: those of Loihi 2."""

STATE_FRAC, FINE_FRAC = 16, 20
"""Fractional bits of a membrane by default, and where messages want as many: 8 heights are left."""

SPIKE_BETA = 0.5
"""Nudging factor of spikes that learn: below it, counting errors are large beside the response."""

Observer = Callable[[str, Graph], None]
"""Called with the name and the result of each stage as it ends."""


@dataclass(frozen=True)
class Pass:
    """A named pure function ``Graph -> Graph`` that leaves its input as it is."""

    name: str
    run: Callable[[Graph], Graph]


@dataclass(frozen=True)
class Trace:
    """The graph after each stage, in order, as (name, graph); the first is what came in."""

    stages: tuple[tuple[str, Graph], ...]

    @property
    def final(self) -> Graph:
        """The graph after the last pass."""
        return self.stages[-1][1]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(name for name, _ in self.stages)

    def after(self, name: str) -> Graph:
        """The graph after stage `name`; `GraphError` if there was none."""
        for stage, graph in self.stages:
            if stage == name:
                return graph
        raise GraphError(f"pass '{name}'", "did not run", f"choose from {', '.join(self.names)}")


class Emitter(Protocol):
    """What the pipeline needs of a backend; `targets.interface.protocols.Backend` is one.

    With `byte_weights` a weight of 8 bits has no room for an exponent of its channel.
    """

    name: str
    byte_weights: bool = False

    def passes(self, options: Mapping[str, Any]) -> Sequence[Pass]:
        """Passes that the target adds after the common ones."""
        ...

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Every limit that `graph` breaks, all at once; pure."""
        ...

    def emit(self, graph: Graph) -> Program:
        """The program of `graph`: inspectable and serialisable."""
        ...


def run_passes(graph: Graph, passes: Sequence[Pass], observer: Observer | None = None) -> Trace:
    """Apply `passes` in order and keep every stage."""
    stages = [(FRONTEND, graph)]
    if observer is not None:
        observer(*stages[0])
    for step in passes:
        stages.append((step.name, step.run(stages[-1][1])))
        if observer is not None:
            observer(*stages[-1])
    return Trace(tuple(stages))


@dataclass(frozen=True)
class Lowering:
    """How the passes that every target shares lower a graph; those of `compile`'s options.

    Attributes
    ----------
    code : str
        What neurons send, ``graded``, ``sigma-delta`` or ``spike``.
    bits : int, optional
        Bits of a weight; None stays in floating point.
    headroom : int
        Bits of a weight that are left for learning to fill; see `quantize`.
    per_channel : bool, optional
        Whether channels have exponents of their own; see `quantize`.
    message_frac : int, optional
        Fractional bits of a graded message in a graph of integers; None: 8, as `quantize` has it,
        and in a graph that is to learn as many more as a response grows fainter on its way back
        (`compilers.passes.units.faintness`), if the membrane has them.
    state_frac : int, optional
        Fractional bits of the 24 of a membrane in a graph of integers; None: 16, as `quantize` has
        it, or 20 where messages are to have 16 and more. With 20 membranes reach up to 8 heights of
        the box and fewer gains cut bits off, so that more projections are stock processes of Lava.
    leak : float, optional
        Largest leak; stability may call for a smaller one. None: that of
        `compilers.passes.spectrum.largest_leak`.
    steps, nudged_steps, beta : optional
        Of the phases; see `encode`.
    parameters : mapping
        Further fields of the neurons' dynamics, and ``precision``; see `encode`.
    learns : bool
        Whether weights and biases are to learn from small changes of states.
    """

    code: str = "graded"
    _: KW_ONLY
    bits: int | None = None
    headroom: int = 0
    per_channel: bool | None = None
    message_frac: int | None = None
    state_frac: int | None = None
    leak: float | None = None
    steps: int | None = None
    nudged_steps: int | None = None
    beta: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    learns: bool = False

    def to_learn(self, rule: str) -> Lowering:
        """The same for a graph that is to learn, where nothing else is asked for."""
        # Weights that learn may grow until whole steps of weakly coupled ones would overshoot.
        leak = MAX_LEAKS.get(self.code) if self.leak is None else self.leak
        # A nudge moves states less than thresholds that balance the output's error let through.
        parameters = {"precision": None, **self.parameters}
        beta = SPIKE_BETA if self.beta is None and self.code == "spike" else self.beta
        # Differences have a scale of their own.
        fine = rule != DIFFERENCE.name
        return replace(self, leak=leak, parameters=parameters, beta=beta, learns=fine)

    def integers(self, graph: Graph) -> Graph:
        """`graph` in integers of these formats."""
        frac, state = self.message_frac, self.state_frac
        if frac is None:
            frac = MESSAGE_FRAC
            if self.learns and graph.encoding == "graded":
                frac = min(frac + max(faintness(graph).values()), (state or FINE_FRAC) - 1)
        if state is None:
            state = STATE_FRAC if frac < STATE_FRAC else FINE_FRAC
        assert self.bits is not None
        return quantize(
            graph,
            self.bits,
            FixedPoint(STATE_BITS, state),
            frac,
            headroom=self.headroom,
            per_channel=self.per_channel,
        )


def common_passes(how: Lowering) -> list[Pass]:
    """The passes that every target shares, in order."""
    largest = partial(largest_leak, how.code) if how.leak is None else how.leak
    encoded = partial(
        encode,
        code=how.code,
        steps=how.steps,
        nudged_steps=how.nudged_steps,
        beta=how.beta,
        **how.parameters,
    )
    passes = [
        Pass("validate", validate),
        Pass("expand_couplings", expand_couplings),
        Pass("choose_leak", lambda graph: choose_leak(graph, largest)),
        Pass("fold_boxes", fold_boxes),
        Pass("encode", encoded),
    ]
    if how.bits is not None:
        return [*passes, Pass("quantize", how.integers)]
    for what, name in (("messages", "message_frac"), ("membranes", "state_frac")):
        if (bits := getattr(how, name)) is not None:
            problem = f"{bits} fractional bits, and numbers are in floating point"
            raise GraphError(what, problem, f"give bits, 8 for instance, or drop {name}")
    return passes


def compile(
    model: Model | Network,
    target: str | Emitter = "reference",
    *,
    code: str | None = None,
    bits: int | None = None,
    headroom: int | None = None,
    message_frac: int | None = None,
    state_frac: int | None = None,
    leak: float | None = None,
    steps: int | None = None,
    nudged_steps: int | None = None,
    beta: float | None = None,
    parameters: Mapping[str, Any] | None = None,
    learn: str | None = None,
    options: Mapping[str, Any] | None = None,
    provenance: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    check: bool = True,
) -> Program:
    """Lower a network, run the common passes and the target's own, and emit a program.

    Parameters
    ----------
    model : Model or Network
        Spec and parameters. A model that was fine-tuned on a deployment is compiled as it was
        tuned, where nothing else is asked for; one that training measured (`ranges` in its
        metadata) with boxes drawn tight round its states, unless it is to `learn`.
    target : str or Emitter
        A backend, or the name of one.
    code, bits, steps, leak : optional
        As the model was fine-tuned, else as `Lowering` has them.
    headroom : int, optional
        Bits of a weight that are left for learning to fill (`quantize`). By default as many as
        learning from scratch needs (`FRESH_HEADROOM`) if a model of fresh weights is to `learn`;
        none for any other, and for a network, of which nobody knows.
    message_frac, state_frac, nudged_steps, beta : optional
        See `Lowering`.
    parameters : mapping, optional
        See `Lowering`; the thresholds that the model was fine-tuned with if left out.
    learn : str, optional
        Name of the rule by which weights and biases shall learn on the target; see `make_plastic`.
    options : mapping, optional
        Options of the backend; JSON values.
    provenance : mapping, optional
        Notes to keep with the program, beside the hash of the model and the name of its data.
    observer : callable, optional
        Sees every stage, ``observer(name, graph)``.
    check : bool
        Whether a broken limit is an error; with False, ask ``backend.check`` yourself.

    Raises
    ------
    TargetError
        If there is no target of this name.
    ConfigError
        If the backend declares its options, and one of `options` is not among them.
    ModelError
        If the metadata of a model tells of a deployment that there is not.
    GraphError
        If an option does not fit the network, such as a nudge whose cost no target nudges by, or
        one of `parameters` the neurons of the target.
    CheckFailed
        If the graph breaks a limit of the backend; names the first, counts the rest.
    """
    from compilers import backend_of
    from compilers.frontend import lower  # here: importing the compiler shall not import torch

    backend, options = backend_of(target), dict(options or {})
    given = dict(
        code=code,
        bits=bits,
        headroom=headroom,
        message_frac=message_frac,
        state_frac=state_frac,
        leak=leak,
        steps=steps,
        nudged_steps=nudged_steps,
        beta=beta,
        parameters=parameters,
    )
    said = {name: value for name, value in given.items() if value is not None}
    network, notes, how = _told_by(model, said, learns=learn is not None)
    if learn is not None or beta is not None or nudged_steps is not None:
        refuse_unnudgeable(network.spec.name, network.spec.cost)
    known = declared(backend)
    if known is not None:
        refuse_unknown(f"target '{backend.name}'", options, known)
    if backend.byte_weights and how.bits is not None:
        how = replace(how, per_channel=how.bits < FEW_BITS)
    passes = common_passes(how if learn is None else how.to_learn(learn))
    passes += backend.passes(options)
    if learn is not None:
        passes.append(Pass("make_plastic", lambda graph: make_plastic(graph, learn, units=True)))
    passes.append(Pass("verify", validate))
    trace = run_passes(lower(network, {**notes, **(provenance or {})}), passes, observer)
    _refuse_overruled(backend, trace, parameters or {}, how.leak)
    if check:
        _refuse_violations(backend, trace.final)
    program = backend.emit(trace.final)
    notes = {**trace.final.provenance, **versions(), "passes": ", ".join(trace.names)}
    return replace(program, options=options, provenance={**notes, **program.provenance})


compile_network = compile
"""The same under its older name."""


def _told_by(
    model: Model | Network, said: dict[str, Any], *, learns: bool
) -> tuple[Network, dict[str, str], Lowering]:
    """The network of `model`, notes on it, and its lowering, where not `said` as it wants it."""
    from ep_neuro.network.checkpoint import Model

    if not isinstance(model, Model):
        return model, {}, Lowering(**said)
    notes = {"model.sha256": model.digest}
    notes |= {k: str(v) for k, v in model.metadata.items() if k in ("data", "data.sha256")}
    how = Lowering(**(taken_from(model, code=None, bits=None, steps=None, leak=None) | said))
    own: dict[str, Any] = {
        "parameters": neurons_of(model, how.code),
        "headroom": fresh_headroom(how.bits) if learns and model.fresh else 0,
    }
    return model.network if learns else inferring(model), notes, replace(how, **(own | said))


def _refuse_overruled(
    backend: Emitter, trace: Trace, parameters: Mapping[str, Any], leak: float | None
) -> None:
    """Raise `GraphError` if the target's own passes changed what was asked of the neurons."""
    for p in trace.after("encode").neurons:
        was: Any = p.dynamics
        now: Any = trace.final.population(p.name).dynamics
        asked = {name: getattr(was, name, None) for name in parameters}
        # A leak is the largest that is wanted; it may be less.
        if leak is not None and now.leak > max(leak, was.leak):
            asked["leak"] = leak
        for name, value in asked.items():
            there = getattr(now, name, None)
            if value != there:
                problem = f"{value} was asked for, and neurons of target '{backend.name}' have "
                remedy = f"ask for {there}, or compile for another target"
                raise GraphError(f"parameter '{name}'", f"{problem}{there}", remedy)


def _refuse_violations(backend: Emitter, graph: Graph) -> None:
    violations = backend.check(graph)
    if violations:
        first, more = violations[0], len(violations) - 1
        subject, _, rest = str(first).partition(": ")
        problem, _, remedy = rest.rpartition("; ")
        also = f" (and {more} more)" if more else ""
        raise CheckFailed(f"target '{backend.name}', {subject}", f"{problem}{also}", remedy)

"""make_plastic: says what learns, by which rule and rate, and which phases teach it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from compilers.ir.graph import Conv, ConvTranspose, Graph, Phase, Spiking
from compilers.ir.plasticity import (
    CONTRASTIVE,
    ONE_SIDED,
    SPIKE_AVERAGE,
    Plasticity,
    Rule,
    named_rule,
)
from compilers.passes.send_differences import send_differences
from compilers.passes.units import coarseness, unit_power
from ep_neuro.deployment.nudgeable import refuse_unnudgeable
from ep_neuro.errors import GraphError

RATE = 0.1
"""Learning rate by default."""


def default_rule(graph: Graph) -> Rule:
    """The rule of the graph's encoding by default."""
    return SPIKE_AVERAGE if graph.encoding == "spike" else CONTRASTIVE


def make_plastic(
    graph: Graph,
    rule: str | Rule | None = None,
    *,
    lr: float | Mapping[str, float] = RATE,
    decay: float = 0.0,
    only: Collection[str] | None = None,
    beta: float | None = None,
    steps: int | None = None,
    nudged_steps: int | None = None,
    keep: bool | None = None,
    seed: int = 0,
    units: bool = False,
) -> Graph:
    """Let weights and biases of `graph` learn, and give it the phases of the rule.

    Parameters
    ----------
    graph : Graph
        With directed projections, encoded, and quantised if it will be; a graph that is plastic
        already is made plastic anew.
    rule : str or Rule, optional
        A rule or the name of one; None: that of the encoding (`default_rule`).
    lr : float or mapping
        Learning rate: a commit moves a weight by ``-lr`` times the EP gradient of the mean cost.
        A mapping gives one by id, and freezes what it does not name.
    decay : float
        Share of a weight that every commit takes away; biases keep theirs.
    only : collection of str, optional
        Ids of the weights and biases that learn; None: all.
    beta : float, optional
        Magnitude of the nudging factor; None: that of the graph's nudged phases.
    steps, nudged_steps : int, optional
        Length of the free and of a nudged phase; None: those of the graph.
    keep : bool, optional
        Replaces `Rule.keep`. None: that of a `Rule` that is given; one that is named, or that of
        the encoding, keeps what rounding leaves where integer kernels learn, as all places at
        which a synapse stands would share its noise.
    seed : int
        Of the random numbers of the commits.
    units : bool
        Whether rates and tags are in units (`compilers.passes.units`).

    Raises
    ------
    GraphError
        If the rule does not exist, cannot run on the encoding or its phases cannot teach it, `only`
        names what does not exist, the graph is not ready, or no target nudges by its cost.
    """
    refuse_unnudgeable(graph.name, graph.cost)
    for p in graph.split:
        problem = "its synapses lie on the cores of partial sums and do not see the neuron beyond"
        remedy = f"narrow '{p.pre}', or learn it off chip"
        raise GraphError(f"projection '{p.name}'", problem, remedy)
    rates = dict.fromkeys(learnable(graph), lr) if not isinstance(lr, Mapping) else dict(lr)
    wanted = set(rates) if only is None else set(only) & set(rates)
    if keep is None and not isinstance(rule, Rule):
        keep = _has_integer_kernels(graph, wanted)
    rule = default_rule(graph) if rule is None else rule
    rule = named_rule(rule) if isinstance(rule, str) else rule
    rule = rule if keep is None else replace(rule, keep=keep)
    _refuse_unknown(graph, {*rates, *(only or ())})
    phases = program_of(rule, graph, beta=beta, steps=steps, nudged_steps=nudged_steps)
    graph = replace(graph, phases=phases)
    graph = send_differences(graph) if rule.differs else _without_differences(graph)
    phases = graph.phases
    contrast = sum(p.sign * p.nudge for p in phases)
    _refuse_no_contrast(phases)
    bits = int(graph.provenance["bits"]) if graph.quantised and "bits" in graph.provenance else None
    masks = {p.weight: p.mask for p in graph.plasticity}
    records = tuple(
        Plasticity(
            weight=name,
            rule=rule,
            rate=rates[name] / contrast,
            decay=decay if name in graph.ties else 0.0,
            bits=bits if name in graph.ties else None,
            mask=masks.get(name),
            seed=seed,
            power=unit_power(graph, name) if units else 0,
            coarser=coarseness(graph, name) if units else 0,
        )
        for name in learnable(graph)
        if name in wanted
    )
    plastic = graph.with_arrays(phases=phases, plasticity=records)
    check_plasticity(plastic, required=True)
    return plastic


def _has_integer_kernels(graph: Graph, learnt: Collection[str]) -> bool:
    kernels = (p for p in graph.projections if isinstance(p.operator, Conv | ConvTranspose))
    return graph.quantised and any(p.weight in learnt for p in kernels)


def _without_differences(graph: Graph) -> Graph:
    """`graph` whose populations are as loud in all phases."""
    return replace(graph, populations=tuple(replace(p, louder=0) for p in graph.populations))


def learnable(graph: Graph) -> tuple[str, ...]:
    """Ids of all weights and biases of `graph`, in its order."""
    biases = (p.bias for p in graph.neurons if p.bias is not None)
    return (*graph.ties, *biases)


def _refuse_unknown(graph: Graph, names: Collection[str]) -> None:
    known = learnable(graph)
    for name in names:
        if name not in known:
            remedy = f"choose from {', '.join(known)}" if known else "run the pass expand_couplings"
            raise GraphError(f"plasticity of '{name}'", "there is no such weight or bias", remedy)


# --- phase programs ----------------------------------------------------------------------------


def program_of(
    rule: Rule,
    graph: Graph,
    *,
    beta: float | None = None,
    steps: int | None = None,
    nudged_steps: int | None = None,
) -> tuple[Phase, ...]:
    """The phases of `rule`; lengths and beta that are None come from the phases of `graph`.

    Contrastive: free, ``+beta``, back to the free state, ``-beta``, commit. One-sided: free,
    ``+beta``, commit. A rule that runs at every step: free, ``+beta`` with a commit at each step.
    """
    nudged = next((p for p in graph.phases if p.nudge != 0), None)
    if steps is None:
        steps = graph.phases[0].steps if graph.phases else 1
    if nudged_steps is None:
        nudged_steps = nudged.steps if nudged else max(1, steps // 2)
    if beta is None:
        beta = abs(nudged.nudge) if nudged else 0.0
    plus = Phase("nudged+", nudged_steps, beta, "free", 1)
    if rule.when == "step":
        return (Phase("free", steps), replace(plus, commit=True))
    if rule.name == ONE_SIDED.name:
        return (Phase("free", steps, sign=-1), replace(plus, commit=True))
    minus = Phase("nudged-", nudged_steps, -beta, "free", -1, commit=True)
    return (Phase("free", steps), plus, minus)


# --- checks ------------------------------------------------------------------------------------


def check_plasticity(graph: Graph, required: bool = False) -> None:
    """Refuse rules that do not fit the graph, and phases that teach nothing; change nothing.

    Parameters
    ----------
    graph : Graph
    required : bool
        Whether something has to learn.

    Raises
    ------
    GraphError
        At the first record or phase that is wrong, or if no target nudges by the graph's cost.
    """
    if graph.plasticity or required:
        refuse_unnudgeable(graph.name, graph.cost)
    if not graph.plasticity:
        if required:
            remedy = "compile with --learn, contrastive for instance"
            raise GraphError(f"graph '{graph.name}'", "nothing in it learns", remedy)
        return
    if graph.couplings:
        problem = f"{len(graph.couplings)} couplings are not directed projections yet"
        raise GraphError(f"graph '{graph.name}'", problem, "run the pass 'expand_couplings'")
    names = [r.weight for r in graph.plasticity]
    _refuse_unknown(graph, names)
    for record in graph.plasticity:
        subject = f"plasticity of '{record.weight}'"
        if names.count(record.weight) > 1:
            raise GraphError(subject, "it stands twice", "give one record")
        _check_record(graph, record, subject)
    _check_program(graph)


def _check_record(graph: Graph, record: Plasticity, subject: str) -> None:
    if not 0 < record.rate < math.inf:
        raise GraphError(subject, f"rate {record.rate} is not above 0", "give a learning rate")
    if not 0 <= record.decay < 1:
        raise GraphError(subject, f"decay {record.decay} is not in [0, 1)", "give 0, for instance")
    weight = record.weight in graph.ties
    if weight and graph.quantised and not 2 <= (record.bits or 0) <= 16:
        problem = f"{record.bits} bits of an integer weight are not in 2 to 16"
        raise GraphError(subject, problem, "run make_plastic after quantize")
    if record.rule.when == "step" and any(isinstance(p.dynamics, Spiking) for p in graph.neurons):
        problem = f"rule '{record.rule.name}' needs a state at every step, and spikes are a mean"
        raise GraphError(subject, problem, "use spike-average, or the code graded or sigma-delta")
    if record.mask is None:
        return
    mask = graph.arrays.get(record.mask)
    shape = graph.arrays[record.weight].shape
    shape = shape if weight else shape[:1]
    if mask is None or mask.shape != shape:
        found = "is missing" if mask is None else f"is {mask.shape}, not {shape}"
        raise GraphError(subject, f"mask '{record.mask}' {found}", "give one value a synapse")


def _check_program(graph: Graph) -> None:
    subject = f"phases of graph '{graph.name}'"
    for r in graph.plasticity:
        if any(p.sign and p.difference != r.rule.differs for p in graph.phases):
            problem = f"rule '{r.rule.name}' reads {'differences' if r.rule.differs else 'states'}"
            raise GraphError(subject, f"{problem}, and they send others", "run make_plastic anew")
    step = [r.rule.when == "step" for r in graph.plasticity]
    if any(step) and not all(step):
        problem = "some rules run once a phase and some at every step"
        raise GraphError(subject, problem, "use one kind of rule")
    if not any(p.commit for p in graph.phases):
        problem = "none commits, so no weight ever changes"
        raise GraphError(subject, problem, "set commit=True on the last phase")
    _refuse_no_contrast(graph.phases)
    balance = sum(p.sign for p in graph.phases)
    if not any(step) and balance:
        problem = f"plasticity signs add up to {balance}, not 0, so weights grow without an error"
        raise GraphError(subject, problem, "give as many phases of sign 1 as of sign -1")
    last = max((i for i, p in enumerate(graph.phases) if p.sign), default=0)
    if not any(p.commit for p in graph.phases[last:]):
        problem = f"none commits after '{graph.phases[last].name}', which is the last to teach"
        raise GraphError(subject, problem, "set commit=True on the last phase")


def _refuse_no_contrast(phases: Collection[Phase]) -> None:
    contrast = sum(p.sign * p.nudge for p in phases)
    if not 0 < contrast < math.inf:
        betas = ", ".join(f"{p.name} {p.nudge:g}" for p in phases)
        problem = f"nudges ({betas}) times signs add up to {contrast:g}, not above 0"
        raise GraphError("beta", problem, "give a beta above 0, for instance 0.2")

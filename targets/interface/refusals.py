"""Why a target will not run a graph: what is missing, and which limit it breaks first."""

from __future__ import annotations

from collections.abc import Sequence

from compilers.hardware.limits import Violation
from compilers.ir.graph import Graph
from ep_neuro.errors import TargetError
from targets.interface.protocols import Backend, Feature


def refuse_unready(backend: Backend, graph: Graph) -> None:
    """Raise `TargetError` if `backend` cannot run here, or not `graph`."""
    refuse_absent(backend)
    refuse_integers(backend, graph)
    if any(p.difference for p in graph.phases) and not backend.differs:
        problem = f"target '{backend.name}' sends states, and its nudged phases send differences"
        remedy = "use 'reference', or another rule than 'difference'"
        raise TargetError(f"graph '{graph.name}'", problem, remedy)
    refuse_first(backend.check(graph))


def refuse_integers(backend: Backend, graph: Graph) -> None:
    """Raise `TargetError` if `graph` is in integers and `backend` has none."""
    if graph.quantised and Feature.FIXED_POINT in backend.unsupported:
        reason = backend.unsupported[Feature.FIXED_POINT]
        remedy = "compile without --bits, or run it on 'reference'"
        raise TargetError(f"graph '{graph.name}'", reason, remedy)


def refuse_absent(backend: Backend) -> None:
    """Raise `TargetError` if what `backend` needs is missing."""
    state = backend.available()
    if not state.available:
        problem, _, how = state.reason.partition("; ")
        raise TargetError(f"target '{backend.name}'", problem, how)


def refuse_first(violations: Sequence[Violation], limit: str = "{:g}") -> None:
    """Raise `TargetError` for the first of `violations`; `limit` words what it exceeds."""
    if violations:
        first = violations[0]
        more = f" ({len(violations)} violations in all)" if len(violations) > 1 else ""
        value = f"{first.value:g} {first.unit}".rstrip()
        problem = f"{value} exceed {limit.format(first.limit)}{more}"
        raise TargetError(first.subject, problem, first.remedy)


def unrunnable(graph: Graph) -> list[Violation]:
    """Undirected couplings, and projections without delay."""
    hasty = [p.name for p in graph.projections if p.delay < 1]
    return forbidden(
        graph,
        (len(graph.couplings), "undirected couplings", "run the pass 'expand_couplings'"),
        (len(hasty), "projections without a delay", f"delay {', '.join(hasty)} by 1 step"),
    )


ONE_INPUT = "inputs besides one", "give it one Source population"


def unusual(graph: Graph) -> list[Violation]:
    """What other simulators are not written for here: several inputs or encodings, and so on."""
    late = [p.name for p in graph.projections if p.delay > 1]
    apart = [p.name for p in graph.neurons if p.box and not p.box[0] <= 0 <= p.box[1]]
    kinds = {type(p.dynamics).__name__ for p in graph.neurons}
    return forbidden(
        graph,
        (abs(len(graph.sources) - 1), *ONE_INPUT),
        (len(kinds) - 1, "further encodings", f"choose from {', '.join(sorted(kinds))}"),
        (len(late), "delays of other than 1 step", f"delay {', '.join(late)} by 1 step"),
        (len(apart), "boxes without 0", f"run the pass 'fold_boxes' for {', '.join(apart)}"),
    )


def too_many_synapses(backend: Backend, graph: Graph, which: str, synapses: int) -> list[Violation]:
    """More `synapses`, `which` are counted, than `backend` can list."""
    found = backend.limits({}).violation(
        "synapses",
        f"graph '{graph.name}', {which}",
        synapses,
        "narrow the feature maps: every place of a kernel is a synapse of its own",
    )
    return [] if found is None else [found]


def unreached(graph: Graph) -> list[Violation]:
    """Populations that no projection drives."""
    silent = [p.name for p in graph.neurons if not graph.into(p.name)]
    connect = f"connect {', '.join(silent)}"
    return forbidden(graph, (len(silent), "populations that nothing reaches", connect))


def forbidden(graph: Graph, *found: tuple[int, str, str]) -> list[Violation]:
    """What `graph` has and may not have, of how many, what, and the remedy."""
    return [
        Violation(f"graph '{graph.name}', {what}", count, 0, remedy)
        for count, what, remedy in found
        if count > 0
    ]

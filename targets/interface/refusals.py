"""Why a target will not run a graph: what is missing, and which limit it breaks first."""

from __future__ import annotations

from compilers.hardware.limits import Violation
from compilers.ir.graph import Graph
from ep_neuro.errors import TargetError
from targets.interface.protocols import Backend, Feature


def refuse_unready(backend: Backend, graph: Graph) -> None:
    """Raise `TargetError` if `backend` cannot run here, or not `graph`."""
    refuse_absent(backend)
    refuse_integers(backend, graph)
    refuse_violations(backend, graph)


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


def refuse_violations(backend: Backend, graph: Graph) -> None:
    """Raise `TargetError` for the first limit of `backend` that `graph` breaks."""
    if violations := backend.check(graph):
        first = violations[0]
        more = f" ({len(violations)} violations in all)" if len(violations) > 1 else ""
        problem = f"{first.value:g} {first.unit}".rstrip() + f" exceed {first.limit:g}{more}"
        raise TargetError(first.subject, problem, first.remedy)


def unrunnable(graph: Graph) -> list[Violation]:
    """Undirected couplings, and projections without delay."""
    expand = "run the pass 'expand_couplings'"
    hasty = [p.name for p in graph.projections if p.delay < 1]
    delay = f"delay {', '.join(hasty)} by 1 step"
    return [
        *_none(graph, "undirected couplings", len(graph.couplings), expand),
        *_none(graph, "projections without a delay", len(hasty), delay),
    ]


def unreached(graph: Graph) -> list[Violation]:
    """Populations that no projection drives."""
    silent = [p.name for p in graph.neurons if not graph.into(p.name)]
    connect = f"connect {', '.join(silent)}"
    return _none(graph, "populations that nothing reaches", len(silent), connect)


def _none(graph: Graph, what: str, found: int, remedy: str) -> list[Violation]:
    return [Violation(f"graph '{graph.name}', {what}", found, 0, remedy)] if found else []

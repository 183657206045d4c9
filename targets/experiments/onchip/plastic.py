"""Programs made ready to learn on their target: which rule, at which rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import targets
from compilers.ir.graph import Graph
from compilers.ir.plasticity import Plasticity
from compilers.passes.make_plastic import RATE, check_plasticity, learnable, make_plastic
from compilers.program import Program


def plastic(
    program: Program,
    *,
    rule: str | None = None,
    rate: float | None = None,
    output_rate: float | None = None,
    keep: bool | None = None,
    log: Callable[[str], None] | None = None,
) -> Program:
    """`program` ready to learn.

    Parameters
    ----------
    program : Program
        With plasticity or without.
    rule : str, optional
        Name of a rule; None: the program's own, or the one of its encoding.
    rate : float, optional
        Learning rate of every weight and bias that learns; None: the program's own.
    output_rate : float, optional
        Another one for what comes into the output, which wants a smaller one where many neurons
        are active; None: no other.
    keep : bool, optional
        Whether what the rounding of an integer weight leaves stays in its tag, see
        `compilers.ir.plasticity.Rule`; None: as the rule says.
    log : callable, optional
        Told of what the program did not say itself.

    Raises
    ------
    TargetError
        If the target cannot learn.
    GraphError
        If the rule does not exist or fit, or the rate is not above 0.
    """
    targets.require_learning(targets.get(program))
    graph = program.graph
    if graph.plasticity and rule is None:
        rates = _rates(graph, rate, output_rate)
        if not rates and keep is None:
            return program
        records = tuple(_changed(r, graph, rates.get(r.weight), keep) for r in graph.plasticity)
        graph = replace(graph, plasticity=records)
        check_plasticity(graph, required=True)
        return replace(program, graph=graph)
    lr = RATE if rate is None else rate
    graph = make_plastic(graph, rule, lr=_rates(graph, lr, output_rate), keep=keep, units=True)
    if log is not None and rule is None:
        chosen = graph.plasticity[0].rule.name
        log(f"the program has no learning rule; it takes '{chosen}' at rate {lr:g}")
    return replace(program, graph=graph)


def _rates(graph: Graph, rate: float | None, output_rate: float | None) -> dict[str, float]:
    """Learning rates by id, of what gets another one than it has."""
    output = graph.population(graph.output)
    into = {p.weight for p in graph.projections if p.post == output.name} | {output.bias}
    wanted = {
        name: output_rate if output_rate is not None and name in into else rate
        for name in learnable(graph)
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _changed(record: Plasticity, graph: Graph, rate: float | None, keep: bool | None) -> Plasticity:
    if rate is not None:
        record = replace(record, rate=rate / sum(p.sign * p.nudge for p in graph.phases))
    if keep is not None:
        record = replace(record, rule=replace(record.rule, keep=keep))
    return record

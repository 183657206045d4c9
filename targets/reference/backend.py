"""The reference as a backend: what it can do, what it checks, what a run would cost on Loihi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compilers.artifact import Program, versions
from compilers.ir import Conv, Dense, Graph, Projection
from compilers.limits import HardwareLimits, Quantity, Violation
from compilers.operators import shift_channels
from compilers.pipeline import Pass
from ep_neuro.errors import TargetError
from targets.base import Availability, CostEstimate, Feature, Options, RunResult
from targets.nominal import estimate_on_loihi
from targets.reference.session import ReferenceSession

EXACT_BITS = 53
"""Float64 holds every integer up to ``2**53``: the operators' sums must stay below."""

WORD_BITS = 63
"""An int64 holds magnitudes below ``2**63``: a rescaled product must, too."""


class ReferenceBackend:
    """Executes a graph as `compilers.ir` defines it, in float64 or in exact integers."""

    name = "reference"
    summary = "exact execution of a graph on NumPy, in float64 or integers: the oracle"
    tolerance = 0.0
    unsupported: Mapping[Feature, str] = {
        Feature.LEARNING: "it executes settling only; weights are trained by `ep-neuro train`"
    }

    def available(self) -> Availability:
        """Always: it needs NumPy only."""
        return Availability(True)

    def limits(self, options: Options) -> HardwareLimits:
        """The word lengths within which integer arithmetic is exact."""
        return HardwareLimits(
            self.name,
            {
                "accumulator": Quantity(EXACT_BITS, "bits", "IEEE 754-2008, binary64 significand"),
                "product": Quantity(WORD_BITS, "bits", "magnitude of a 64-bit integer"),
            },
        )

    def passes(self, options: Options) -> Sequence[Pass]:
        """None: a graph runs as it is."""
        return ()

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Every projection whose integer sums could leave the exact range."""
        if not graph.quantised:
            return ()
        limits = self.limits({})
        found: list[Violation | None] = []
        for p in graph.projections:
            accumulator, product = integer_bits(graph, p)
            subject = f"projection '{p.name}'"
            remedy = "use fewer bits for weights or messages"
            for limit, bits in (("accumulator", accumulator), ("product", product)):
                found.append(limits.violation(limit, f"{subject}, {limit}", bits, remedy))
        return tuple(v for v in found if v is not None)

    def emit(self, graph: Graph) -> Program:
        """The graph itself is the program."""
        return Program(target=self.name, graph=graph, provenance=versions())

    def open(self, program: Program) -> ReferenceSession:
        """Load `program`.

        Raises
        ------
        TargetError
            If the graph still has undirected couplings, or its integers could overflow.
        """
        graph = program.graph
        if graph.couplings:
            problem = f"{len(graph.couplings)} couplings are not directed projections yet"
            raise TargetError(f"graph '{graph.name}'", problem, "run the pass 'expand_couplings'")
        violations = self.check(graph)
        if violations:
            first = violations[0]
            problem = f"{first.value:g} {first.unit} exceed {first.limit:g}"
            more = f" ({len(violations)} violations in all)" if len(violations) > 1 else ""
            raise TargetError(first.subject, problem + more, first.remedy)
        return ReferenceSession(program)

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time on the nominal hardware; see `targets.nominal`."""
        return estimate_on_loihi(program, result)


def integer_bits(graph: Graph, p: Projection) -> tuple[int, int]:
    """Bits that the sums of projection `p` can need, before and after the multiplier.

    The bound is the largest l1 norm of a receiving neuron's weights times the largest message.
    """
    source = graph.population(p.pre)
    if source.message is None or p.rescale is None:
        problem = "it has no integer gain or its source no message format"
        raise TargetError(f"projection '{p.name}'", problem, "run the pass 'quantize'")
    exponent = None if p.exponent is None else graph.arrays[p.exponent]
    weight = np.abs(shift_channels(graph.arrays[p.weight], exponent)).astype(np.float64)
    receiving = 0 if isinstance(p.operator, Dense | Conv) else 1
    norms = weight.sum(axis=tuple(i for i in range(weight.ndim) if i != receiving))
    largest = int(norms.max()) * -source.message.range[0]
    widened = max(p.rescale.shift, 0)
    product = largest * max(1, abs(p.rescale.multiplier)) << widened
    return largest.bit_length(), product.bit_length()

"""Plastic weights whose changes are pulses on devices; `ep-neuro learn` learns with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compilers.ir.graph import Graph
from compilers.learning.plastic_weights import PlasticWeights
from compilers.learning.synapses import Synapses, Traces
from ep_neuro.errors import GraphError
from targets.crossbar.arrays.array import Array


class PulsedWeights(PlasticWeights):
    """Weights on devices that a commit pulses, by a method of theirs; biases are digital.

    With the traces of the two phases that teach written as ``m + h`` and ``m - h``, their contrast
    (Laborieux et al. 2021, eq. 11) is ``2 (m_post h_pre^T + h_post m_pre^T)``: outer products that
    pulses on both sides of an array make at once, with nothing of what both phases have in common
    to be written and erased again.

    Parameters
    ----------
    graph : Graph
        Plastic, in floating point.
    arrays : mapping of Array
        By id of the weight.

    Raises
    ------
    GraphError
        If a rule is none of the contrast of two phases, or synapses are stuck by a mask.
    """

    def __init__(self, graph: Graph, arrays: Mapping[str, Array]) -> None:
        super().__init__(graph)
        self._arrays = {s.record.weight: arrays[s.record.weight] for s in self._on(arrays)}
        signs = sorted(p.sign for p in graph.phases if p.sign)
        for record in graph.plasticity:
            rule, subject = record.rule, f"plasticity of '{record.weight}'"
            products = {t.factors for t in rule.tag_terms} - {("tag",)}
            if products != {("post", "pre", "sign")} or signs != [-1, 1] or rule.when == "step":
                problem = f"pulses cannot follow the rule '{rule.name}', no contrast of two phases"
                raise GraphError(subject, problem, "use --learn contrastive, or learning=written")
            if record.mask is not None or record.decay:
                problem = f"pulses know no {'mask' if record.mask is not None else 'decay'}"
                raise GraphError(subject, problem, "use option dead, or learning=written")
        self._seen: dict[int, Traces] = {}

    def _on(self, arrays: Mapping[str, Array]) -> list[Synapses]:
        return [s for s in self.synapses if s.record.weight in arrays]

    def accumulate(self, sign: int, now: Traces, before: Traces) -> None:
        """Keep the traces of a phase until the commit; biases have their tags."""
        super().accumulate(sign, now, before)
        self._seen[sign] = now

    def commit(self, samples: int, scale: float = 1.0) -> None:
        """Pulse the devices, and change the biases."""
        high, low = self._seen[1], self._seen[-1]
        for s in self._on(self._arrays):
            assert s.pre is not None
            mean, half = (
                [(high[p.name] + sign * low[p.name]) / 2 for p in (s.pre, s.post)]
                for sign in (1, -1)
            )
            terms = [(m, h) for m, h in ((mean[0], half[1]), (half[0], mean[1])) if m.any()]
            rate = 2 * s.record.step * scale / samples * s.pre.readout.gain * s.post.readout.gain
            if terms:
                pre, post = (np.concatenate(side) for side in zip(*terms, strict=True))
                self._arrays[s.record.weight].pulse(pre, post, rate)
        held = {name: self.weights[name] for name in self._arrays}
        moved = self.changed
        super().commit(samples, scale)
        # What the devices did stands in place of what they were asked to do.
        self.changed = moved
        for name, before in held.items():
            self.weights[name] = self._arrays[name].weights()
            self.changed += float(np.abs(self.weights[name] - before).mean()) / len(held)

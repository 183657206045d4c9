"""Learning from mistakes: samples that are answered well ahead of all else are passed over.

They have hardly an error, so that all that they would write is the noise of their spikes; the more
is right, the more of it. The free phase tells which they are (Payvand et al. 2020, "On-chip
error-triggered learning of multi-layer memristive spiking neural networks").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from targets.interface.protocols import LearnResult, RunResult

LOOKED_AT = 100
"""Samples that are answered before those of them that are to be learnt are."""


def is_behind(outputs: np.ndarray, labels: np.ndarray, margin: float) -> np.ndarray:
    """Samples (N,) of whose `outputs` (N, classes) the right one is not ahead by `margin`."""
    right = outputs[np.arange(len(labels)), labels]
    others = outputs.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(right - others.max(1) < margin)


def summed(answers: Sequence[RunResult], learnt: Sequence[LearnResult]) -> LearnResult:
    """What samples did that were all answered, and of which some were learnt after that."""
    shown = np.concatenate([answer.free.outputs.argmax(1) for answer in answers])
    commits = sum(part.commits for part in learnt)

    def each(name: str) -> float:
        counts = [getattr(answer.free, name).values() for answer in answers]
        total = float(sum(c.sum() for values in counts for c in values))
        for part in learnt:
            total += getattr(part, f"{name}_per_sample") * len(part.predictions)
        return total / len(shown)

    return LearnResult(
        predictions=shown,
        commits=commits,
        events_per_sample=each("events"),
        synops_per_sample=each("synops"),
        changed=sum(part.changed * part.commits for part in learnt) / max(1, commits),
        clipped=sum(part.clipped for part in learnt),
        seconds=sum(a.seconds for a in answers) + sum(part.seconds for part in learnt),
    )

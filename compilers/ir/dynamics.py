"""The dynamics of neurons, discrete in time: the docstring of a record is its equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Encoding = Literal["graded", "sigma-delta", "spike"]
Reset = Literal["soft", "hard"]
ENCODINGS: tuple[Encoding, ...] = ("graded", "sigma-delta", "spike")
RESETS: tuple[Reset, ...] = ("soft", "hard")


@dataclass(frozen=True)
class Source:
    """Holds the input: one graded event per non-zero element at the start of a sample.

    ``s(t) = x`` for every ``t``.
    """


@dataclass(frozen=True)
class Graded:
    """Sends its clipped state at every step; an event is a non-zero message.

    ``v += leak (I - v)``, ``z = clip(v, box)``, ``message = z``. Starts at ``v = 0``; read at the
    last step.
    """

    leak: float = 1.0


@dataclass(frozen=True)
class SigmaDelta:
    """Sends the change of its clipped state once that reaches an annealed threshold.

    ``v += leak (I - v)``, ``z = clip(v, box)``, ``d = z - sent``; if ``|d| >= threshold(t)``:
    ``message = d``, ``sent += d``; otherwise nothing is sent. Receivers add messages up.
    ``threshold(t) = max(end, start * decay ** (t - 1))``, ``t = 1`` at the first step of the free
    phase and counted on through the nudged phases. Starts at ``v = sent = 0``; read ``z`` at the
    last step.
    """

    leak: float = 1.0
    start: float = 0.5
    end: float = 0.01
    decay: float = 0.92

    def threshold(self, t: int) -> float:
        """Threshold at step `t` (from 1), in units of the box height."""
        return max(self.end, self.start * self.decay ** (t - 1))


@dataclass(frozen=True)
class Spiking:
    """Integrate-and-fire on a low-passed current; messages are 0 or 1.

    ``u += leak (I - u)``, ``v = clip(v + u, -bound, 1 + bound)``, ``message = (v >= 1)``,
    ``v -= message``. Starts at ``u = 0``, ``v = 0.5``; read the mean of the messages by the
    weights of `compilers.learning.traces.spike_weights`: a triangle over the last half of the
    phase. Soft reset makes the rate ``clip(I, 0, 1)``.
    A hard one, ``v = 0`` where there was a spike, forgets by how much ``v`` was above 1: under a
    constant drive the rate is ``1 / ceil(1 / I)``.
    """

    leak: float = 0.5
    bound: float = 1.0
    reset: Reset = "soft"


Dynamics = Source | Graded | SigmaDelta | Spiking

"""How a program learns: how many samples, in which order and batches, and when to look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from ep_neuro.data.augmentation import Augmentation, augment
from ep_neuro.errors import ConfigError, DataError
from ep_neuro.storage.yaml_io import first_problem
from ep_neuro.training.config import Step

SAMPLES_A_POINT = 1000
"""Samples from one point to the next in a long run: what a kill may cost."""

HALVED = 1000
"""Samples after which rates are half of what they were at first, where nothing else is said."""

MOST_POINTS = 100
"""Points of a very long run, where they would cost more than the samples between them."""


class _Augmented(BaseModel):
    augment: tuple[Step, ...]


def _halvings(done: int) -> int:
    return (1 + done // HALVED).bit_length() - 1


@dataclass(frozen=True)
class Plan:
    """How a program learns.

    Attributes
    ----------
    samples : int
        Samples to learn; the training split is passed through as often as they need.
    batch : int
        Samples from one commit of the weights to the next.
    seed : int
        Of the order of the samples.
    points : int
        Times at which accuracy and updates are measured, and the state is saved.
    anneal : float, optional
        Share of itself to which every rate falls by the end, by equal factors; 1 keeps it. It is
        set twice a point, as the controller of a chip would. None: rates are halved after `HALVED`,
        3, 7, 15 times as many samples and so on, wherever the end is: about as
        ``1 / (1 + samples / HALVED)``, so that steps never end and their noise dies out (Robbins &
        Monro 1951), and by powers of two.
    augment : sequence of Augmentation or mapping
        Steps that each image goes through before it is sent, as in a training configuration; kept
        as mappings, plain data. Each pass draws anew, from `seed` alone.
    margin : float, optional
        Only samples are learnt of which the right output is not ahead of all others by as much,
        in real units; None: all. What is answered well has hardly an error, and what its spikes
        would write is noise (error-triggered learning, Payvand et al. 2020).
    """

    samples: int = 1000
    batch: int = 1
    seed: int = 0
    points: int = 20
    anneal: float | None = None
    augment: tuple[dict[str, Any], ...] = ()
    margin: float | None = None

    def __post_init__(self) -> None:
        plain = tuple(step.model_dump() for step in self._steps())
        object.__setattr__(self, "augment", plain)
        for name in ("samples", "batch", "points"):
            if getattr(self, name) < 1:
                problem = f"{getattr(self, name)} is below 1"
                raise ConfigError(f"learning, {name}", problem, "give at least 1")
        if self.seed < 0:
            raise ConfigError("learning, seed", f"{self.seed} is below 0", "give 0 or more")
        if self.anneal is not None and not 0 < self.anneal <= 1:
            problem = f"{self.anneal:g} is no share above 0"
            raise ConfigError("learning, anneal", problem, "give 0.1, for instance")
        if self.margin is not None and not 0 <= self.margin < np.inf:
            problem = f"{self.margin:g} is no finite number from 0 on"
            raise ConfigError("learning, margin", problem, "give 0.4, for instance")

    @classmethod
    def of(cls, samples: int, **settings: Any) -> Plan:
        """The plan for `samples`, with more points the more there are."""
        points = max(cls.points, min(MOST_POINTS, -(-samples // SAMPLES_A_POINT)))
        return cls(samples, points=points, **settings)

    @property
    def facts(self) -> dict[str, Any]:
        """Plain data, as JSON gives it back."""
        return {**asdict(self), "augment": list(self.augment)}

    def order(self, size: int) -> np.ndarray:
        """Indices into `size` training samples; each pass in an order of its own, (samples,)."""
        if size < 1:
            raise DataError("training split", "it holds 0 samples", "choose other data")
        passes = range(-(-self.samples // size))
        orders = [np.random.default_rng([self.seed, n]).permutation(size) for n in passes]
        return np.concatenate(orders)[: self.samples]

    def _steps(self) -> tuple[Augmentation, ...]:
        try:
            return _Augmented.model_validate({"augment": self.augment}).augment
        except ValidationError as error:
            raise ConfigError("learning", *first_problem(error, _Augmented)) from None

    def augmented(self, pixels: np.ndarray, places: Sequence[int]) -> np.ndarray:
        """Images (N, channels, height, width), which come at `places`, as they are learnt."""
        if not self.augment or not len(pixels):
            return pixels
        steps = self._steps()
        width = sum(step.draws for step in steps)
        drawn = [
            np.random.default_rng([self.seed, place, 1]).random(width, np.float32)
            for place in places
        ]
        return augment(torch.from_numpy(pixels), steps, torch.from_numpy(np.stack(drawn))).numpy()

    def rate_scale(self, done: int) -> float:
        """Factor of every rate after `done` samples."""
        if self.anneal is None:
            return 2.0 ** -_halvings(done)
        return float(self.anneal ** (done / self.samples))

    def stretches(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """The way from `first` to `stop` samples, in parts during which no rate is halved."""
        while self.anneal is None:
            end = HALVED * ((2 << _halvings(first)) - 1)
            end = -(-end // self.batch) * self.batch
            if end >= stop:
                break
            yield first, end
            first = end
        yield first, stop

    @property
    def stops(self) -> list[int]:
        """Samples done at each point but the first, whole batches apart."""
        batches = -(-self.samples // self.batch)
        stride = -(-batches // self.points) * self.batch
        return [*range(stride, self.samples, stride), self.samples]

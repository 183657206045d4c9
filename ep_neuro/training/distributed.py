"""Data parallel training under torchrun: which part of a batch is mine, and means over all ranks.

One machine, many GPUs::

    torchrun --standalone --nproc-per-node gpu -m ep_neuro train CONFIG

Several machines, the same line on each::

    torchrun --nnodes 2 --nproc-per-node gpu --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        -m ep_neuro train CONFIG
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ep_neuro.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` processes of a run, and the device it computes on."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes files and tells of progress."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """My contiguous part of a global batch; none, if that has fewer samples than ranks."""
        return batch.tensor_split(self.world)[self.rank]

    def mean(self, values: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
        """Mean of `values` over all ranks, each weighted by its number of `samples`.

        One all-reduce for all tensors together.
        """
        if self.world == 1:
            return dict(values)
        count = torch.full((1,), float(samples), device=self.device)
        flat = torch.cat([*((v * samples).flatten() for v in values.values()), count])
        dist.all_reduce(flat)
        parts = (flat[:-1] / flat[-1]).split([v.numel() for v in values.values()])
        return {k: p.view_as(v) for (k, v), p in zip(values.items(), parts, strict=True)}

    def gather(self, value: T) -> list[T]:
        """`value` of every rank, in order, on every rank."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def from_leader(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, on every rank."""
        if self.world == 1:
            return make()
        box: list[T | None] = [make() if self.leads else None]
        dist.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], T]) -> T:
        """What `make` gives here, after rank 0 has made its own: it may download files first."""
        if self.leads:
            made = make()
            self._wait()
            return made
        self._wait()
        return make()

    def _wait(self) -> None:
        if self.world > 1:
            dist.barrier()


def weighted_mean(parts: Sequence[tuple[Mapping[str, float], int]]) -> dict[str, float]:
    """Mean of metrics, each part weighted by its number of samples; empty parts do not count."""
    counted = [(values, samples) for values, samples in parts if samples]
    total = sum(samples for _, samples in counted)
    names = counted[0][0] if counted else {}
    return {k: sum(values[k] * n for values, n in counted) / total for k in names}


@contextlib.contextmanager
def join(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone without it.

    Raises
    ------
    ConfigError
        If `device` is ``cuda`` and there is none.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    place = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield Ranks(place)
        return
    mine = not dist.is_initialized()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if mine:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(place, dist.get_rank(), dist.get_world_size())
        # A rank that left while another still writes would take the whole run down with it.
        dist.barrier()
    finally:
        if mine:
            dist.destroy_process_group()


def choose_device(device: Literal["auto", "cpu", "cuda"], local_rank: int = 0) -> torch.device:
    """The torch device of a name, one GPU a rank; `ConfigError` if there is none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return torch.device("cpu")
    if local_rank >= count:
        raise ConfigError(
            f"device: {device}, local rank {local_rank}",
            f"torch sees {count} GPUs" if count else "torch sees no CUDA GPU",
            "start one process a GPU, or set device: cpu",
        )
    return torch.device("cuda", local_rank)

"""Channels between processes that hand messages over without threads; for the supervisor.

A port of Lava owns a thread that moves a semaphore's count into a queue, so that a process can wait
for several ports at once, which only one with a RefPort does. All others receive port by port, in
the same order at every step, and wait for the next command alone. Waiting on the semaphores
themselves spares each message four thread switches. Channels of the runtime stay as they are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from lava.magma.compiler.builders.channel_builder import ChannelBuilderMp, ServiceChannelBuilderMp
from lava.magma.compiler.channels.pypychannel import CspRecvPort, CspSendPort, PyPyChannel


class DirectSendPort(CspSendPort):
    """Sends once the receiver has taken the message that was in the slot before.

    A message may have fewer rows than a slot; the receiver knows how many.
    """

    def start(self) -> None:
        """Map the slots."""
        self._array, self._next, self._free = slots(self), 0, self._size

    def probe(self) -> bool:
        """Whether `send` would not block."""
        return self._free > 0 or self._ack.get_value() > 0

    def send(self, data: np.ndarray) -> None:
        """Copy `data` to the next slot; blocks while there is none."""
        if data.shape[1:] != self._shape[1:] or len(data) > self._shape[0]:
            raise ValueError(f"port '{self.name}' of shape {self._shape} got {data.shape}")
        if self._free:
            self._free -= 1
        else:
            wait(self._ack)
        self._array[self._next][: len(data)] = data
        self._next = (self._next + 1) % self._size
        self._req.release()

    def join(self) -> None:
        """Nothing to wait for."""


class DirectRecvPort(CspRecvPort):
    """Receives once the sender has filled the next slot."""

    rows: int | None = None
    """Rows of a message that are received; None: all."""

    def start(self) -> None:
        """Map the slots."""
        self._array, self._next = slots(self), 0

    def probe(self) -> bool:
        """Whether `recv` would not block.

        An observer is there while a process waits for its next command, with nothing else to do.
        """
        if self.observer is not None:
            self._req.acquire()
            self._req.release()
        return self._req.get_value() > 0

    def peek(self) -> np.ndarray:
        """The next message, which stays; blocks while there is none."""
        self._req.acquire()
        self._req.release()
        return self._array[self._next][: self.rows].copy()

    def recv(self) -> np.ndarray:
        """The next message; blocks while there is none."""
        wait(self._req)
        message = self._array[self._next][: self.rows].copy()
        self._next = (self._next + 1) % self._size
        self._ack.release()
        return message

    def join(self) -> None:
        """Nothing to wait for."""


LOOKS = 300
"""How often a process looks for a message, and lets others run between, before it sleeps. To sleep
and to be woken costs as much as to compute what a small population sends."""

let_others_run = getattr(os, "sched_yield", lambda: None)  # macOS has none.


def wait(semaphore: Any) -> None:
    """Take `semaphore`: look for a while, then sleep until there is something to take.

    For what comes within a step. To wait for a command (`DirectRecvPort.probe`) is to sleep.
    """
    for _ in range(LOOKS):
        if semaphore.acquire(False):
            return
        let_others_run()
    semaphore.acquire()


def slots(port: Any) -> list[np.ndarray]:
    """The arrays of a port in its shared memory."""
    return [
        np.ndarray(port._shape, port._dtype, port._shm.buf, offset=port._nbytes * k)
        for k in range(port._size)
    ]


@contextlib.contextmanager
def direct_channels() -> Iterator[None]:
    """While this lasts, Lava builds channels between processes, and from and to the service, so."""
    builders = (ChannelBuilderMp, ServiceChannelBuilderMp)
    originals = [builder.build for builder in builders]
    for builder in builders:
        builder.build = _directly(builder.build)
    try:
        yield
    finally:
        for builder, original in zip(builders, originals, strict=True):
            builder.build = original


def _directly(build: Callable[..., Any]) -> Callable[..., Any]:
    def build_direct(*arguments: Any) -> Any:
        channel = build(*arguments)
        if type(channel) is PyPyChannel:
            channel._src_port = direct_end(DirectSendPort, channel._src_port)
            channel._dst_port = direct_end(DirectRecvPort, channel._dst_port)
        return channel

    return build_direct


def direct_end(kind: type[DirectSendPort] | type[DirectRecvPort], port: Any) -> Any:
    """The end of a channel that `port` is, as a `kind`; before it starts."""
    made = object.__new__(kind)
    made.__dict__.update(port.__dict__)
    return made

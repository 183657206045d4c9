"""Channels without threads: in order, as far ahead as there are slots, no further."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lava.magma.compiler.channels.pypychannel import PyPyChannel

from targets.lava.runtime.channels import DirectRecvPort, DirectSendPort, direct_end

SLOTS = 2


@pytest.fixture
def ports() -> Iterator[tuple[Any, Any]]:
    """Both ends of a channel of two numbers in `SLOTS` slots, in this process."""
    memory = SharedMemory(create=True, size=64)
    manager = SimpleNamespace(create_shared_memory=lambda size: memory)
    channel = PyPyChannel(SimpleNamespace(smm=manager), "s", "r", (2,), np.int64, SLOTS)
    send = direct_end(DirectSendPort, channel.src_port)
    recv = direct_end(DirectRecvPort, channel.dst_port)
    send.start()
    recv.start()
    yield send, recv
    send._array, recv._array = [], []  # views of the memory, which has to close
    memory.close()
    memory.unlink()


def test_messages_arrive_in_order_however_many(ports: tuple[Any, Any]) -> None:
    send, recv = ports
    for n in range(7):
        send.send(np.array([n, -n]))
        assert recv.recv().tolist() == [n, -n]


def test_a_sender_is_ahead_by_the_slots_at_most(ports: tuple[Any, Any]) -> None:
    send, recv = ports
    assert not recv.probe()
    for n in range(SLOTS):
        assert send.probe()
        send.send(np.array([n, n]))
    assert not send.probe()
    assert recv.recv().tolist() == [0, 0]
    assert send.probe()


def test_a_peek_leaves_the_message(ports: tuple[Any, Any]) -> None:
    send, recv = ports
    send.send(np.array([3, 4]))
    assert recv.peek().tolist() == [3, 4]
    assert recv.probe()
    assert recv.recv().tolist() == [3, 4]
    assert not recv.probe()


def test_what_was_received_does_not_change_any_more(ports: tuple[Any, Any]) -> None:
    send, recv = ports
    send.send(np.array([1, 1]))
    first = recv.recv()
    for _ in range(SLOTS):
        send.send(np.array([9, 9]))
    assert first.tolist() == [1, 1]


def test_a_message_of_another_shape_is_refused(ports: tuple[Any, Any]) -> None:
    send, _ = ports
    with pytest.raises(ValueError, match=r"port 's' of shape \(2,\) got \(3,\)"):
        send.send(np.zeros(3, np.int64))

"""What a session and its supervisor say to each other: plain JSON, as they may run on two Pythons.

Nothing is pickled, so neither side depends on the NumPy of the other. Arrays go by files and by
shared memory.
"""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Start(NamedTuple):
    """Command: begin, with `argument`, JSON values."""

    argument: Any


class Run(NamedTuple):
    """Command: run so many time steps."""

    steps: int


class Stop(NamedTuple):
    """Command: end all processes and leave."""


class Progress(NamedTuple):
    """An answer before the last one: so far has it come, and its time limit begins anew."""

    done: int


class Done(NamedTuple):
    """The answer to a command that was carried out."""


class Fault(NamedTuple):
    """The answer to a command that failed, the last message of a supervisor; see `RunError`."""

    subject: str
    problem: str
    trace: str = ""


Message = Start | Run | Stop | Progress | Done | Fault

_KINDS: dict[str, Any] = {k.__name__: k for k in (Start, Run, Stop, Progress, Done, Fault)}


def send(connection: Connection, message: Message) -> None:
    """Send `message`."""
    connection.send_bytes(json.dumps([type(message).__name__, *message]).encode())


def receive(connection: Connection) -> Any:
    """The next message, of one of the kinds above; blocks while there is none."""
    kind, *values = json.loads(connection.recv_bytes())
    return _KINDS[kind](*values)

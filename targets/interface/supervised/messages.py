"""What a session and its supervisor say to each other: plain JSON, as they may run on two Pythons.

Nothing is pickled, so neither side depends on the NumPy of the other. Arrays go by files and by
shared memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Start:
    """Command: begin, with `argument`, JSON values."""

    argument: Any


@dataclass(frozen=True)
class Run:
    """Command: run so many time steps."""

    steps: int


@dataclass(frozen=True)
class Stop:
    """Command: end all processes and leave."""


@dataclass(frozen=True)
class Progress:
    """An answer before the last one: so far has it come, and its time limit begins anew."""

    done: int


@dataclass(frozen=True)
class Done:
    """The answer to a command that was carried out."""


@dataclass(frozen=True)
class Fault:
    """The answer to a command that failed, the last message of a supervisor; see `RunError`."""

    subject: str
    problem: str
    trace: str = ""


Message = Start | Run | Stop | Progress | Done | Fault

_KINDS: dict[str, Any] = {k.__name__: k for k in (Start, Run, Stop, Progress, Done, Fault)}


def send(connection: Connection, message: Message) -> None:
    """Send `message`."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    connection.send_bytes(json.dumps([type(message).__name__, values]).encode())


def receive(connection: Connection) -> Any:
    """The next message, of one of the kinds above; blocks while there is none."""
    kind, values = json.loads(connection.recv_bytes())
    return _KINDS[kind](**values)

"""What a session and its supervisor say to each other: plain JSON, as they run on two Pythons.

Nothing is pickled, so neither side depends on the NumPy of the other. Arrays are on the board.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Start:
    """Command: call ``module:function`` with `argument`, JSON values, and start what it returns.

    That is a dictionary of connected Lava Processes with the ProcessModel of each; a class of
    Processes may stand for those that are yet to come.
    """

    builder: str
    argument: Any


@dataclass(frozen=True)
class Run:
    """Command: run so many time steps."""

    steps: int


@dataclass(frozen=True)
class Stop:
    """Command: end all processes and leave."""


@dataclass(frozen=True)
class Done:
    """The answer to a command that was carried out."""


@dataclass(frozen=True)
class Fault:
    """The answer to a command that failed; the last message of a supervisor."""

    subject: str
    problem: str
    trace: str = ""


Message = Start | Run | Stop | Done | Fault

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Start, Run, Stop, Done, Fault)}


def send(connection: Connection, message: Message) -> None:
    """Send `message`."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    connection.send_bytes(json.dumps([type(message).__name__, values]).encode())


def receive(connection: Connection) -> Any:
    """The next message, of one of the kinds above; blocks while there is none."""
    kind, values = json.loads(connection.recv_bytes())
    return _KINDS[kind](**values)

"""What a supervised process of the tests does: it answers, or fails the way it is told to."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from typing import IO

from targets.interface.supervised.messages import Done, Fault, Progress, receive, send

prepared = 0
opened: list[IO[bytes]] = []


def prepare() -> None:
    """Count how often this is done."""
    global prepared
    prepared += 1


def open_files() -> None:
    """Keep files open, as simulators keep their logs."""
    opened.extend(open(os.devnull, "rb") for _ in range(64))  # noqa: SIM115


def hang() -> None:
    """Never come to an end."""
    time.sleep(3600)


def serve(fd: int) -> None:
    """Answer command after command."""
    connection = Connection(fd)
    while True:
        how = receive(connection).argument
        if how == "three parts":
            for part in range(3):
                time.sleep(0.3)
                send(connection, Progress(part))
        if how == "close files":
            for file in opened:
                file.close()
        if how == "hang":
            os.fork()
            time.sleep(3600)
        if how == "die":
            print("the last word", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        raised = how == "raise" or (how == "prepared twice" and prepared != 1)
        send(connection, Fault("a part", f"it raised {prepared}", "line 1") if raised else Done())

"""What a fork does: it builds the network of a graph on NEST, and runs phase after phase of it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from compilers.ir.graph import Spiking
from compilers.ir.text import parse_graph
from targets.interface.supervised.fork_server import die_with
from targets.interface.supervised.messages import Done, Fault, Start, receive, send
from targets.nest.network import NestNetwork, RateNetwork, SpikeNetwork

GRAPH, ARRAYS, DRIVE, RECORD = "graph.txt", "graph.npz", "drive.npz", "record.npz"
"""Files of a session's folder: the graph; what a phase is driven by, and what it did."""


@dataclass(frozen=True)
class PhaseRun:
    """A phase to run: `steps` under `nudge`, from the end of phase `start` or from rest.

    `states` asks for the membranes of spiking neurons, which nothing else needs; a network has a
    meter of them from the start, or never.
    """

    folder: str
    name: str
    steps: int
    nudge: float
    start: str | None
    states: bool

    def argument(self, threads: int) -> dict[str, Any]:
        """What a message says of it."""
        return {"run": asdict(self), "threads": threads}


def serve(fd: int) -> None:
    """Run the phases that come by the connection `fd`, until it is told to stop."""
    die_with(os.getppid())()
    connection, network = Connection(fd), None
    try:
        while isinstance(message := receive(connection), Start):
            job = PhaseRun(**message.argument["run"])
            folder = Path(job.folder)
            if network is None or (job.states and not network.states):
                network = _build(folder, message.argument["threads"], job.states)
            drive = read_arrays(folder / DRIVE)
            record = network.run(job.name, job.steps, job.nudge, job.start, drive)
            write_arrays(folder / RECORD, record)
            send(connection, Done())
    except Exception as error:
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        send(connection, Fault("nest", problem, traceback.format_exc()))


def _build(folder: Path, threads: int, states: bool) -> NestNetwork:
    graph = parse_graph((folder / GRAPH).read_text(encoding="utf-8"), read_arrays(folder / ARRAYS))
    spiking = isinstance(graph.neurons[0].dynamics, Spiking)
    return (SpikeNetwork if spiking else RateNetwork)(graph, threads, states)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write `arrays` by name as an .npz file."""
    np.savez(path, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What is in an .npz file."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}

"""Runs a Lava network in a supervised process group.

Why not in this process: Lava needs a Python and a NumPy of its own. Besides, its `run` waits
forever once a model raises or dies, its finalisers hang the interpreter, it sets the start method
of multiprocessing for everyone, and it forks, which no program with the threads of a numerical
library survives for sure. A fork of an interpreter that has imported Lava and no more
(`targets.interface.supervised`) has none of these troubles, and can be killed as a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from targets.interface.supervised.fork_server import PACKAGES, ForkServer
from targets.interface.supervised.messages import Run, Start
from targets.interface.supervised.process import SupervisedProcess
from targets.lava.runtime.environment import interpreter

PRELOAD = (
    "lava.magma.core.run_configs",
    "lava.magma.core.run_conditions",
    "lava.magma.compiler.compiler",
    "lava.magma.runtime.runtime",
    "targets.lava.builders.batched",
    "targets.lava.runtime.supervisor",
)
"""What every network needs."""


class LavaProcess(SupervisedProcess):
    """A Lava network that runs elsewhere.

    Parameters
    ----------
    builder : str
        ``module:function`` that takes `argument` and returns connected Lava Processes, each with
        its ProcessModel, as a dictionary.
    argument : object
        JSON values; arrays go by shared memory.
    start_limit : float
        Seconds that Lava has to start.
    inherit : sequence of int
        File descriptors that the processes inherit.
    prepare : sequence of str
        What else, beside `PRELOAD`, is done once for all networks; see `ForkServer.fork`.

    Raises
    ------
    RunError
        If it does not start. Every failure ends the whole group before it is raised.
    """

    name, serve = "lava", "targets.lava.runtime.supervisor:serve"
    repair = "run `make setup`"
    memory = "lower the option batch if memory ran out, or run it again"

    def __init__(
        self,
        builder: str,
        argument: Any = None,
        *,
        start_limit: float = 60.0,
        inherit: Sequence[int] = (),
        prepare: Sequence[str] = (),
    ) -> None:
        super().__init__(
            _server(interpreter(), builder.partition(".")[0]),
            start_limit=start_limit,
            inherit=inherit,
            prepare=[*PRELOAD, *prepare],
        )
        self.ask(Start([builder, argument]), start_limit, "start", "start_limit")

    def run(self, steps: int, limit: float, doing: str) -> None:
        """Run `steps` time steps within `limit` seconds; `doing` names the work in errors."""
        self.ask(Run(steps), limit, doing, "time_limit")


@cache
def _server(python: str, package: str) -> ForkServer:
    return ForkServer(python, sorted({*PACKAGES, package}))

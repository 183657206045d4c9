"""The caller's end of the process that runs Brian2: a fork for every job, bounded in time.

Why not in the caller's process: Brian2 keeps clocks, devices and preferences for a whole process,
a C++ build cannot be interrupted from inside, and importing takes seconds. A fork starts with
Brian2 imported, has its state to itself, and can be killed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict

from ep_neuro.errors import RunError
from targets.brian2.simulation.worker import ScriptRun
from targets.interface.supervised.fork_server import ForkServer
from targets.interface.supervised.messages import Fault, Start
from targets.interface.supervised.process import SupervisedProcess

START_SECONDS = 180.0
"""Time that importing Brian2 may take: it took 2 to 45 s."""

SERVER = ForkServer(sys.executable, path=[place or os.getcwd() for place in sys.path])
"""Forks for all sessions of this process; it starts with the first job."""

_WORKER = "targets.brian2.simulation.worker"
_ERROR = re.compile(r"^.*\b(?:fatal )?error\b.*$", re.IGNORECASE | re.MULTILINE)


class Brian2Process(SupervisedProcess):
    """A fork that does one job."""

    name, serve = "brian2", f"{_WORKER}:serve"
    repair = "see that `import brian2` works"
    memory = "run it again, with fewer samples at once if memory ran out"

    def error(self, fault: Fault, doing: str, log: str) -> RunError:
        """One line; where C++ did not compile, the compiler's own first complaint."""
        if "compilation failed" not in fault.problem:
            return super().error(fault, doing, log)
        found = _ERROR.search(log)
        said = found.group() if found else (log.splitlines() or ["it printed nothing"])[-1]
        remedy = (
            "repair the compiler, or compile with the option mode=runtime; --debug shows its log"
        )
        return RunError("brian2", f"C++ compilation failed ({said.strip()[:300]})", remedy)


def do(job: ScriptRun, server: ForkServer, limit: float, done: Callable[[int], None]) -> None:
    """Do `job` in a fork; `done` is told the first sample of each run as it ends.

    Raises
    ------
    RunError
        If it raises, dies, or a run takes longer than `limit` seconds with compilation.
    """
    prepare = ["brian2", _WORKER, *([f"{_WORKER}:prepare_compiler"] if job.standalone else [])]
    process = Brian2Process(server, start_limit=START_SECONDS, prepare=prepare)
    try:
        process.ask(Start(asdict(job)), limit, "a run", "time_limit", done)
    finally:
        process.close()

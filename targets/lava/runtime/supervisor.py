"""The supervisor: an interpreter of Lava's own that owns its runtime and watches its processes.

It is forked (`targets.interface.supervised`) as the leader of a process group, on the Python that
Lava needs (`targets.lava.runtime.environment`). Lava waits for answers without a limit, also
for those of the dead; a timer signal looks at the processes in the meantime and breaks the wait
with the cause.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from targets.interface.supervised.fork_server import call, die_with
from targets.interface.supervised.messages import Done, Fault, Run, Start, Stop, receive, send
from targets.interface.supervised.process import how_it_ended

CHECK_SECONDS = 0.1
"""Time between two looks at the processes."""

STOP_SECONDS = 5.0
"""Time that Lava has to stop in good order."""


class ModelChoice(dict[Any, Any]):
    """Models by Process, or else by class: those inside a layer exist only once Lava expands it."""

    def __contains__(self, process: object) -> bool:
        return super().__contains__(process) or super().__contains__(type(process))

    def __getitem__(self, process: Any) -> Any:
        found = super().get(process)
        return super().__getitem__(type(process)) if found is None else found


class FaultFound(BaseException):
    """Breaks Lava's wait; no `Exception`, so that nothing on the way handles it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class Supervisor:
    """Runs commands on a Lava runtime until one fails, or `Stop`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.parent = os.getppid()
        self.root: Any = None

    def serve(self) -> None:
        """Answer commands; returns once everything has ended."""
        commands: dict[type, Callable[[Any], None]] = {Start: self.start, Run: self.run}
        while True:
            try:
                command = receive(self.connection)
            except (EOFError, OSError):  # the session's program has ended
                command = Stop()
            if isinstance(command, Stop):
                return self.stop()
            try:
                with self.watch():
                    commands[type(command)](command)
            except BaseException as error:
                fault = self.explain(error)
                self.kill()
                return send(self.connection, fault)
            send(self.connection, Done())

    # --- commands ------------------------------------------------------------------------------

    def start(self, command: Start) -> None:
        """Call ``module:function`` with its argument, and start what it returns.

        That is a dictionary of connected Lava Processes with the ProcessModel of each; a class of
        Processes may stand for those that are yet to come.
        """
        from lava.magma.core.run_configs import Loihi2SimCfg

        from targets.lava.runtime.channels import direct_channels

        models = call(*command.argument)
        self.root = next(iter(models))
        # Lava's search for models executes all modules of their folder again for each process,
        # and its channels of 64 slots would not fit the cache; no sender is ahead by over a step.
        with direct_channels():
            self.root.create_runtime(
                run_cfg=Loihi2SimCfg(exception_proc_model_map=ModelChoice(models)),
                compile_config={"pypy_channel_size": 2},
            )

    def run(self, command: Run) -> None:
        """Run, and wait for the end."""
        from lava.magma.core.run_conditions import RunSteps

        self.root.run(RunSteps(num_steps=command.steps))

    def stop(self) -> None:
        """End everything; in good order if Lava is up to it."""
        runtime = None if self.root is None else self.root.runtime
        if runtime is not None and runtime._is_started:  # else its stop would wait for ever
            signal.signal(signal.SIGALRM, self.give_up)
            signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
            with contextlib.suppress(BaseException):
                runtime.stop()
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.kill()

    # --- watching ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Look at the processes now and then; raises `FaultFound` inside the block."""
        signal.signal(signal.SIGALRM, self.look)
        signal.setitimer(signal.ITIMER_REAL, CHECK_SECONDS, CHECK_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def look(self, *_: object) -> None:
        """Handler of the timer: break the wait if there is nothing left to wait for."""
        if os.getppid() != self.parent:
            raise FaultFound(Fault("session", "the program that started it has ended"))
        fault = self.find_fault()
        if fault is not None:
            raise FaultFound(fault)

    def give_up(self, *_: object) -> None:
        """Handler of the timer: stopping took too long."""
        raise FaultFound(Fault("lava", "it did not stop"))

    def find_fault(self) -> Fault | None:
        """The fault of a process that has ended; an exception tells more than an exit code."""
        ended = [
            (name, code, *_exception(actor))
            for name, actor in self.actors()
            if (code := _exit_code(actor)) is not None
        ]
        if not ended:
            return None
        name, code, error, trace = min(ended, key=lambda end: end[2] is None)
        return Fault(f"lava process '{name}'", _cause(code, error, trace), trace)

    def explain(self, error: BaseException) -> Fault:
        """The root of `error`: what a process reported, rather than that Lava saw it end."""
        if isinstance(error, FaultFound):
            return error.fault
        trace = getattr(error, "trace", None) or traceback.format_exc()
        found = self.find_fault()
        if found is not None and found.trace:
            return found
        return Fault("lava runtime", _cause(None, error, trace), trace)

    # --- processes -----------------------------------------------------------------------------

    @property
    def infrastructure(self) -> Any:
        """Lava's keeper of processes and shared memory; None before the start."""
        runtime = None if self.root is None else self.root.runtime
        return None if runtime is None else runtime._messaging_infrastructure

    def actors(self) -> list[tuple[str, Any]]:
        """Lava's operating-system processes with their names, in the order of their start."""
        infrastructure = self.infrastructure
        if infrastructure is None:
            return []
        names = [p.name for p in self.root.runtime._executable.proc_builders]
        actors = infrastructure.actors
        return [
            (names[i] if i < len(names) else "runtime service", a) for i, a in enumerate(actors)
        ]

    def kill(self) -> None:
        """End what is left, and give Lava's shared memory back."""
        for _, actor in self.actors():
            with contextlib.suppress(ValueError, OSError):
                actor.kill()
        for _, actor in self.actors():
            with contextlib.suppress(ValueError, OSError, AssertionError):
                actor.join()
        if self.infrastructure is not None and self.infrastructure.smm is not None:
            with contextlib.suppress(BaseException):
                self.infrastructure.smm.shutdown()


def _exit_code(actor: Any) -> int | None:
    try:
        return actor.exitcode
    except ValueError:  # joined and closed
        return 0


def _exception(actor: Any) -> tuple[BaseException | None, str]:
    # Reading it unpickles the exception of a process, which may itself raise anything.
    try:
        return actor.exception or (None, "")
    except Exception as error:
        return error, traceback.format_exc()


def _cause(code: int | None, error: BaseException | None, trace: str) -> str:
    if error is not None:
        last = trace.strip().splitlines()[-1:] or [repr(error)]
        return f"it raised {last[0]}"
    return f"it {how_it_ended(code or 0)}"


def serve(fd: int) -> None:
    """Serve the connection `fd`."""
    supervisor = Supervisor(Connection(fd))
    os.register_at_fork(after_in_child=die_with(os.getpid()))
    try:
        supervisor.serve()
    finally:
        supervisor.kill()

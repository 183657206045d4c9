"""Who does the jobs of a study: this process, processes of this machine, or a Dask cluster."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

from ep_neuro.errors import ConfigError, RunError
from targets.interface.supervised.fork_server import ONE_THREAD, die_with


@dataclass(frozen=True)
class Job:
    """A part of a study that needs no other."""

    name: str
    """What people call it."""
    facts: Mapping[str, Any]
    """All that decides its rows beside the inputs of the study, in JSON's types."""
    payload: Any = None
    """What it takes to run and `facts` do not hold; it can be pickled."""

    @property
    def key(self) -> str:
        """Of the facts alone: the same job has the same key in every run of the study."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]


Work = Callable[[Any, Job, Callable[[Any], None]], list[Any]]
"""See `targets.experiments.studies.jobs.run`."""

CONNECT_SECONDS = 20.0
"""Time that a scheduler has to answer."""

WORKERS_SECONDS = 600.0
"""Time that a cluster may be without any worker while there is work."""

LOOK_SECONDS = 1.0
"""Time from one look at the workers to the next, if no job ends meanwhile."""

GRACE_SECONDS = 3.0
"""Time that processes have to clean up before they are killed."""


class Workers:
    """Where jobs run: one after another in this process, unless told otherwise.

    Parameters
    ----------
    jobs : int, optional
        So many at a time; above 1 in processes of their own, each on one thread.
    dask : str, optional
        Address of a dask.distributed scheduler, ``tcp://HOST:8786``: one at a time on each of its
        workers.

    Raises
    ------
    ConfigError
        If both are given, `jobs` is below 1, or dask.distributed is missing.
    """

    def __init__(self, jobs: int | None = None, dask: str | None = None) -> None:
        if jobs is not None and dask is not None:
            problem = f"--dask {dask} has workers of its own"
            raise ConfigError(f"--jobs {jobs}", problem, "drop one of the two")
        if jobs is not None and jobs < 1:
            raise ConfigError(f"--jobs {jobs}", "fewer than 1 job at a time", "give 1 or more")
        if dask is not None and find_spec("distributed") is None:
            how = "`pip install 'ep-neuro[cluster]'`, or use --jobs N on this machine"
            raise ConfigError(f"--dask {dask}", "dask.distributed is not installed", how)
        self.jobs, self.dask = jobs or 1, dask

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Add --jobs and --dask to a script's `parser`."""
        parser.add_argument("--jobs", type=int, help="jobs at a time, 1 by default")
        parser.add_argument("--dask", metavar="ADDRESS", help="run them on this Dask cluster")

    def each(
        self, work: Work, shared: Any, jobs: Sequence[Job], tell: Callable[[Job, Any], None]
    ) -> Generator[tuple[Job, list[Any] | None], None, None]:
        """Each of `jobs` as it ends, with its rows; None of one that killed its workers."""
        if self.dask is None and self.jobs == 1:
            for job in jobs:
                yield job, work(shared, job, partial(tell, job))
        elif jobs:
            with self._pool(len(jobs)) as pool:
                for job, rows in _scattered(pool, work, shared, jobs):
                    for row in rows or ():
                        tell(job, row)
                    yield job, rows

    def _pool(self, most: int) -> contextlib.AbstractContextManager[_Pool]:
        return _processes(min(self.jobs, most)) if self.dask is None else _cluster(self.dask)


class _Pool(Protocol):
    """Workers that take a job each; `result` raises one of `died` if the worker was killed."""

    died: tuple[type[Exception], ...]

    def width(self) -> int: ...
    def submit(self, work: Work, shared: Any, job: Job) -> _Future: ...
    def result(self, future: _Future) -> _Done: ...


_Done = tuple[list[Any], list[tuple[type[Warning], str]]]
"""Rows, and what there is to warn of."""

_Future = Future[_Done]


def _scattered(
    pool: _Pool, work: Work, shared: Any, jobs: Sequence[Job]
) -> Iterator[tuple[Job, list[Any] | None]]:
    """`jobs` as they end; one whose worker is killed runs again after all others, alone.

    There no other job can be what kills it, and the memory of the machine is its own.
    """
    waiting, suspects = deque(jobs), deque[Job]()
    running: dict[_Future, tuple[Job, bool]] = {}
    while waiting or running or suspects:
        alone = not waiting and not running
        queue, room = (suspects, 1) if alone else (waiting, pool.width() - len(running))
        for _ in range(min(len(queue), room)):
            job = queue.popleft()
            running[pool.submit(work, shared, job)] = (job, alone)
        for future in wait(running, LOOK_SECONDS, FIRST_COMPLETED).done:
            job, alone = running.pop(future)
            try:
                rows, warned = pool.result(future)
            except pool.died:
                if alone:
                    yield job, None
                else:
                    suspects.append(job)
                continue
            for category, text in warned:
                warnings.warn(text, category, stacklevel=2)
            yield job, rows


# --- in a worker --------------------------------------------------------------------------------

_alone = threading.Lock()
"""Warnings, and much of what jobs use, belong to the whole process."""


def _do(work: Work, shared: Any, job: Job) -> _Done:
    """What a worker does: the job, on one thread."""
    import threadpoolctl

    with _alone, warnings.catch_warnings(record=True) as warned:
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        with threadpoolctl.threadpool_limits(1):
            rows = work(shared, job, lambda row: None)
    return rows, [(one.category, str(one.message)) for one in warned]


def _begin(parent: int) -> None:
    """Make this process end with its `parent`, and by SIGTERM as a program does that cleans up.

    What it loads or starts later has one thread.
    """
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    die_with(parent)()


# --- processes of this machine ------------------------------------------------------------------


class _Process:
    """A pool of one process, so that one that is killed takes its job along and no other."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, spawn, _begin, (os.getpid(),))
        self.process: Any = None

    def submit(self, work: Work, shared: Any, job: Job) -> _Future:
        """Start `job`; the process starts with the first one, and leaves Ctrl-C to its parent."""
        before = set(multiprocessing.active_children())
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            future = self.pool.submit(_do, work, shared, job)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if self.process is None:
            (self.process,) = set(multiprocessing.active_children()) - before
        return future


class _Processes:
    """So many processes, started when they are needed."""

    died: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, count: int) -> None:
        self._count = count
        self._free: list[_Process] = []
        self._busy: dict[_Future, _Process] = {}

    def width(self) -> int:
        return self._count

    def submit(self, work: Work, shared: Any, job: Job) -> _Future:
        one = self._free.pop() if self._free else _Process()
        future = one.submit(work, shared, job)
        self._busy[future] = one
        return future

    def result(self, future: _Future) -> _Done:
        one = self._busy.pop(future)
        if not isinstance(future.exception(), self.died):
            self._free.append(one)
        return future.result()

    def stop(self, kill: bool) -> None:
        """Let processes end that have nothing to do; `kill` what is at work."""
        every = [*self._free, *self._busy.values()]
        for one in every:
            if kill:
                one.process.terminate()
            one.pool.shutdown(wait=not kill, cancel_futures=True)
        limit = time.monotonic() + GRACE_SECONDS
        for one in every:
            one.process.join(max(0.0, limit - time.monotonic()))
            one.process.kill()


@contextlib.contextmanager
def _processes(count: int) -> Iterator[_Processes]:
    pool = _Processes(count)
    try:
        yield pool
    except BaseException:
        pool.stop(kill=True)
        raise
    pool.stop(kill=False)


# --- a cluster ----------------------------------------------------------------------------------


class _Cluster:
    """Workers of a Dask cluster, one job on each at a time."""

    def __init__(self, address: str, client: Any) -> None:
        from distributed.scheduler import KilledWorker

        self.died: tuple[type[Exception], ...] = (KilledWorker,)
        self._address, self._client = address, client
        self._executor = client.get_executor(pure=False)
        self._shared: Any = None
        self._seen = time.monotonic()

    def width(self) -> int:
        """Number of workers, at least one: what is submitted makes an adaptive cluster grow."""
        with self._present():
            workers = len(self._client.nthreads())
        now = time.monotonic()
        if workers:
            self._seen = now
        elif now - self._seen > WORKERS_SECONDS:
            problem = f"has had no worker for {WORKERS_SECONDS:.0f} s"
            raise RunError(f"--dask {self._address}", problem, "start some: `dask worker ADDRESS`")
        return max(1, workers)

    def submit(self, work: Work, shared: Any, job: Job) -> _Future:
        with self._present(), warnings.catch_warnings():
            # Of a graph above 10 MB: weights are that large.
            warnings.simplefilter("ignore", UserWarning)
            if self._shared is None:
                # As a task, and not scattered: it is computed again if its worker is killed.
                self._shared = self._client.submit(_same, shared, pure=False)
            future: _Future = self._executor.submit(_do, work, self._shared, job)
        return future

    def result(self, future: _Future) -> _Done:
        try:
            return future.result()
        except CancelledError:
            raise self._gone() from None
        except ImportError as error:
            problem = f"a worker lacks what is installed here ({error})"
            raise RunError(f"--dask {self._address}", problem, "install it there") from error

    def _gone(self) -> RunError:
        remedy = "start it again, and call again: what is kept does not run again"
        return RunError(f"--dask {self._address}", "the scheduler went away", remedy)

    @contextlib.contextmanager
    def _present(self) -> Iterator[None]:
        """Tell in one line that the scheduler is gone."""
        try:
            yield
        except (CancelledError, OSError) as error:
            raise self._gone() from error


def _same(shared: Any) -> Any:
    return shared


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[_Cluster]:
    import distributed

    noise = logging.getLogger("distributed.client")
    level = noise.level
    noise.setLevel(logging.CRITICAL)  # The error below says it in one line.
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        problem = f"no scheduler answers there within {CONNECT_SECONDS:.0f} s"
        remedy = "start one (`dask scheduler`), or give its address, tcp://HOST:8786"
        raise ConfigError(f"--dask {address}", problem, remedy) from error
    try:
        yield _Cluster(address, client)
    finally:
        with contextlib.suppress(OSError):
            client.close(timeout=GRACE_SECONDS)
        noise.setLevel(level)

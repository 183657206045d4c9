"""Whatever goes wrong in Lava ends in one line, in time, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ep_neuro.errors import RunError
from targets.interface.supervised.process import ProcessTracebackError, members
from targets.lava.runtime.process import LavaProcess
from tests.helpers.targets import needs

pytestmark = [needs("lava"), pytest.mark.timeout(20)]

BUILDER = "tests.helpers.lava_faults.faulty:build"
ROOT = Path(__file__).parents[3]


def shared_memory(group: int) -> set[str]:
    """Named shared memory that the processes of a group have mapped."""
    found: set[str] = set()
    for pid in members(group):
        # A process may end between being listed and being read.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            maps = Path(f"/proc/{pid}/maps").read_text()
            found |= set(re.findall(r"/dev/shm/\S+", maps))
    return found


def assert_gone(group: int, memory: set[str]) -> None:
    assert members(group) == []
    # Python's resource tracker frees the memory of the dead as it leaves, a moment after them.
    assert not [name for name in memory if os.path.exists(name)]


@pytest.fixture
def guards() -> Iterator[list[LavaProcess]]:
    made: list[LavaProcess] = []
    yield made
    for guard in made:
        guard.kill()


def started(guards: list[LavaProcess], how: str, at: int = 0) -> LavaProcess:
    guards.append(LavaProcess(BUILDER, (how, at)))
    return guards[-1]


def failure(guard: LavaProcess, steps: int = 50, limit: float = 15.0) -> RunError:
    """The error of a run that must fail within 10 s and leave nothing."""
    memory = shared_memory(guard.pid)
    assert memory, "Lava is expected to use named shared memory while it runs"
    began = time.monotonic()
    with pytest.raises(RunError) as caught:
        guard.run(steps, limit, "a test")
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)
    assert_gone(guard.pid, memory)
    return caught.value


def test_a_sound_network_runs_again_and_again_and_stops_in_order(
    guards: list[LavaProcess],
) -> None:
    guard = started(guards, "never")
    memory = shared_memory(guard.pid)
    for _ in range(3):
        guard.run(20, 10.0, "a test")
    guard.close()
    guard.close()
    assert_gone(guard.pid, memory)


def test_an_exception_at_step_k_is_told_with_process_and_cause(guards: list[LavaProcess]) -> None:
    error = failure(started(guards, "raise", at=7))
    assert "lava process 'faulty': it raised ValueError: a fault at step 7" in str(error)
    assert isinstance(error.__cause__, ProcessTracebackError)
    assert "in run_spk" in str(error.__cause__)


def test_an_exception_that_cannot_be_unpickled_is_told_as_well(guards: list[LavaProcess]) -> None:
    error = failure(started(guards, "raise oddly", at=3))
    assert "TwoPartError" in str(error)
    assert isinstance(error.__cause__, ProcessTracebackError)


def test_our_own_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RunError("lava", "it died", "run again")))
    assert (type(error), str(error)) == (RunError, "lava: it died; run again")


@pytest.mark.parametrize(
    ("how", "cause"), [("die", "was killed by SIGKILL"), ("leave", "ended with exit code 3")]
)
def test_a_process_that_dies_in_mid_run_is_named(
    guards: list[LavaProcess], how: str, cause: str
) -> None:
    error = failure(started(guards, how, at=5))
    assert f"lava process 'faulty': it {cause}" in str(error)


def test_a_killed_supervisor_takes_its_group_along(guards: list[LavaProcess]) -> None:
    error = failure(started(guards, "kill supervisor", at=5))
    assert "lava runtime: it was killed by SIGKILL" in str(error)


def test_a_run_that_does_not_end_meets_the_time_limit(guards: list[LavaProcess]) -> None:
    error = failure(started(guards, "sleep", at=5), limit=1.0)
    assert "had not ended after 1 s, the limit 'time_limit'" in str(error)


def test_a_feedback_loop_without_a_buffer_meets_the_time_limit(
    guards: list[LavaProcess],
) -> None:
    error = failure(started(guards, "loop without a buffer"), limit=0.3)
    assert "the limit 'time_limit'" in str(error)


def test_stopped_processes_are_ended_too(guards: list[LavaProcess]) -> None:
    guard = started(guards, "never")
    for pid in members(guard.pid):
        os.kill(pid, signal.SIGSTOP)
    assert "the limit 'time_limit'" in str(failure(guard, limit=0.3))


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raise while building", "lava runtime: it raised LookupError: nothing to build"),
        ("raise at start", "it raised RuntimeError: no start today"),
        ("die at start", "lava process 'faulty': it was killed by SIGKILL"),
    ],
)
def test_a_failed_start_is_an_error_and_leaves_nothing(how: str, cause: str) -> None:
    LavaProcess(BUILDER, ("never", 0)).close()
    before = own_children()  # among them the fork server
    began = time.monotonic()
    with pytest.raises(RunError) as caught:
        LavaProcess(BUILDER, (how, 0))
    assert time.monotonic() - began < 10
    assert cause in str(caught.value)
    assert own_children() == before


def test_one_server_forks_all_networks_and_is_replaced_if_it_dies(
    guards: list[LavaProcess],
) -> None:
    started(guards, "never").run(5, 10.0, "a test")
    servers = fork_servers()
    second = started(guards, "never")
    assert fork_servers() == servers
    assert second.pid not in own_children()
    for server in servers:
        os.kill(server, signal.SIGKILL)
    started(guards, "never").run(5, 10.0, "a test")
    assert not set(fork_servers()) & set(servers)


def test_an_ended_guard_says_so(guards: list[LavaProcess]) -> None:
    guard = started(guards, "never")
    guard.close()
    with pytest.raises(RunError, match="the session has ended"):
        guard.run(1, 1.0, "a test")


SCRIPT = """
    import sys
    sys.path.insert(0, {root!r})
    from targets.lava.runtime.process import LavaProcess
    guard = LavaProcess({builder!r}, ({how!r}, 5))
    print(guard.pid, flush=True)
    guard.run({steps}, 60.0, "a test")
"""


def program(how: str, steps: int = 10) -> tuple[subprocess.Popen[str], int]:
    """A program that runs a network and never closes it; with the id of the group."""
    text = textwrap.dedent(SCRIPT).format(root=str(ROOT), builder=BUILDER, how=how, steps=steps)
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def wait_until_gone(group: int, memory: set[str], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert_gone(group, memory)


def wait_until_idle(group: int, seconds: float = 3.0) -> None:
    """Wait until its processes use no time, as they have answered, or for so long."""
    deadline, before = time.monotonic() + seconds, [""]
    while (now := times(group)) != before and time.monotonic() < deadline:
        before = now
        time.sleep(0.3)


def times(group: int) -> list[str]:
    """Processor time of each process of a group, from /proc."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in members(group)]
    return [used for stat in stats for used in stat.split()[11:13]]


def test_a_program_that_forgets_to_close_still_exits_cleanly() -> None:
    process, group = program("never")
    with process:
        assert process.wait(10) == 0
    assert_gone(group, set())


def test_an_interrupted_program_leaves_nothing() -> None:
    process, group = program("sleep")
    memory = shared_memory(group)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    with process:
        assert process.wait(10) != 0
    wait_until_gone(group, memory)


def test_a_killed_program_leaves_nothing() -> None:
    process, group = program("sleep")
    memory = shared_memory(group)
    process.kill()
    with process:
        process.wait(10)
    wait_until_gone(group, memory)


def test_a_program_killed_together_with_its_supervisor_leaves_nothing() -> None:
    process, group = program("sleep")
    memory = shared_memory(group)
    process.send_signal(signal.SIGSTOP)
    os.kill(group, signal.SIGKILL)
    process.kill()
    with process:
        process.wait(10)
    wait_until_gone(group, memory)


def test_a_program_killed_before_it_reads_an_answer_leaves_nothing() -> None:
    process, group = program("never", steps=500)
    memory = shared_memory(group)
    process.send_signal(signal.SIGSTOP)
    wait_until_idle(group)
    process.kill()
    with process:
        process.wait(10)
    wait_until_gone(group, memory)


def test_a_process_killed_from_outside_is_found(guards: list[LavaProcess]) -> None:
    guard = started(guards, "sleep", at=5)
    victim = max(members(guard.pid))
    threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
    assert "was killed by SIGKILL" in str(failure(guard))


def fork_servers() -> list[int]:
    """Those that this process started: one for each choice of our packages."""
    return [
        pid for pid in own_children() if b"boot.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def own_children() -> list[int]:
    """Living processes that this one started, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)

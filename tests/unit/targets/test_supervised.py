"""A supervised process, whatever runs in it: it answers in time, or ends and says why."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from ep_neuro.errors import RunError
from targets.interface.supervised.fork_server import PACKAGES, ForkServer
from targets.interface.supervised.messages import Start
from targets.interface.supervised.process import (
    ProcessTracebackError,
    SupervisedProcess,
    members,
)

HELPER = "tests.helpers.answering"


class Answering(SupervisedProcess):
    """A process of `tests.helpers.answering`."""

    name, serve = "answering", f"{HELPER}:serve"
    repair, memory = "repair it", "give it memory"


@pytest.fixture(scope="module")
def server() -> ForkServer:
    return ForkServer(sys.executable, [*PACKAGES, "tests"], sys.path)


@pytest.fixture
def process(server: ForkServer) -> Iterator[Answering]:
    made = Answering(server, start_limit=20.0)
    yield made
    made.kill()
    assert members(made.pid) == []


def failure(process: Answering, how: str, limit: float = 20.0) -> RunError:
    """The error of a command; it ends the process and whatever that has started."""
    with pytest.raises(RunError) as caught:
        process.ask(Start(how), limit, "a test", "time_limit")
    assert not process.alive
    assert members(process.pid) == []
    return caught.value


def test_it_answers_again_and_again_until_it_is_closed(process: Answering) -> None:
    for _ in range(3):
        process.ask(Start("answer"), 20.0, "a test", "time_limit")
    process.close()
    assert members(process.pid) == []
    with pytest.raises(RunError, match="the session has ended"):
        process.ask(Start("answer"), 20.0, "a test", "time_limit")


def test_each_part_that_is_done_begins_the_time_limit_anew(process: Answering) -> None:
    seen: list[int] = []
    process.ask(Start("three parts"), 0.8, "a test", "time_limit", seen.append)
    assert seen == [0, 1, 2]


def test_what_takes_too_long_is_ended_with_its_children(process: Answering) -> None:
    error = failure(process, "hang", limit=0.3)
    assert str(error).startswith("answering: 'a test' had not ended after 0.3 s, the limit 'time_")


def test_what_dies_is_told_with_the_signal_and_its_last_line(process: Answering) -> None:
    error = failure(process, "die")
    assert "answering runtime: it was killed by SIGKILL (the last word) during 'a test'" in str(
        error
    )
    assert isinstance(error.__cause__, ProcessTracebackError)


def test_a_fault_is_one_line_with_its_traceback_as_the_cause(process: Answering) -> None:
    error = failure(process, "raise")
    assert "a part: it raised" in str(error)
    assert str(error.__cause__) == "line 1"


def test_what_is_prepared_is_so_once_for_all_forks(server: ForkServer) -> None:
    for _ in range(2):
        made = Answering(server, start_limit=20.0, prepare=[f"{HELPER}:prepare"])
        made.ask(Start("prepared twice"), 20.0, "a test", "time_limit")
        made.close()


def test_files_of_the_simulator_do_not_stand_in_the_way_of_a_fork() -> None:
    """Its connection has the number that it has in the program, whatever was open in the server."""
    server = ForkServer(sys.executable, [*PACKAGES, "tests"], sys.path)
    made = Answering(server, start_limit=20.0, prepare=[f"{HELPER}:open_files"])
    for how in ("close files", "answer"):
        made.ask(Start(how), 20.0, "a test", "time_limit")
    made.close()


def test_a_server_that_hangs_meets_the_limit_of_the_start_and_is_replaced() -> None:
    server = ForkServer(sys.executable, [*PACKAGES, "tests"], sys.path)
    began = time.monotonic()
    with pytest.raises(RunError, match=r"answering: it does not start \(it takes too long\)"):
        Answering(server, start_limit=1.0, prepare=[f"{HELPER}:hang"])
    assert time.monotonic() - began < 10
    made = Answering(server, start_limit=20.0)
    made.ask(Start("answer"), 20.0, "a test", "time_limit")
    made.close()

"""Claims about the odd machines of `tools/machines.sh`."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"

TRIES = """
import os, subprocess, threading
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
for name, call in (("fork", os.fork), ("spawn", lambda: subprocess.run(["true"]))):
    try:
        call()
    except OSError as error:
        print(name, error.strerror)
"""


def test_where_fork_is_forbidden_there_are_threads_and_no_processes() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("the filter is written for Linux on x86-64 and arm64")
    words = [sys.executable, "-I", str(TOOLS / "no_fork.py"), sys.executable, "-I", "-c", TRIES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if "seccomp" in done.stderr:
        pytest.skip("this machine takes no filter of system calls")
    assert done.stdout.splitlines() == [
        *("thread", "fork Operation not permitted", "spawn Operation not permitted")
    ]


def test_a_machine_that_cannot_be_made_is_skipped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "taskset").write_text("#!/bin/sh\necho 'taskset: no such core' >&2; exit 1\n")
    (tmp_path / "taskset").chmod(0o755)
    done = subprocess.run(
        ["sh", str(TOOLS / "machines.sh"), "one-core"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "EP_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "one-core: skipped: taskset: no such core\n")

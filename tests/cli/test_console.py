"""Claims about the streams: stdout belongs to the answer, everything else goes to stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ep_neuro.cli import console
from ep_neuro.cli.ending import INTERRUPTED, exit_code
from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import load_state
from tests.helpers.forked import Done, run_script

ROOT = Path(__file__).resolve().parents[2]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


COMMAND = "\nfrom ep_neuro.cli import main; main()\n"


def run(code: str, *words: object, cwd: Path) -> Done:
    """The command line as a process of its own, after the Python `code`."""
    script = cwd / "ep-neuro"
    script.write_text(code + COMMAND)
    return run_script(script, *words, cwd=cwd)


# --- real processes ----------------------------------------------------------------------------


NOISE = """
import os
from targets.interface.session import Session
quiet = Session.settle
def noisy(self, *args, **kwargs):
    print("from Python")
    os.write(1, b"from C\\n")
    os.system("echo from a child")
    return quiet(self, *args, **kwargs)
Session.settle = noisy
"""


def test_the_answer_is_alone_on_stdout_whatever_libraries_print(
    tmp_path: Path, program: Path
) -> None:
    done = run(NOISE, "run", program, "--limit", 3, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out)["samples"] == 3
    assert done.out.count("\n") == 1
    assert done.err.splitlines() == ["from Python", "from C", "from a child"]


def test_a_reader_that_left_is_met_in_silence(tmp_path: Path) -> None:
    """A fresh Python, as the last flush is at its very end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ep_neuro", "targets", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == console.PIPE_CLOSED
    process.stderr.close()


CTRL_C = """
import os, signal, threading, time
def press():
    while not os.path.exists("run/metrics.jsonl"):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
"""


def test_ctrl_c_in_training_leaves_whole_files_and_exits_130(tmp_path: Path) -> None:
    words = ("train", "zoo:digits_dense", "--set", "epochs=100000", "--out", "run", "--json")
    done = run(CTRL_C, *words, cwd=tmp_path)
    assert done.code == INTERRUPTED, done.err
    assert done.out == ""
    assert done.err == "error: interrupted; files written so far are whole\n"
    assert load_state(tmp_path / "run/last")["history"]
    assert not list(tmp_path.rglob("*.tmp"))


class Fleeting:
    def __del__(self) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_in_a_finaliser_where_python_drops_it_ends_the_command_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        Fleeting()
        time.sleep(30)

    began = time.monotonic()
    assert exit_code(work, debug=False) == INTERRUPTED
    assert time.monotonic() - began < 10
    assert capsys.readouterr().err == "error: interrupted; files written so far are whole\n"


# --- answers -----------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), JSON))
def test_every_answer_is_valid_json_on_one_line(data: dict[str, Any]) -> None:
    text = json.dumps(console._plain(data), allow_nan=False)
    assert "\n" not in text
    assert json.loads(text).keys() == data.keys()


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit({"a": float("nan"), "b": [float("inf"), 1.5], "c": True, "d": 3}, True)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": True, "d": 3}


def test_only_emit_reaches_stdout_while_it_is_owned(capsys: pytest.CaptureFixture[str]) -> None:
    with console.own_stdout():
        print("chatter")
        console.emit({"answer": 42}, True)
    print("after")
    captured = capsys.readouterr()
    assert captured.out == '{"answer": 42}\nafter\n'
    assert captured.err == "chatter\n"


def test_a_table_shows_nothing_for_none_and_every_column_in_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {f"column_{i}": value for i, value in enumerate(["name", None, 1234567.0, 0.98765, 8])}
    console.emit({}, False, console.records([row]))
    head, _, body = (line for line in capsys.readouterr().out.splitlines() if line.strip())
    assert head.split() == list(row)
    assert body.split() == ["name", "-", "1,234,567", "0.9877", "8"]


def test_a_field_with_fields_of_its_own_is_told_in_words() -> None:
    assert console.lines({"deployed": {}, "taken": {"code": "spike", "bits": 8}}) == (
        "deployed: -\ntaken: code spike, bits 8"
    )


def test_a_table_leaves_out_what_has_fields_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.emit({}, False, console.records([{"a": 1, "b": None}, {"a": 2, "b": {"c": 3}}]))
    head, _, *_ = (line for line in capsys.readouterr().out.splitlines() if line.strip())
    assert head.split() == ["a"]


@pytest.mark.parametrize("text", ["'ep-neuro[crossbar]'", "/data/[red]/x", "lava:cat:8", "[/]"])
def test_cells_and_log_lines_show_brackets_and_colons_as_they_stand(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console.emit({}, False, console.table((text,), [(text,)]))
    console.log(text)
    shown = capsys.readouterr()
    assert shown.out.count(text) == 2
    assert shown.err == f"{text}\n"


# --- meanwhile ---------------------------------------------------------------------------------


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 112.0, 113.0, 130.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("training") as advance:
        for done in (1, 2, 3, 5):
            advance(done, 10, "epoch 1")
    assert capsys.readouterr().err.splitlines() == [
        "training: 2 of 10, 96 s left, epoch 1",
        "training: 5 of 10, 38 s left, epoch 1",
    ]


def test_progress_on_a_terminal_is_a_bar_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = console.Console(stderr=True, force_terminal=True, width=100)
    monkeypatch.setattr(console, "LOG", terminal)
    with console.progress("training") as advance:
        advance(3, 10, "epoch 1")
        terminal.print("row")
    written = capsys.readouterr().err
    assert "3/10" in written
    # The last thing done is to erase the bar's line.
    assert written.rstrip("\r\n").endswith("\x1b[2K")


def test_a_warning_is_told_once_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    with console.plain_warnings():
        warnings.simplefilter("always")
        for _ in range(3):
            warnings.warn("leak\n0.9 is near instability", stacklevel=1)
    assert capsys.readouterr().err == "warning: leak 0.9 is near instability\n"


@pytest.mark.parametrize(("marker", "place"), [("m", "new/a/b"), ("m", "d"), (b"m", "d/f")])
def test_a_place_below_a_writable_folder_is_accepted(
    tmp_path: Path, marker: str | bytes, place: str
) -> None:
    (tmp_path / "d").mkdir()
    console.check_place(tmp_path / place, marker=marker)
    assert not (tmp_path / "new").exists()


def test_a_place_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As root every folder is writable, so the answer of the system is put in its mouth.
    monkeypatch.setattr(console.os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="no permission to write"):
        console.check_place(tmp_path / "out", marker="m")

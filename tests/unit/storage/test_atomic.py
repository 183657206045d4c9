"""Claims about atomic writes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ep_neuro.errors import ModelError
from ep_neuro.storage import atomic
from ep_neuro.storage.atomic import is_free, replace_directory, write_atomic, write_file
from tests.helpers.forked import fork


def test_a_file_is_written_whole_and_replaced(tmp_path: Path) -> None:
    for data in (b"old", b"new and longer"):
        write_atomic(tmp_path / "f", data)
        assert (tmp_path / "f").read_bytes() == data
    assert os.listdir(tmp_path) == ["f"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "f", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("kernel_swaps", [True, False])
def test_a_directory_takes_the_place_of_its_older_self(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_swaps: bool
) -> None:
    if not kernel_swaps:
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    for content in ("old", "new"):
        with replace_directory(tmp_path / "d", marker="m", error=ModelError) as directory:
            (directory / "m").write_text(content)
    assert (tmp_path / "d" / "m").read_text() == "new"
    assert os.listdir(tmp_path) == ["d"]


def test_a_block_that_raises_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with replace_directory(tmp_path / "d", marker="m", error=ModelError) as directory:
        (directory / "m").write_text("old")

    def half() -> None:
        with replace_directory(tmp_path / "d", marker="m", error=ModelError) as directory:
            (directory / "m").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert (tmp_path / "d" / "m").read_text() == "old"
    assert os.listdir(tmp_path) == ["d"]


def test_files_and_foreign_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path):
        with (
            pytest.raises(ModelError, match="choose another path"),
            replace_directory(place, marker="m", error=ModelError),
        ):
            pytest.fail("the block shall not run")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(ModelError, match="cannot be written"),
        replace_directory(tmp_path / "file" / "d", marker="m", error=ModelError),
    ):
        pytest.fail("the block shall not run")


def test_a_name_that_the_disk_does_not_take_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / ("n" * 300)
    with pytest.raises(ModelError, match=r"cannot be written.*choose another place"):
        write_file(place, b"ours", ModelError, marker=b"ours")
    with (
        pytest.raises(ModelError, match=r"cannot be written.*choose another place"),
        replace_directory(place, marker="m", error=ModelError),
    ):
        pass


def test_without_a_marker_no_file_is_ours(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"dear")
    with pytest.raises(ModelError, match="other content"):
        write_file(tmp_path / "f", b"new", ModelError, marker=b"")


def test_a_link_stays_a_link_and_its_directory_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for content in ("old", "new"):
        with replace_directory(tmp_path / "link", marker="m", error=ModelError) as directory:
            (directory / "m").write_text(content)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "m").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def write_directory(path: Path, content: str = "new") -> None:
    with replace_directory(path, marker="m", error=ModelError) as directory:
        (directory / "m").write_text(content)


def killed(write: Callable[[], object]) -> None:
    """`write` in a process that is killed at its first sync, with everything half done."""

    def work() -> None:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write()

    process = fork(work)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


Write = Callable[[Path], None]


@pytest.fixture(
    params=[lambda path: write_atomic(path, b"new"), write_directory], ids=["file", "directory"]
)
def write(request: pytest.FixtureRequest) -> Write:
    return request.param


def test_what_a_killed_writer_left_goes_with_the_next_write_there(
    tmp_path: Path, write: Write
) -> None:
    for name in ("x", "x.y", "[x]", "[x]"):
        killed(lambda name=name: write(tmp_path / name))
    assert len(os.listdir(tmp_path)) == 4
    assert is_free(tmp_path)
    write(tmp_path / "[x]")
    left = sorted(os.listdir(tmp_path))
    assert left[2] == "[x]"
    assert [re.sub(r"[0-9a-f]{8}", "?", name) for name in left[:2]] == [".x.?.tmp", ".x.y.?.tmp"]


def test_what_a_living_writer_has_half_done_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    sync = os.fsync

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        write(tmp_path / "x")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]


def test_a_writer_whose_fresh_file_was_swept_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    lock = atomic.fcntl.flock

    def swept(descriptor: int, how: int) -> None:
        monkeypatch.setattr(atomic.fcntl, "flock", lock)
        atomic.remove_leftovers(tmp_path)
        lock(descriptor, how)

    monkeypatch.setattr(atomic.fcntl, "flock", swept)
    write(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]


def test_a_disk_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    killed(lambda: write(tmp_path / "x"))

    def none(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(atomic.fcntl, "flock", none)
    write(tmp_path / "x")
    # Whether somebody still writes the other one cannot be known.
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        (b"mine", "is a file with other content (no 'ours' in it)"),
        (None, "exists and is no file"),
        (b"<!-- ours -->", ""),
        (b"", ""),
    ],
)
def test_a_file_that_we_did_not_write_is_refused(
    tmp_path: Path, stands: bytes | None, said: str
) -> None:
    path = tmp_path / "f"
    if stands is None:
        (path / "d").mkdir(parents=True)
        (path / "d" / "letter").touch()
    else:
        path.write_bytes(stands)
    if not said:
        write_file(path, b"ours", ModelError, marker=b"ours")
        assert path.read_bytes() == b"ours"
        return
    with pytest.raises(ModelError, match=re.escape(said)):
        write_file(path, b"ours", ModelError, marker=b"ours")
    assert stands is None or path.read_bytes() == stands

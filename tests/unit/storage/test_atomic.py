"""Claims about atomic writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ep_neuro.errors import ModelError
from ep_neuro.storage import atomic
from ep_neuro.storage.atomic import replace_directory, write_atomic


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


def test_a_link_stays_a_link_and_its_directory_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for content in ("old", "new"):
        with replace_directory(tmp_path / "link", marker="m", error=ModelError) as directory:
            (directory / "m").write_text(content)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "m").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]

"""Claims about places: every command refuses one that it did not make, and writes its own again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import targets
from compilers import Program
from tests.cli.conftest import Cli
from tests.helpers import toy_target

FEW = ("--limit", 2)
QUICK = ("compare", "model", "--with", "reference:graded:8", "--steps", 2, *FEW)
COMPILE = ("compile", "model", "--steps", 2)
IMPORT = ("import", "theirs.pt", "--like", "digits_dense")
TRAIN = ("train", "zoo:digits_dense", "--set", "epochs=1")

FOLDERS = [
    pytest.param((*QUICK, "--out", "x"), "x", id="compare"),
    pytest.param((*COMPILE, "--target", "reference", "--out", "x"), "x", id="compile"),
    pytest.param((*TRAIN, "--out", "x"), "x", id="train"),
    pytest.param((*TRAIN, "--out", "x", "--force"), "x", id="train force"),
    pytest.param(("demo", "--out", "x"), "x", id="demo"),
    pytest.param(("learn", "program", "--out", "x"), "x", id="learn"),
    pytest.param(("learn", "program", "--out", "x"), "x.run", id="learn run"),
    pytest.param(("learn", "program", "--out", "x", "--force"), "x.run", id="learn run force"),
    pytest.param(("learn", "program", "--model", "x"), "x", id="learn model"),
    pytest.param((*IMPORT, "--out", "x", "--force"), "x", id="import"),
]
FILES = [
    pytest.param((*COMPILE, "--target", "nir", "--out", "x.nir"), "x.nir", id="nir"),
    pytest.param((*COMPILE, "--target", "brian2", "--out", "x.py"), "x.py", id="brian2"),
    pytest.param((*COMPILE, "--target", "brian2", "--out", "x.py"), "x.npz", id="brian2 weights"),
    pytest.param(("run", "program", *FEW, "--trace", "x.npz"), "x.npz", id="trace"),
    pytest.param((*QUICK, "--out", "x"), "x/report.html", id="page"),
    pytest.param(("view", "program", *FEW, "--out", "x.html"), "x.html", id="view"),
    pytest.param(("export", "model", "--out", "x.pt", "--force"), "x.pt", id="export"),
]


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def _made(model: Path, program: Path) -> None:
    """Everything that the commands name."""


@pytest.mark.parametrize(("words", "taken"), FOLDERS)
def test_a_folder_of_something_else_is_refused(
    words: tuple[object, ...], taken: str, cli: Cli, tmp_path: Path
) -> None:
    Path(taken, "model").mkdir(parents=True)
    Path(taken, "model", "letter").write_text("dear")
    before = contents(tmp_path)
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert f"error: {taken}: is a directory with other content (no " in done.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("words", "taken"), FILES)
@pytest.mark.parametrize("what", ["letter", "device", "folder"])
def test_a_file_of_something_else_is_refused(
    words: tuple[object, ...], taken: str, what: str, cli: Cli, tmp_path: Path
) -> None:
    place = Path(taken)
    place.parent.mkdir(exist_ok=True)
    if what == "letter":
        place.write_text("dear")
    elif what == "device":
        place.symlink_to("/dev/null")
    else:
        (place / "letter").mkdir(parents=True)
    before, links = contents(tmp_path), place.is_symlink()
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.strip().splitlines()[-1].startswith(f"error: {place.parts[0]}")
    assert (contents(tmp_path), place.is_symlink()) == (before, links)


@pytest.mark.parametrize(
    "words", [*(p.values[0] for p in FILES), FOLDERS[1].values[0], (*TRAIN, "--out", "x")]
)
def test_what_a_command_wrote_it_writes_again(words: tuple[object, ...], cli: Cli) -> None:
    assert cli(*words).code == 0
    before = set(os.listdir())
    again = (*words, "--force") if "train" in words else words
    assert cli(*again).code == 0
    assert set(os.listdir()) == before


class Writer(toy_target.ToyBackend):
    """A target of one's own that writes a file, and does not say what tells it."""

    name, suffix = "writer", ".wr"

    def export(self, program: Program, path: Path) -> None:
        path.write_text(program.target)


def test_the_file_of_a_target_that_has_no_marker_is_written_once(cli: Cli) -> None:
    targets.register(Writer())
    words = (*COMPILE, "--target", "writer", "--out", "x.wr")
    try:
        assert cli(*words).code == 0
        assert "error: x.wr: is a file with other content" in cli(*words).err
    finally:
        targets.unregister("writer")

"""Claims about programs on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compilers.program import Program, load_program, save_program
from ep_neuro.errors import ProgramError
from tests.helpers.graphs import digits_like_dense, graph_of


@pytest.fixture
def program() -> Program:
    return Program(
        target="reference",
        graph=graph_of(digits_like_dense(), bits=8),
        options={"time_limit": 2.5, "cores": [1, 2]},
        files={"notes.txt": "one\r\ntwo\n"},
        provenance={"model": "digits"},
    )


def test_loading_undoes_saving(program: Program, tmp_path: Path) -> None:
    save_program(program, tmp_path / "deep" / "p")
    again = load_program(tmp_path / "deep" / "p")
    assert again.digest() == program.digest()
    assert again.files == program.files
    assert again.options == program.options


def test_an_older_program_is_replaced_and_nothing_is_left_beside(
    program: Program, tmp_path: Path
) -> None:
    save_program(program, tmp_path / "p")
    newer = replace(program, target="lava", files={})
    save_program(newer, tmp_path / "p")
    assert load_program(tmp_path / "p").digest() == newer.digest()
    assert [f.name for f in tmp_path.iterdir()] == ["p"]
    assert not (tmp_path / "p" / "files").exists()


def test_a_directory_of_other_content_is_left_alone(program: Program, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("years of work")
    with pytest.raises(ProgramError, match="other content"):
        save_program(program, tmp_path / "p")
    assert (tmp_path / "p" / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_keeps_the_old_program(program: Program, tmp_path: Path) -> None:
    save_program(program, tmp_path / "p")
    with pytest.raises(ProgramError, match="JSON"):
        save_program(replace(program, options={"x": object()}), tmp_path / "p")
    assert load_program(tmp_path / "p").digest() == program.digest()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_files_stay_inside_the_program(program: Program, tmp_path: Path, name: str) -> None:
    with pytest.raises(ProgramError, match="no plain file name"):
        save_program(replace(program, files={name: ""}), tmp_path / "p")


FILES = ["program.json", "graph.txt", "graph.json", "arrays.safetensors", "files/notes.txt"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(program: Program, tmp_path: Path, name: str) -> None:
    save_program(program, tmp_path / "p")
    (tmp_path / "p" / name).unlink()
    _refused(tmp_path / "p", name)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(program: Program, tmp_path: Path, name: str) -> None:
    save_program(program, tmp_path / "p")
    file = tmp_path / "p" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    _refused(tmp_path / "p", "")


@pytest.mark.parametrize("name", FILES[1:])
def test_a_changed_byte_is_refused(program: Program, tmp_path: Path, name: str) -> None:
    save_program(program, tmp_path / "p")
    file = tmp_path / "p" / name
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    _refused(tmp_path / "p", "")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("format_version", 99, "format version 99 is not 1"),
        ("hash", "0" * 64, "does not fit its hash"),
        ("target", "lava", "does not fit its hash"),
        ("target", 3, "'target' is no str"),
        ("files", ["../../secret"], "no file name"),
        ("options", {"cores": 7}, "does not fit its hash"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    program: Program, tmp_path: Path, key: str, value: object, complaint: str
) -> None:
    save_program(program, tmp_path / "p")
    manifest = tmp_path / "p" / "program.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: value}))
    _refused(tmp_path / "p", complaint)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_program_with_weights_that_are_no_numbers_is_refused(
    program: Program, tmp_path: Path, value: float
) -> None:
    name, array = next(iter(program.graph.arrays.items()))
    arrays = {**program.graph.arrays, name: np.full(array.shape, value)}
    save_program(replace(program, graph=replace(program.graph, arrays=arrays)), tmp_path / "p")
    _refused(tmp_path / "p", f"array '{name}' holds NaN or infinity; compile the model again")


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere", "no program directory")
    _refused(tmp_path, "program.json")


def _refused(path: Path, complaint: str) -> None:
    with pytest.raises(ProgramError) as caught:
        load_program(path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)

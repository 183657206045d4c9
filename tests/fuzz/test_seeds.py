"""Claims about inputs that were taken badly once, and about bombs and traps by construction."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from compilers.ir.graph import Conv
from tests.fuzz import bases
from tests.fuzz.binaries import bomb, changed, liar, strangers
from tests.fuzz.case import Case, Outcome
from tests.fuzz.claims import fault_of
from tests.fuzz.mutations import laughs
from tests.fuzz.supervisor import Supervisor

SPEC = {"s.yaml": bases.texts()["s.yaml"], "d.npz": bases.data()}


def refused(supervisor: Supervisor, case: Case, says: str) -> None:
    """Claim that `case` is refused in one line that `says` this, and takes no memory."""
    found = supervisor.run(case)
    assert isinstance(found, Outcome), found
    assert fault_of(case, found) is None, found
    assert found.code == 2
    assert says in found.err


# --- YAML --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        laughs(9),
        laughs(9, "input"),
        "a: &a [*a]\nname: *a\n",
        laughs(8, "? *a7\n"),
        f"a: &a {'x' * 1000}\nname: [{', '.join(['*a'] * 1000)}]\n",
    ],
)
@pytest.mark.parametrize("words", [("inspect", "c.yaml"), ("train", "c.yaml", "--out", "run")])
def test_aliases_that_swell_are_refused(
    supervisor: Supervisor, text: str, words: tuple[str, ...]
) -> None:
    refused(supervisor, Case(words, {"c.yaml": text.encode()}), "not YAML: its aliases")


def test_a_yaml_tag_runs_nothing(supervisor: Supervisor) -> None:
    text = b"x: !!python/object/apply:os.system ['touch pwned']\n"
    refused(supervisor, Case(("inspect", "s.yaml"), {"s.yaml": text}), "not YAML")


def test_an_alias_is_still_an_alias() -> None:
    from ep_neuro.storage.yaml_io import parse_yaml

    assert parse_yaml("a: &a {x: 1}\nb: *a\n", "here") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_name_that_no_file_can_have_is_refused(supervisor: Supervisor) -> None:
    refused(supervisor, Case(("train", "\0"), SPEC), "cannot be read (embedded null byte)")


# --- data --------------------------------------------------------------------------------------


def _jpegs(side: int, count: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "JPEG")
    one = np.frombuffer(buffer.getvalue(), np.uint8)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_jpeg"] = np.tile(one, count)
        arrays[f"{split}_offsets"] = np.arange(count + 1) * len(one)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    return bases.npz(arrays)


def _picture(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bomb, "unpacks from"),
        (lambda: _jpegs(3000, 12), "unpacks from"),
        (lambda: liar((12, 1, 10**6, 10**6)), "do not fit into the memory"),
        (lambda: liar((12, 1, 4, 4)), "cannot be read"),
        *((lambda i=i: strangers()[i], "not an npz file of plain arrays") for i in range(4)),
    ],
)
def test_a_deceiving_npz_file_is_refused(supervisor: Supervisor, content: Any, says: str) -> None:
    files = {"s.yaml": bases.texts()["s.yaml"], "e.npz": content()}
    refused(supervisor, Case(("evaluate", "s.yaml", "--data", "npz:e.npz"), files), says)


def test_an_image_that_swells_is_refused(supervisor: Supervisor) -> None:
    files = {f"f/{name}/{i}.png": _picture(4) for name in "abc" for i in range(4)}
    files["f/a/0.png"] = _picture(9600)
    words = ("evaluate", "s.yaml", "--data", "folder:f")
    refused(supervisor, Case(words, {**SPEC, **files}), "unpacks from")


# --- NIR ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("soft", "is a link to elsewhere"),
        ("external", "is a link to elsewhere"),
        ("cycle", "is another name of an object"),
        ("stored", "lies in another file"),
        ("virtual", "lies in another file"),
        ("sparse", "unpacks from"),
    ],
)
def test_a_nir_file_of_more_than_itself_is_refused(
    supervisor: Supervisor, kind: str, says: str
) -> None:
    content = changed(bases.nir_file(1), [(kind, 7, 19)])
    refused(supervisor, Case(("inspect", "f.nir"), {"f.nir": content}), says)


def test_a_node_whose_type_is_an_array_is_refused(supervisor: Supervisor) -> None:
    content = bases.nir_file(1)
    for value in range(20):
        changes = [("drop", 0, 0)] if value == 19 else [("replace", 3, value)]
        case = Case(("inspect", "f.nir"), {"f.nir": changed(content, changes)})
        assert supervisor.fault(case) is None, value


@pytest.mark.parametrize(
    ("number", "place", "value", "says"),
    [
        (0, "node/nodes/h/metadata", "text", "node 'h': its metadata is no group of values"),
        (1, "node/nodes", np.array([10**6]), "is no readable NIR file"),
        (1, "node/nodes/up/bias", "text", "this Affine is not supported"),
        (1, "node/nodes/up/bias", np.zeros(0), "this Affine is not supported"),
        (1, "node/nodes/up/bias/x", 0.0, "this Affine is not supported"),
    ],
)
def test_a_part_of_a_node_that_is_another_thing_is_refused(
    supervisor: Supervisor, number: int, place: str, value: Any, says: str
) -> None:
    buffer = io.BytesIO(bases.nir_file(number))
    with h5py.File(buffer, "r+") as file:
        del file[place.removesuffix("/x")]
        file[place] = value
    refused(supervisor, Case(("inspect", "f.nir"), {"f.nir": buffer.getvalue()}), says)


# --- models ------------------------------------------------------------------------------------


def test_metadata_of_endless_lists_are_refused(supervisor: Supervisor) -> None:
    files = {**bases.model(), "m/metadata.json": b"[" * 5000}
    refused(supervisor, Case(("inspect", "m"), files), "metadata.json: cannot be read")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_note_of_a_model_that_is_not_finite_is_null(supervisor: Supervisor, number: str) -> None:
    files = {**bases.model(), "m/metadata.json": f'{{"x": [{number}]}}'.encode()}
    case = Case(("inspect", "m", "--json"), files)
    assert supervisor.fault(case) is None
    assert supervisor.answered


# --- programs ----------------------------------------------------------------------------------


def test_a_program_without_a_weight_is_refused_though_its_hash_is_right(
    supervisor: Supervisor,
) -> None:
    from dataclasses import replace

    made = bases.program()
    arrays = {k: a for k, a in made.graph.arrays.items() if k != "weight/h->output"}
    files = bases.program_files(replace(made, graph=replace(made.graph, arrays=arrays)))
    for words in (("run", "p", "--data", "npz:d.npz"), ("inspect", "p")):
        refused(supervisor, Case(words, {**SPEC, **files}), "array 'weight/h->output' is missing")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"delay": 10**9}, "projection 'h->output': delay 1000000000 is not in 1 to 1,024"),
        ({"operator": Conv(0)}, "projection 'h->output': stride 0 is not in 1 to 65,536"),
    ],
)
def test_a_number_beyond_its_bounds_is_refused_though_the_hash_is_right(
    supervisor: Supervisor, changes: dict[str, Any], says: str
) -> None:
    from dataclasses import replace

    made = bases.program()
    ways = tuple(
        replace(p, **changes) if p.name == "h->output" else p for p in made.graph.projections
    )
    files = bases.program_files(replace(made, graph=replace(made.graph, projections=ways)))
    for words in (("run", "p", "--data", "npz:d.npz"), ("inspect", "p")):
        refused(supervisor, Case(words, {**SPEC, **files}), says)


def test_a_folder_without_a_name_is_no_program(supervisor: Supervisor) -> None:
    case = Case(("learn", "/", "--samples", "4"), {"d.npz": bases.data()})
    refused(supervisor, case, "/program.json: cannot be read")

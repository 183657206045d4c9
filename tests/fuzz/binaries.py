"""Strategies of binary files: npz, image folders, and NIR in HDF5."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from PIL import Image

from tests.fuzz import bases
from tests.fuzz.case import Case
from tests.fuzz.folders import any_array
from tests.fuzz.mutations import damaged
from tests.fuzz.texts import MODEL_COMMANDS, with_model

# --- npz ---------------------------------------------------------------------------------------


class Pickled:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("pwned", "w")


@functools.cache
def bomb(side: int = 5120) -> bytes:
    """An npz file of a few hundred kilobytes whose array x holds ``12 * side * side`` zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (12, 1, side, side)}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(12 * side * side >> 20):
                member.write(bytes(1 << 20))
        with file.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.arange(12) % 3)
    return buffer.getvalue()


def liar(shape: tuple[int, ...]) -> bytes:
    """An npz file whose array x says that it has `shape`, and holds nothing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        with file.open("x.npy", "w") as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
        with file.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.arange(12) % 3)
    return buffer.getvalue()


@functools.cache
def strangers() -> tuple[bytes, ...]:
    """Files that are nearly npz: one array, pickled objects, encrypted or oddly packed members."""
    one, whole = io.BytesIO(), bases.npz(bases.arrays())
    np.save(one, np.zeros((12, 1, 4, 4)))
    entry = whole.index(b"PK\x01\x02")
    encrypted, packed = bytearray(whole), bytearray(whole)
    encrypted[entry + 8] |= 1
    encrypted[6] |= 1
    packed[entry + 10] = packed[8] = 99
    objects = bases.npz({**bases.arrays(), "x": np.array([Pickled()] * 12, dtype=object)})
    return one.getvalue(), objects, bytes(encrypted), bytes(packed)


@functools.cache
def _jpeg(mode: str = "L", side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


@functools.cache
def _packed() -> dict[str, np.ndarray]:
    one = np.frombuffer(_jpeg(), np.uint8)
    found: dict[str, np.ndarray] = {"classes": np.array(["a", "b", "c"])}
    for split, count in (("train", 12), ("test", 3)):
        found[f"{split}_jpeg"] = np.tile(one, count)
        found[f"{split}_offsets"] = np.arange(count + 1) * len(one)
        found[f"{split}_labels"] = np.arange(count) % 3
    return found


@functools.cache
def _keras() -> dict[str, np.ndarray]:
    x, y = bases.arrays()["x"][:, 0, :, :, None], np.eye(3)[np.arange(12) % 3]
    layout = np.array("NHWC")
    return {"x_train": x, "y_train": y, "x_test": x[:3], "y_test": y[:3], "layout": layout}


@functools.cache
def _recording() -> dict[str, np.ndarray]:
    """Events on 4 x 4 pixels, each field by itself."""
    place = np.arange(12, dtype=np.int16)
    return {"x": place % 4, "y": place // 4, "t": place * 9, "p": place % 2}


DATA_COMMANDS = (
    ("evaluate", "m", "--data", "DATA", "--limit", "2", "--json"),
    ("evaluate", "m", "--data", "DATA:val", "--json"),
    ("run", "p", "--data", "DATA", "--limit", "2", "--json"),
    ("learn", "p", "--data", "DATA", "--limit", "2", "--samples", "2", "--json"),
    ("compare", "m", "--with", "reference", "--steps", "4", "--limit", "2", "--data", "DATA"),
)


@functools.cache
def _readers() -> dict[str, bytes]:
    return {**bases.model(), **bases.whole_program()}


def _on(words: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(word.replace("DATA", name) for word in words)


@st.composite
def npz_files(draw: DrawFn) -> Case:
    """Samples or events in an npz file, with other arrays, or a damaged or deceiving archive."""
    forms = (bases.arrays(), _packed(), _keras(), _recording())
    arrays: dict[str, Any] = dict(draw(st.sampled_from(forms)))
    data, path = ("events-peak:e", "e/a/0.npz") if "t" in arrays else ("npz:e.npz", "e.npz")
    arrays.setdefault("classes", np.array(["a", "b", "c"]))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(arrays)))
        arrays[name] = draw(_other(arrays[name]))
        if draw(st.integers(0, 5)) == 0 and len(arrays) > 1:
            del arrays[name]
    kind = draw(st.integers(0, 9))
    if kind == 0:
        content = liar(tuple(draw(st.lists(st.sampled_from((0, 1, 12, 10**6)), max_size=4))))
    elif kind == 1:
        content = draw(_renamed(bases.npz(arrays)))
    elif kind == 3:
        content = draw(st.sampled_from(strangers()))
    else:
        content = bases.npz(arrays)
    if kind == 2:
        content = draw(damaged(content))
    words = _on(draw(st.sampled_from(DATA_COMMANDS)), data)
    return Case(words, {**_readers(), "d.npz": bases.data(), path: content})


@st.composite
def _other(draw: DrawFn, like: np.ndarray) -> np.ndarray:
    if draw(st.integers(0, 3)) or like.dtype.kind not in "fiu":
        strange = [
            np.array(["a"] * 12),
            np.array(["2001-01-01"] * 12, "M8[D]"),
            np.zeros(12, [("a", "f4")]),
            np.array([10**15] * 12),
            np.array([-1] * 12),
            np.arange(12, dtype=np.uint64) + np.uint64(2**63),
            np.zeros((0,)),
            np.array(3),
        ]
        return draw(st.sampled_from(strange))
    return draw(any_array(like))


@st.composite
def _renamed(draw: DrawFn, content: bytes) -> bytes:
    """An npz file whose first array has another name, which may lead out of the folder."""
    buffer = io.BytesIO()
    names = ("../pwned", "/tmp/pwned.npy", "x", "x.npy/", "y.npy", "\u00e9.npy")
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for number, name in enumerate(old.namelist()):
            renamed = draw(st.sampled_from(names)) if number == 0 else name
            new.writestr(renamed, old.read(name))
    return buffer.getvalue()


# --- image folders -----------------------------------------------------------------------------

_MODES = ("L", "RGB", "1", "LA", "RGBA", "CMYK", "P", "I;16", "I", "F")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "TGA")

_EXIF = (
    b"",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    b"Exif\0\0MM",
)
"""None, an image that lies on its side, and what is cut."""


@functools.cache
def image(mode: str, size: tuple[int, int], form: str, exif: bytes = b"") -> bytes:
    """An image of noise; of what a format cannot hold, the mode is L."""
    rng = np.random.default_rng(0)
    raw = Image.fromarray(rng.integers(0, 256, (size[1], size[0]), dtype=np.uint8))
    options = {} if form == "TIFF" else {"exif": exif}  # It would be read there, and refused.
    for tried in (mode, "RGB", "L"):
        buffer = io.BytesIO()
        try:
            raw.convert(tried).save(buffer, form, **options)
        except (OSError, ValueError, KeyError):
            continue
        return buffer.getvalue()
    return b""


@st.composite
def _picture(draw: DrawFn) -> bytes:
    size = draw(st.sampled_from(((4, 4), (4, 4), (1, 1), (9, 2), (300, 1))))
    drawn = (draw(st.sampled_from(choices)) for choices in (_FORMATS, _EXIF))
    content = image(draw(st.sampled_from(_MODES)), size, *drawn)
    kind = draw(st.integers(0, 5))
    if kind == 0 and content:
        return draw(damaged(content))
    return b"" if kind == 1 else content


@st.composite
def image_folders(draw: DrawFn) -> Case:
    """A folder of class folders of images, some of them changed, moved or damaged."""
    plain = image("L", (4, 4), "PNG")
    files = {f"f/{name}/{i}.png": plain for name in "abc" for i in range(4)}
    if draw(st.booleans()):
        files = {f"f/{s}{n[1:]}": c for n, c in files.items() for s in ("train", "test")}
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(sorted(files)))
        content = files.pop(name)
        kind = draw(st.sampled_from(("other", "other", "drop", "move", "ending")))
        if kind == "other":
            files[name] = draw(_picture())
        elif kind == "move":
            place = draw(st.sampled_from(("f/x.png", "f/.a/x.png", "f/valid/a/x.png", "f/d/x.png")))
            files[place] = content
        elif kind == "ending":
            ending = draw(st.sampled_from((".txt", ".JPG", ".tif", ".webp", "")))
            files[str(PurePosixPath(name).with_suffix(ending))] = content
    words = _on(draw(st.sampled_from(DATA_COMMANDS)), "folder:f")
    return Case(words, {**_readers(), "d.npz": bases.data(), **files})


# --- NIR ---------------------------------------------------------------------------------------

_TYPES = ("LI", "LIF", "Affine", "Linear", "Conv2d", "Flatten", "Input", "NIRGraph", "Scale", "x")
_REPLACED: tuple[Any, ...] = (
    *(0, -1, 1.5, np.nan, 10**12, np.inf, "text", b"\xff\xfe", np.zeros(0), np.ones(4), np.ones(3)),
    *(np.ones((4, 4)), np.array([16]), np.array([10**6]), np.array([-4]), np.ones(4, complex)),
    *(np.array([2**62, 2**62]), np.zeros((2, 2), np.int8), np.array([True] * 4)),
)


@st.composite
def nir_files(draw: DrawFn) -> Case:
    """A NIR file with nodes of other types and values, links and references, or damage."""
    content = bases.nir_file(draw(st.integers(0, 2)))
    changes = draw(st.lists(_CHANGES, max_size=3))
    if changes:
        content = changed(content, changes)
    if draw(st.integers(0, 4)) == 0:
        content = draw(damaged(content))
    words = with_model(draw(st.sampled_from(MODEL_COMMANDS)), "f.nir")
    return Case(words, {"f.nir": content, "d.npz": bases.data()})


_KINDS = (
    *("replace", "replace", "replace", "drop", "type", "soft", "external", "cycle", "sparse"),
    *("stored", "reference", "virtual", "compound", "edges", "group", "rename"),
)
_CHANGES = st.tuples(st.sampled_from(_KINDS), st.integers(0, 99), st.integers(0, 99))


def changed(content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    """An HDF5 file after `changes`, each a kind, the number of an object, and of a value."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        for kind, at, value in changes:
            names: list[str] = []
            file.visit(names.append)
            if not names:
                break
            name = names[at % len(names)]
            try:
                _change(file, kind, name, names, value)
            except (LookupError, ValueError, TypeError, OSError, RuntimeError):
                continue
    return buffer.getvalue()


def _change(file: Any, kind: str, name: str, names: list[str], value: int) -> None:
    if kind == "edges":
        name = "node/edges"
    if kind == "type":
        name = [n for n in names if n.endswith("/type")][value % 3]
    other = names[value % len(names)]
    if kind == "rename":
        file.move(name, f"{name}{value}")
        return
    del file[name]
    if kind == "replace":
        file[name] = _REPLACED[value % len(_REPLACED)]
    elif kind == "type":
        file[name] = _TYPES[value % len(_TYPES)]
    elif kind == "soft":
        file[name] = h5py.SoftLink(f"/{other}")
    elif kind == "external":
        file[name] = h5py.ExternalLink("d.npz" if value % 2 else "/etc/passwd", f"/{other}")
    elif kind == "cycle":
        file[name] = file[other] if isinstance(file[other], h5py.Group) else file["node"]
    elif kind == "sparse":
        file.create_dataset(name, (1 << (20 + value % 20),), "f4", chunks=(1 << 16,))
    elif kind == "stored":
        file.create_dataset(name, (64,), "u1", external=[("/etc/passwd", 0, 64)])
    elif kind == "reference":
        file[name] = np.array([file[other].ref] * 4, h5py.ref_dtype)
    elif kind == "virtual":
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
        file.create_virtual_dataset(name, layout)
    elif kind == "compound":
        file[name] = np.zeros(4, [("a", "f4"), ("b", "i8")])
    elif kind == "edges":
        ends = ["input", "a", "b", "output", "nowhere", "on", "back"]
        file[name] = [[ends[value % 7].encode(), ends[value // 7 % 7].encode()]] * (1 + value % 3)
    elif kind == "group":
        file.create_group(name)

"""A compiled program and its form on disk: readable, hashed, replaced atomically, no pickle."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from compilers.ir.graph import Graph
from compilers.ir.json_form import graph_from_json, graph_to_json
from compilers.ir.text import print_graph
from compilers.passes.validate import validate
from ep_neuro.errors import GraphError, ProgramError
from ep_neuro.storage.atomic import replace_directory
from ep_neuro.storage.value_checks import fault

FORMAT_VERSION = 1
"""Version of the directory's layout; another one is refused."""

MANIFEST, TEXT, RECORDS, ARRAYS, EXTRA = (
    *("program.json", "graph.txt", "graph.json"),
    *("arrays.safetensors", "files"),
)
_REBUILD = "compile the model again"


@dataclass(frozen=True)
class Program:
    """What a target runs: a graph that went through all passes, and the target's options.

    Attributes
    ----------
    target : str
        Name of the backend.
    graph : Graph
        The final graph.
    options : mapping
        The backend's options, JSON values only.
    files : mapping of str to str
        Further text that the target emits, by file name.
    provenance : mapping of str to str
        What the program was made from and by which versions.
    """

    target: str
    graph: Graph
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 of everything the program holds; equal programs have equal digests."""
        content = {
            "format_version": FORMAT_VERSION,
            "target": self.target,
            "graph": self.graph.digest(),
            "options": self.options,
            "files": dict(self.files),
            "provenance": dict(self.provenance),
        }
        try:
            text = json.dumps(content, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            problem = f"not storable as JSON ({error})"
            raise ProgramError("program options", problem, "use plain values") from None
        return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python, NumPy and ep-neuro, for provenance."""
    return {
        "version.python": platform.python_version(),
        "version.numpy": np.__version__,
        "version.ep-neuro": _own_version(),
    }


@cache
def _own_version() -> str:
    try:
        return metadata.version("ep-neuro")
    except metadata.PackageNotFoundError:
        return "source tree"


# --- writing -----------------------------------------------------------------------------------


def save_program(program: Program, path: str | Path) -> None:
    """Write `program` as the directory `path`; an older program there is replaced atomically.

    Raises
    ------
    ProgramError
        If `path` holds anything else, the disk refuses, or the options are not JSON.
    """
    for name in program.files:
        if not name or name.startswith(".") or set(name) & set("/\\\0"):
            problem = "is no plain file name"
            raise ProgramError(f"program file '{name}'", problem, "drop separators and dots")
    manifest = {
        "format_version": FORMAT_VERSION,
        "hash": program.digest(),
        "target": program.target,
        "options": dict(program.options),
        "files": sorted(program.files),
        "provenance": dict(program.provenance),
    }
    text, records = print_graph(program.graph), graph_to_json(program.graph)
    arrays = {k: np.ascontiguousarray(a) for k, a in program.graph.arrays.items()}
    with replace_directory(path, marker=MANIFEST, error=ProgramError) as directory:
        (directory / TEXT).write_text(text, encoding="utf-8")
        (directory / RECORDS).write_text(_json(records), encoding="utf-8")
        (directory / ARRAYS).write_bytes(safetensors_numpy.save(arrays))
        if program.files:
            (directory / EXTRA).mkdir()
        for name, content in program.files.items():
            (directory / EXTRA / name).write_bytes(content.encode())
        (directory / MANIFEST).write_text(_json(manifest), encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


# --- reading -----------------------------------------------------------------------------------


def load_program(path: str | Path) -> Program:
    """Read the program in directory `path` and verify its format version and content hash.

    Raises
    ------
    ProgramError
        If a file is missing, truncated or changed, the version is another one, or the graph is
        inconsistent.
    """
    path = Path(path)
    if not path.is_dir():
        raise ProgramError(str(path), "is no program directory", "give what `compile` wrote")
    manifest = _read_manifest(path)
    graph = _read_graph(path)
    files = {
        name: _read(path / EXTRA / name).decode("utf-8", "replace") for name in manifest["files"]
    }
    program = Program(manifest["target"], graph, manifest["options"], files, manifest["provenance"])
    if program.digest() != manifest["hash"]:
        problem = "content does not fit its hash: a file was changed after compilation"
        raise ProgramError(str(path), problem, _REBUILD)
    try:
        validate(graph)
    except GraphError as error:
        raise ProgramError(f"{path}: {error.subject}", error.problem, _REBUILD) from None
    return program


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProgramError(str(path), f"cannot be read ({error.strerror})", _REBUILD) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ProgramError(str(path), f"is damaged, not JSON ({error})", _REBUILD) from None
    if not isinstance(data, dict):
        raise ProgramError(str(path), "is damaged, not a JSON object", _REBUILD)
    return data


_MANIFEST_TYPES: dict[str, type] = {
    "hash": str,
    "target": str,
    "options": dict,
    "files": list,
    "provenance": dict,
}


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_json(path / MANIFEST)
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        problem = f"format version {version} is not {FORMAT_VERSION}"
        raise ProgramError(str(path / MANIFEST), problem, _REBUILD)
    for key, kind in _MANIFEST_TYPES.items():
        if not isinstance(manifest.get(key), kind):
            problem = f"is damaged, '{key}' is no {kind.__name__}"
            raise ProgramError(str(path / MANIFEST), problem, _REBUILD)
    if any(not isinstance(name, str) or Path(name).name != name for name in manifest["files"]):
        problem = "is damaged, 'files' holds something that is no file name"
        raise ProgramError(str(path / MANIFEST), problem, _REBUILD)
    return manifest


def _read_graph(path: Path) -> Graph:
    try:
        arrays = safetensors_numpy.load(_read(path / ARRAYS))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ProgramError(str(path / ARRAYS), f"is damaged ({error})", _REBUILD) from None
    for name, array in arrays.items():
        problem = fault(array, "fiu")
        if problem is not None:
            remedy = "compile the model again, and learn with a smaller rate"
            raise ProgramError(str(path / ARRAYS), f"array '{name}' {problem}", remedy)
    try:
        graph = graph_from_json(_read_json(path / RECORDS), arrays)
    except GraphError as error:
        raise ProgramError(str(path / RECORDS), f"is damaged ({error})", _REBUILD) from None
    # The text is for people; a change there that went unnoticed would mislead them.
    if _read(path / TEXT).decode("utf-8", "replace") != print_graph(graph):
        raise ProgramError(str(path / TEXT), f"differs from {RECORDS}", _REBUILD)
    return graph

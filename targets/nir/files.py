"""NIR files: written with the same bytes every time, and read back without loss."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from compilers.ir.graph import Graph
from compilers.ir.text import parse_graph
from ep_neuro.errors import EPNeuroError, GraphError, ProgramError, SpecError
from ep_neuro.storage.atomic import write_file
from ep_neuro.storage.hdf5 import danger
from ep_neuro.storage.value_checks import fault
from targets.nir.export import FORMATS, to_nir
from targets.nir.for_reader import written_for
from targets.nir.kernel_shapes import keeps_planes
from targets.nir.reader_errors import first_fault
from targets.nir.readers import reader_of
from targets.nir.shapes import shaped

_NUMBERS = (np.ndarray, np.generic)


def nodes_of(graph: Graph, reader: str | None = None) -> nir.NIRGraph:
    """`graph` in NIR's nodes: by its equations, or as the `reader` of this name steps them."""
    return to_nir(graph) if reader is None else written_for(graph, reader_of(reader))


def nir_bytes(graph: Graph, reader: str | None = None) -> bytes:
    """Content of the NIR file of `graph`; equal graphs give equal bytes."""
    buffer = io.BytesIO()
    nir.write(buffer, nodes_of(graph, reader))
    return buffer.getvalue()


def save_nir(graph: Graph, path: str | Path, reader: str | None = None) -> None:
    """Write `graph` as the NIR file `path`, atomically.

    Parameters
    ----------
    graph : Graph
    path : path
    reader : str, optional
        For whom, by name; see `targets.nir.readers`.

    Raises
    ------
    ProgramError
        If the disk refuses, or a file that we did not write stands there.
    """
    write_file(path, nir_bytes(graph, reader), ProgramError, marker=FORMATS[0][:-2].encode())


def read_nir(path: str | Path) -> nir.NIRGraph:
    """The NIR graph in file `path`, whoever wrote it, checked for shapes and finite numbers.

    Inner graphs are written out; see `targets.nir.shapes`.

    Raises
    ------
    ProgramError
        If the file is missing or damaged, an edge joins no node, or a node holds what is no finite
        real number.
    SpecError
        If shapes do not fit.
    """
    # The reader meets damage in the order of its own code, hence with whatever that raises.
    threat = found = None
    try:
        threat = danger(path)
        if threat is None:
            found = _unchecked(path)
            if isinstance(found, nir.NIRGraph):
                found.validate_structure()
                found = shaped(found)
    except EPNeuroError:
        raise
    except Exception as error:
        reason = first_fault(path) or str(error) or type(error).__name__
        problem = f"is no readable NIR file ({reason})"
        remedy = f"export it again with the nodes of nir {nir.version}"
        raise ProgramError(str(path), problem, remedy) from None
    if threat is not None:
        raise ProgramError(str(path), threat, "export it again, into one plain file")
    if not isinstance(found, nir.NIRGraph):
        problem = f"holds a single {type(found).__name__}, no graph"
        raise ProgramError(str(path), problem, "wrap it in a NIRGraph")
    for name, node in found.nodes.items():
        _refuse_faults(node, name, path)
    return found


def _unchecked(path: str | Path) -> nir.NIRNode:
    """What `path` holds; NIR's own type check takes kernels for square, also in inner graphs."""
    with h5py.File(path, "r") as file:
        content = nir.serialization.hdf2dict(file["node"])
    graphs = [content]
    for part in graphs:
        if part["type"] == "NIRGraph":
            part["type_check"] = False
            graphs += part["nodes"].values()
    return nir.dict2NIRNode(content)


def _refuse_faults(node: nir.NIRNode, name: str, path: str | Path) -> None:
    """Raise `ProgramError` if what `node`, or a graph that it is, holds cannot be used."""
    for key, value in vars(node).items():
        problem = fault(np.asarray(value), "fiu") if isinstance(value, _NUMBERS) else None
        if key == "metadata" and not isinstance(value, Mapping):
            problem = "is no group of values"
        if problem is not None:
            subject = f"{path}: node '{name}'"
            raise ProgramError(subject, f"its {key} {problem}", "export it again with real numbers")
    for inner, part in getattr(node, "nodes", {}).items():
        _refuse_faults(part, f"{name}.{inner}", path)


def load_nir(path: str | Path) -> Graph:
    """The graph that `save_nir` wrote to `path`, equal to the last bit.

    Raises
    ------
    ProgramError
        If the file is damaged, was not written by `save_nir`, or its nodes were changed since.
    """
    try:
        found = read_nir(path)
    except SpecError as error:
        problem = f"has an edge that does not fit: {error.subject}: {error.problem}"
        raise ProgramError(str(path), problem, "export it again") from None
    written = str(found.metadata.get("format"))
    if written not in FORMATS:
        problem = f"holds neither of {', '.join(FORMATS)} in its metadata"
        raise ProgramError(str(path), problem, "read a foreign file with targets.nir.importer")
    arrays = dict(_flattened(found.metadata.get("arrays", {})))
    try:
        graph = parse_graph(str(found.metadata.get("records", "")), arrays)
    except GraphError as error:
        problem = f"has damaged metadata ({error})"
        raise ProgramError(str(path), problem, "export it again") from None
    if (reader := found.metadata.get("reader")) is not None:
        expected = nodes_of(graph, str(reader))
    else:
        # Earlier versions wrote every graph flat.
        expected = to_nir(graph, written == FORMATS[1] and keeps_planes(graph))
    changed = first_difference(expected, found)
    if changed:
        problem = f"{changed} is not what its metadata says: it was changed after export"
        remedy = "export it again, or read the nodes with targets.nir.importer"
        raise ProgramError(str(path), problem, remedy)
    return graph


def first_difference(a: nir.NIRGraph, b: nir.NIRGraph) -> str | None:
    """The first node or edge in which two graphs differ, metadata apart; None if they agree."""
    if set(a.edges) != set(b.edges):
        return f"edge {min(set(a.edges) ^ set(b.edges))}"
    for name in sorted({*a.nodes, *b.nodes}):
        if name not in a.nodes or name not in b.nodes or not _same(a.nodes[name], b.nodes[name]):
            return f"node '{name}'"
    return None


def _same(a: nir.NIRNode, b: nir.NIRNode) -> bool:
    mine, theirs = ({k: v for k, v in n.to_dict().items() if k != "metadata"} for n in (a, b))
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[k], theirs[k]) for k in mine)


def _flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Arrays by their id: HDF5 reads the slashes of an id as folders."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}/")
        else:
            yield prefix + key, np.asarray(value)

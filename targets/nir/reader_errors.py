"""Why NIR's own reader fails: it raises with no message, or with no node."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import nir


def first_fault(path: str | Path) -> str | None:
    """The first thing in HDF5 file `path` that NIR cannot read; None if it is no such thing."""
    try:
        with h5py.File(path, "r") as file:
            return "it has no group 'node'" if "node" not in file else _of_node(file["node"], "")
    except (OSError, RuntimeError, LookupError, TypeError, ValueError):
        return None


def _of_node(group: Any, name: str) -> str | None:
    """What is wrong with the node in `group`, or in the graph that it is; the root has no name."""
    subject = f"node '{name}'" if name else "its root"
    if not isinstance(group, h5py.Group) or "type" not in group:
        by = "" if name else f": it was not written by nir {nir.version}, or changed by hand"
        return f"{subject} has no type{by}"
    kind = _text(group["type"][()])
    known = getattr(nir, kind, None)
    if not (isinstance(known, type) and issubclass(known, nir.NIRNode)):
        return f"{subject} has the type '{kind}', which nir {nir.version} does not know"
    for key in _keys(known):
        if key not in group:
            return f"{subject}, of type {kind}, has no {key}"
    if kind != "NIRGraph":
        return None
    inner = group["nodes"]
    faults = (_of_node(inner[key], f"{name}.{key}".lstrip(".")) for key in inner)
    return next((fault for fault in faults if fault), None) or _of_edges(group, subject)


_STORED_AS = {("Input", "input_type"): "shape", ("Output", "output_type"): "shape"}
"""Names in the file of fields that nir renames."""


def _keys(kind: type[nir.NIRNode]) -> list[str]:
    """What a node of type `kind` has to store."""
    missing = dataclasses.MISSING
    return [
        _STORED_AS.get((kind.__name__, f.name), f.name)
        for f in dataclasses.fields(kind)
        if f.init
        and f.default is missing
        and f.default_factory is missing
        # A Flatten may leave its input to be inferred.
        and (kind, f.name) != (nir.Flatten, "input_type")
    ]


def _of_edges(group: Any, subject: str) -> str | None:
    for ends in group["edges"][()]:
        pre, post = map(_text, ends)
        for end in (pre, post):
            if end not in group["nodes"]:
                return f"the edge from '{pre}' to '{post}' in {subject} joins no node '{end}'"
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

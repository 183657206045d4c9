"""JSON form of a graph: its records as objects, each with its class under ``kind``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from compilers.ir.graph import Graph
from compilers.ir.text import RECORDS, VALUES, build, parse_graph
from ep_neuro.errors import GraphError

VERSION = 2
"""Of this form. The first one names no version: lines of the text under ``records``."""

CLASSES = VALUES | {cls.__name__: cls for _, cls, _ in RECORDS.values()}


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """All that `graph` holds but its arrays."""
    names = [f.name for f in dataclasses.fields(graph) if f.name != "arrays"]
    return {"version": VERSION} | {name: _plain(getattr(graph, name)) for name in names}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return dict(sorted(value.items()))
    return value.item() if isinstance(value, np.generic) else value


def graph_from_json(data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Graph:
    """The graph that `graph_to_json` gave, over `arrays`; also one of the first form.

    Raises
    ------
    GraphError
        If it is of another version, or a record has an unknown field or one of another type.
    """
    given = dict(data)
    version, lines = given.pop("version", None), given.get("records")
    if version is None and isinstance(lines, list) and all(isinstance(n, str) for n in lines):
        return parse_graph("\n".join(lines), arrays)
    if version != VERSION:
        problem = f"version {version} is not {VERSION}"
        raise GraphError("graph in JSON", problem, "compile the model again")
    try:
        notes = given.pop("provenance", None)
        fields = {name: _value(value) for name, value in given.items()}
        return build(Graph, (), {**fields, "provenance": notes, "arrays": dict(arrays)})
    except (TypeError, ValueError, RecursionError) as error:
        raise GraphError("graph in JSON", str(error), "compile the model again") from None


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        fields = {name: _value(v) for name, v in value.items()}
        kind = fields.pop("kind", None)
        if kind not in CLASSES:
            raise ValueError(f"{kind!r} is no kind of record")
        return build(CLASSES[kind], (), fields)
    return tuple(map(_value, value)) if isinstance(value, list) else value

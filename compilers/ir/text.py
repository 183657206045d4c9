"""Text form of a graph: one record a line, printed and parsed back without loss."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compilers.ir import graph as ir
from compilers.ir.graph import Graph
from compilers.ir.plasticity import Plasticity, Rule
from ep_neuro.errors import GraphError

RECORDS: dict[str, tuple[str, type, int]] = {
    "population": ("populations", ir.Population, 1),
    "coupling": ("couplings", ir.Coupling, 2),
    "projection": ("projections", ir.Projection, 2),
    "phase": ("phases", ir.Phase, 1),
    "tile": ("placement", ir.Tile, 1),
    "plasticity": ("plasticity", Plasticity, 1),
}
"""Field of the graph and class of each kind of record; how many of its fields lack their name."""

VALUES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *(ir.Source, ir.Graded, ir.SigmaDelta, ir.Spiking),
        *(ir.Dense, ir.DenseTranspose, ir.Conv, ir.ConvTranspose, ir.Partial, ir.Total),
        *(ir.FixedPoint, ir.Rescale, ir.Readout, Rule),
    )
}
"""Records that stand inside others."""

HASH_DIGITS = 12
"""Hexadecimal digits of an array's SHA-256 that are printed."""


# --- printing ----------------------------------------------------------------------------------


def print_graph(graph: Graph, arrays: bool = True) -> str:
    """Text of `graph`, one record a line; fields that equal their default are left out.

    With `arrays`, each array adds a line with its dtype, shape and the start of its SHA-256; the
    values themselves are not printed.
    """
    lines = [_print_header(graph)]
    lines += [
        f"provenance({_literal(key)}, {_literal(value)})"
        for key, value in sorted(graph.provenance.items())
    ]
    for kind, (field, _, positional) in RECORDS.items():
        lines += [_print_record(kind, item, positional) for item in getattr(graph, field)]
    if arrays:
        lines += [_print_array(name, graph.arrays[name]) for name in sorted(graph.arrays)]
    return "\n".join(lines) + "\n"


def _print_header(graph: Graph) -> str:
    return (
        f"graph({_literal(graph.name)}, output={_literal(graph.output)}, "
        f"encoding={_literal(graph.encoding)}, timestep={_literal(graph.timestep)})"
    )


def _print_array(name: str, array: np.ndarray) -> str:
    dtype, shape = array.dtype.name, tuple(array.shape)
    return f"array({_literal(name)}, dtype={_literal(dtype)}, shape={shape}, sha256={_hash(array)})"


def _hash(array: np.ndarray) -> str:
    return _literal(hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:HASH_DIGITS])


def _print_record(kind: str, item: Any, positional: int) -> str:
    parts = []
    for number, field in enumerate(dataclasses.fields(item)):
        value = getattr(item, field.name)
        if number < positional:
            parts.append(_literal(value))
        elif not _is_default(field, value):
            parts.append(f"{field.name}={_literal(value)}")
    return f"{kind}({', '.join(parts)})"


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def _literal(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return _print_record(type(value).__name__, value, 0)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, tuple):
        inner = ", ".join(_literal(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    text = repr(value)
    # Python quotes a string that holds neither quote with ', and a reader of records expects ".
    return f'"{text[1:-1]}"' if text[:1] == "'" and '"' not in text else text


# --- parsing -----------------------------------------------------------------------------------


def parse_graph(text: str, arrays: Mapping[str, np.ndarray]) -> Graph:
    """The graph that `print_graph` printed as `text`, over `arrays`.

    Raises
    ------
    GraphError
        If a line is no record, or an ``array`` line does not fit `arrays`; it names the line.
    """
    found: dict[str, list[Any]] = {kind: [] for kind in ("graph", "provenance", *RECORDS)}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            _parse_line(line, f"graph text line {number}", found, arrays)
    if len(found["graph"]) != 1:
        raise GraphError(
            "graph text",
            f"holds {len(found['graph'])} graph(...) records, not one",
            "give the whole text of one graph",
        )
    (header,) = found["graph"]
    records = {field: tuple(found[kind]) for kind, (field, _, _) in RECORDS.items()}
    provenance = dict(found["provenance"])
    return dataclasses.replace(header, provenance=provenance, arrays=dict(arrays), **records)


def _parse_line(
    line: str, where: str, found: dict[str, list[Any]], arrays: Mapping[str, np.ndarray]
) -> None:
    try:
        call = ast.parse(line.strip(), mode="eval").body
        kind, args, kwargs = _call(call)
        if kind == "array":
            _check_array(arrays, *args, **kwargs)
        elif kind in RECORDS:
            found[kind].append(build(RECORDS[kind][1], args, kwargs))
        elif kind == "graph":
            found[kind].append(build(Graph, args, {"populations": (), **kwargs}))
        elif kind == "provenance":
            found[kind].append(_provenance(*args, **kwargs))
        else:
            raise _MisreadError(f"'{kind}' is no record")
    except (
        _MisreadError,
        SyntaxError,
        ValueError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        # Python's own hints on syntax ("maybe you meant ==") mislead here.
        syntax = isinstance(error, SyntaxError | RecursionError | MemoryError)
        reason = "it is not well formed" if syntax else str(error)
        raise GraphError(where, f"{reason}: `{_short(line)}`", "correct the line") from None


class _MisreadError(ValueError):
    """A line that is Python but no record."""


def _short(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 60 else line[:57] + "..."


def _call(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise _MisreadError("expected name(...)")
    args = [_value(a) for a in node.args]
    kwargs = {str(k.arg): _value(k.value) for k in node.keywords}
    return node.func.id, args, kwargs


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        name, args, kwargs = _call(node)
        if name not in VALUES:
            raise _MisreadError(f"'{name}' is no value; known: {', '.join(VALUES)}")
        return build(VALUES[name], args, kwargs)
    if isinstance(node, ast.Tuple):
        return tuple(_value(e) for e in node.elts)
    return ast.literal_eval(node)


def build(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A record of the IR; `TypeError` or `ValueError` if a field is unknown or of another type."""
    item = cls(*args, **kwargs)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if not _fits(value, hints[field.name]):
            raise _MisreadError(f"{field.name}={value!r} is {_no(hints[field.name])}")
    return item


def _no(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return f"none of {', '.join(typing.get_args(hint))}"
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    return "no " + re.sub(r"compilers\.ir\.\w+\.", "", name)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in inner
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = (inner[0],) * len(value) if inner[-1:] == (Ellipsis,) else inner
        return len(value) == len(wanted) and all(map(_fits, value, wanted))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            type(k) is inner[0] and type(v) is inner[1] for k, v in value.items()
        )
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # An int may be larger than any float; what is not a number is not below anything.
        return number and abs(value) <= sys.float_info.max
    return type(value) is hint


def _provenance(key: str, value: str) -> tuple[str, str]:
    if not (isinstance(key, str) and isinstance(value, str)):
        raise _MisreadError("provenance joins two strings")
    return key, value


def _check_array(
    arrays: Mapping[str, np.ndarray], name: str, dtype: str, shape: tuple[int, ...], sha256: str
) -> None:
    if name not in arrays:
        raise _MisreadError(f"array '{name}' was not given")
    found = _print_array(name, arrays[name])
    wanted = f"array({_literal(name)}, dtype={_literal(dtype)}, shape={shape}, "
    if found != f"{wanted}sha256={_literal(sha256)})":
        raise _MisreadError(f"the array given is {found}")

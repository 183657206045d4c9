"""Strategies of models and programs: directories of YAML, JSON and safetensors."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.fuzz import bases
from tests.fuzz.case import Case
from tests.fuzz.mutations import HUGE, TAME, WILD, damaged, mutated, yaml_bytes
from tests.fuzz.texts import MODEL_COMMANDS, with_model

_TYPES = ("float32", "float64", "float16", "int8", "int64", "uint8", "bool", "complex64")
_VALUES = (0.0, 1.0, -1.0, float("nan"), float("inf"), 1e30, 1e-40, 127.0)


@st.composite
def any_array(draw: DrawFn, like: np.ndarray) -> np.ndarray:
    """An array that differs from `like` in values, type or shape."""
    kind = draw(st.sampled_from(("value", "type", "shape", "one")))
    if kind == "type":
        with np.errstate(all="ignore"):
            return like.astype(draw(st.sampled_from(_TYPES)))
    if kind == "shape":
        shape = draw(st.lists(st.integers(0, 5), max_size=4))
        return np.zeros(shape, like.dtype)
    changed = np.array(like)
    value = draw(st.sampled_from(_VALUES))
    with np.errstate(all="ignore"):
        if kind == "value" or not changed.size:
            changed[...] = np.asarray(value).astype(changed.dtype)
        else:
            at = draw(st.integers(0, changed.size - 1))
            changed.flat[at] = np.asarray(value).astype(changed.dtype)
    return changed


@st.composite
def some_arrays(draw: DrawFn, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`arrays` with some of them changed, renamed, left out or added."""
    arrays = dict(arrays)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(arrays))) if arrays else "x"
        kind = draw(st.sampled_from(("change", "change", "drop", "add", "rename")))
        if kind == "change" and name in arrays:
            arrays[name] = draw(any_array(arrays[name]))
        elif kind == "add":
            arrays[draw(st.text(max_size=4))] = np.zeros(3, np.float32)
        elif name in arrays:
            value = arrays.pop(name)
            if kind == "rename":
                arrays[draw(st.text(max_size=4))] = value
    return arrays


def _tensors(arrays: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(a) for name, a in arrays.items()})


@st.composite
def _json_bytes(draw: DrawFn, tree: Any, values: SearchStrategy[Any]) -> bytes:
    text = json.dumps(draw(mutated(tree, values)))
    if draw(st.integers(0, 9)) == 0:
        text = draw(st.sampled_from(("", "[" * 5000, "null", "1e999", "{}", '{"a":' * 3000, "NaN")))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def models(draw: DrawFn) -> Case:
    """A model directory with a changed spec, weights or metadata, or damaged files."""
    from safetensors.numpy import load

    words = draw(st.sampled_from(MODEL_COMMANDS))
    number = draw(st.integers(0, len(bases.SPECS) - 1))
    files = dict(bases.model(number))
    part = draw(st.sampled_from(("spec", "weights", "weights", "notes", "bytes", "gone")))
    if part == "spec":
        files["m/spec.yaml"] = draw(yaml_bytes(draw(mutated(bases.SPECS[number], TAME))))
    elif part == "weights":
        arrays = load(files["m/weights.safetensors"])
        files["m/weights.safetensors"] = _tensors(draw(some_arrays(arrays)))
    elif part == "notes":
        files["m/metadata.json"] = draw(_json_bytes(json.loads(files["m/metadata.json"]), WILD))
    else:
        name = draw(st.sampled_from(sorted(files)))
        content = files.pop(name)
        if part == "bytes":
            files[name] = draw(damaged(content))
    return Case(with_model(words, "m"), {**files, "d.npz": bases.data()})


PROGRAM_COMMANDS = (
    ("inspect", "p", "--json"),
    ("inspect", "p"),
    ("run", "p", "--data", "npz:d.npz", "--limit", "2", "--json"),
    ("run", "p", "--data", "npz:d.npz", "--limit", "2", "--json", "--trace", "t.npz"),
    ("run", "p", "--limit", "2", "--steps", "3", "--json"),
    ("learn", "p", "--data", "npz:d.npz", "--limit", "2", "--samples", "2", "--json"),
)

_ATOMS: SearchStrategy[str] = st.sampled_from(
    (
        *("0", "1", "-1", "2", "0.5", "1e999", "-1e30", "nan", "None", "True", "()", "(1,)", '"h"'),
        *(
            '"input"',
            '"output"',
            "10**9",
            "99999999999",
            '"dense"',
            "Graded(leak=0.5)",
            "[1]",
            "{}",
        ),
        *("__import__('os').system('touch pwned')", "Spiking(leak=0.0)", "b'x'", '"a" * 9', "1j"),
        *(
            "Dense()",
            "DenseTranspose()",
            "Conv(1, 0)",
            "Source()",
            "FixedPoint(8, 40)",
            "lambda: 0",
        ),
    )
)


@st.composite
def _records(draw: DrawFn, lines: list[str]) -> list[str]:
    """Lines of a graph with values replaced, or lines dropped, doubled or exchanged."""
    lines = list(lines)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(lines) - 1, 0)))
        kind = draw(st.sampled_from(("value", "value", "value", "drop", "double", "move")))
        if not lines:
            return [draw(st.text(max_size=9))]
        if kind == "value":
            parts = lines[at].split(", ")
            i = draw(st.integers(0, len(parts) - 1))
            head, equals, _ = parts[i].rpartition("=")
            parts[i] = f"{head}{equals}{draw(_ATOMS)}"
            if i == len(parts) - 1:
                parts[i] += ")"
            lines[at] = ", ".join(parts)
        elif kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.append(lines[at])
        else:
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
    return lines


@st.composite
def programs(draw: DrawFn) -> Case:
    """A program with changed records, arrays or options, mostly with the hash of what it holds."""
    words = draw(st.sampled_from(PROGRAM_COMMANDS))
    number = draw(st.integers(0, len(bases.PROGRAMS) - 1))
    made, files = bases.program(number), dict(bases.whole_program(number))
    parts = ("records", "tree", "tree", "arrays", "program", "graph", "bytes", "whole")
    part = draw(st.sampled_from(parts))
    if part == "bytes":
        name = draw(st.sampled_from(sorted(files)))
        files[name] = draw(damaged(files[name]))
    elif part in ("program", "graph"):
        name = f"p/{part}.json"
        files[name] = draw(_json_bytes(json.loads(files[name]), WILD))
    else:
        files = draw(_consistent(made, files, part))
    return Case(words, {**files, "d.npz": bases.data()})


@st.composite
def _consistent(draw: DrawFn, made: Any, files: dict[str, bytes], part: str) -> dict[str, bytes]:
    """The files of `made` after a change, with the right hash if they still are a program."""
    from compilers.ir.json_form import graph_from_json, graph_to_json
    from compilers.ir.text import parse_graph, print_graph
    from ep_neuro.errors import EPNeuroError

    lines = print_graph(made.graph, arrays=False).splitlines()
    arrays = dict(made.graph.arrays)
    if part in ("arrays", "whole"):
        arrays = draw(some_arrays(arrays))
    if part in ("records", "whole"):
        lines = draw(_records(lines))
    options, notes = dict(made.options), dict(made.provenance)
    if part == "whole":
        options = draw(mutated({**options, "x": 1}, WILD, 1))
    try:
        if part == "tree":
            # Also what is at its default, which the text leaves out.
            graph = graph_from_json(draw(mutated(graph_to_json(made.graph), HUGE)), arrays)
        else:
            graph = parse_graph("\n".join(lines), arrays)
        whole = dataclasses.replace(made, graph=graph, options=options, provenance=notes)
        return bases.program_files(whole)
    except (EPNeuroError, TypeError, ValueError, AttributeError):
        text = json.dumps({"records": lines}).encode("utf-8", "surrogatepass")
        return {**files, "p/graph.json": text, "p/arrays.safetensors": _tensors(arrays)}

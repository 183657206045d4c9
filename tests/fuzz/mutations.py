"""Strategies that change what is right: trees of plain values, texts and bytes."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

TAME: SearchStrategy[Any] = (
    st.integers(-1, 6)
    | st.sampled_from([None, True, False, 0.0, 0.5, -1.0, 1e-3, 1e30, 1e-40, "", "input", "h"])
    | st.sampled_from([float("nan"), float("inf"), [], {}, [1, 4, 4], [3], [0, 1], "output", "x y"])
)
"""Values that keep a network small and a phase short."""

HUGE: SearchStrategy[Any] = TAME | st.sampled_from(
    [1025, 10**9, 10**12, 2**31, 2**63, -(2**64), 10**400, 1e308, -1e308, 5e-324]
)
"""Values that keep a phase short, or are far beyond what any may be."""

WILD: SearchStrategy[Any] = (
    TAME
    | st.sampled_from(
        [10**6, 10**12, 2**63, -(2**64), 10**400, [10**5] * 3, "\u0000", "1e999", "é"]
    )
    | st.floats()
    | st.text(max_size=6)
    | st.lists(st.integers(-2, 9), max_size=4)
)
"""Any value that a file may hold."""

_SNIPPETS = (
    "<<: *a",
    "a: &a [*a]",
    "x: !!python/object/apply:os.system ['touch pwned']",
    "!!python/name:os.system : 1",
    "? [a, b]\n: 1",
    "name: twice",
    "\tx: 1",
    "2001-99-99: 2001-99-99",
    "x: 0x" + "f" * 40,
    "x: " + "9" * 5000,
    "x: " + "[" * 2000,
    "--- {}",
    "%YAML 9.9",
    "x: !!binary ////",
    "x: !!set {a, b}",
    "x: !!omap [1]",
    "'': ''",
    "- a",
    "x: |",
)


def laughs(depth: int, name: str = "name") -> str:
    """A text of a few lines that means 9 ** `depth` words, the billion laughs."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for i in range(1, depth):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    return "\n".join([*lines, f"{name}: *a{depth - 1}", ""])


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Each value in `tree` as its container and its key."""
    found: list[tuple[Any, Any]] = []
    if isinstance(tree, dict | list):
        items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))
        for key, value in items:
            found += [(tree, key), *_places(value)]
    return found


@st.composite
def mutated(draw: DrawFn, tree: Any, values: SearchStrategy[Any] = WILD, most: int = 3) -> Any:
    """`tree` with up to `most` changes: values replaced, dropped, renamed, doubled or exchanged."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(0, most))):
        places = _places(tree)
        if not places:
            return draw(values)
        container, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(("replace", "replace", "drop", "rename", "double", "swap")))
        if kind == "replace":
            # A copy: the next change may be made inside of it.
            container[key] = copy.deepcopy(draw(values))
        elif kind == "drop":
            del container[key]
        elif kind == "rename" and isinstance(container, dict):
            container[draw(st.text(max_size=4) | st.just(f"{key}s"))] = container.pop(key)
        elif kind == "double" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif kind == "swap":
            other, at = draw(st.sampled_from(places))
            value = copy.deepcopy(other[at]) if _has(other, at) else None
            container[key] = value
    return tree


def _has(container: Any, key: Any) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)


@st.composite
def yaml_bytes(draw: DrawFn, tree: Any) -> bytes:
    """`tree` as YAML, now and then with a line that is foreign to it, or damaged."""
    try:
        text = yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, RecursionError):
        text = repr(tree)
    kind = draw(st.integers(0, 9))
    if kind == 0:
        lines = text.splitlines()
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(_SNIPPETS)))
        text = "\n".join(lines)
    elif kind == 1:
        text += laughs(draw(st.integers(1, 12)), draw(st.sampled_from(("name", "input", "x"))))
    data = text.encode("utf-8", "surrogatepass")
    return draw(damaged(data)) if kind == 2 else data


@st.composite
def damaged(draw: DrawFn, data: bytes, most: int = 4) -> bytes:
    """`data` with bits flipped, parts cut out, repeated, or written over."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(found) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "cut", "drop", "repeat", "write", "insert")))
        length = draw(st.integers(1, 64))
        if kind == "flip" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del found[at:]
        elif kind == "drop":
            del found[at : at + length]
        elif kind == "repeat":
            found[at:at] = found[at : at + length]
        else:
            piece = draw(st.sampled_from(_PIECES) | st.binary(min_size=1, max_size=8))
            found[at : at + (len(piece) if kind == "write" else 0)] = piece
    return bytes(found)


_PIECES = (
    b"\xff" * 4,
    b"\0" * 8,
    b"\x7f\xff\xff\xff",
    b"\xff" * 8,
    b"-1",
    b"9999999999",
    b"\n",
    b'"',
)

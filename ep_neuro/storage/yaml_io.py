"""YAML in and out, and pydantic's errors as one line."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ep_neuro.errors import ConfigError, nearest

_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: a ValueError for ``2001-99-99``, which looks like a date and is none."""

_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
"""Plain scalars of YAML 1.2's core schema: 1e-3 is a number and ``on`` a word, unlike in 1.1."""


ALIASED = 10
"""How many times its own length, in characters, a text may come to by its aliases; short ones may
come to `SHORT`."""

SHORT = 100_000

DEEPEST = 64
"""Brackets in brackets that a text may have: PyYAML takes time by the square of their number."""


class _Loader(yaml.SafeLoader):
    """Plain data alone, by YAML 1.2, no key twice, and no aliases of aliases without end."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        lengths: dict[int, float] = {}
        if node is not None and _length(node, lengths) > max(SHORT, ALIASED * self.index):
            problem = "its aliases stand for more than a file may hold, or for themselves"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return node

    def fetch_flow_collection_start(self, kind: type[yaml.Token]) -> None:
        if self.flow_level >= DEEPEST:
            problem = f"more than {DEEPEST} brackets in brackets"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark())
        super().fetch_flow_collection_start(kind)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = set()
        for key, _ in node.value:
            name = (key.tag, repr(key.value))
            if key.tag != "tag:yaml.org,2002:merge" and name in written:
                problem = f'found duplicate key "{key.value}"'
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            written.add(name)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        return int(text, 0 if text.startswith(("0o", "0x")) else 10)


def _length(node: yaml.Node, known: dict[int, float]) -> float:
    """Characters of `node` with each alias written out; infinite if it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        if isinstance(node, yaml.ScalarNode):
            length = float(len(node.value))
        else:
            pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
            length = sum(_length(part, known) for pair in pairs for part in pair)
        known[id(node)] = 1 + length
    return known[id(node)]


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes what `_Loader` would take for something else; in C where PyYAML has it."""


_TAGS = [f"tag:yaml.org,2002:{tag}" for tag, _, _ in _SCALARS]
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag not in _TAGS]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for _tag, (_, _pattern, _first) in zip(_TAGS, _SCALARS, strict=True):
        _kind.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping; a `ConfigError` names the file and the line at fault."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """The text of the YAML file `path`; `ConfigError` if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        # Of other bytes, or of a path with a null character, which no file has.
        other = isinstance(error, UnicodeDecodeError)
        reason = "it is not UTF-8 text" if other else getattr(error, "strerror", error)
        raise ConfigError(str(path), f"cannot be read ({reason})", "give a YAML file") from None


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse one YAML mapping; `where` names its origin in errors."""
    try:
        data = yaml.load(text, _Loader)
    except _UNREADABLE as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ConfigError(f"{where}{line}", f"not YAML: {problem}", "correct the line") from None
    if not isinstance(data, dict):
        problem = "is empty" if data is None else f"holds a {type(data).__name__}, not a mapping"
        raise ConfigError(where, problem, "write `key: value` lines")
    return data


def parse_value(text: str) -> Any:
    """Read a single YAML value, as in ``--set a.b=value``."""
    try:
        return yaml.load(text, _Loader)
    except _UNREADABLE:
        return text


def dump_yaml(data: dict[str, Any]) -> str:
    """YAML text of plain data, keys in their given order."""
    return yaml.dump(
        data,
        Dumper=_Dumper,
        default_flow_style=None,
        sort_keys=False,
        width=100,
        allow_unicode=True,
    )


def first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The first of pydantic's complaints as (problem, remedy); an unknown key before all others."""
    items = error.errors(include_url=False)
    # A misspelt key is also a missing one, and its own name is what helps.
    item = next((i for i in items if i["type"] == "extra_forbidden"), items[0])
    path, known = _place(model, item["loc"])
    at = ".".join(path) or "the whole"
    if item["type"] == "extra_forbidden":
        return f"unknown key '{at}'", nearest(path[-1], known, f"known keys: {', '.join(known)}")
    if item["type"] == "missing":
        return f"key '{at}' is missing", "add it"
    value = str(item["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{at} = {value}: {item['msg']}", "correct the value"


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Keys that lead to `loc` as a user writes them, and the keys known beside the last one.

    Pydantic's location also names the member of a union that it tried, which no file contains.
    """
    path: list[str] = []
    models, known = [model], list(model.model_fields)
    for depth, part in enumerate(loc, 1):
        owner = next((m for m in models if part in m.model_fields), None)
        if owner is not None:
            known = list(owner.model_fields)
            models = _models_within(owner.model_fields[str(part)].annotation)
        elif isinstance(part, str) and path and (chosen := _tagged(models, part)):
            models = chosen
            continue
        elif depth == len(loc):
            known = [key for m in models for key in m.model_fields]
            if isinstance(part, str) and path and not models:
                continue
        path.append(str(part))
    return path, known


def _tagged(models: list[type[BaseModel]], tag: str) -> list[type[BaseModel]]:
    """Those of `models` with a field that may only be `tag`."""
    return [
        m for m in models if any(get_args(f.annotation) == (tag,) for f in m.model_fields.values())
    ]


def _models_within(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        # Where a base stands, one of its kinds may have been meant (`ep_neuro.registry`).
        kinds = annotation.__subclasses__()
        return [annotation, *(m for kind in kinds for m in _models_within(kind))]
    return [m for inner in get_args(annotation) for m in _models_within(inner)]

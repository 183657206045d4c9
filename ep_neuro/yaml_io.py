"""YAML in and out, and pydantic's errors as one line."""

from __future__ import annotations

import difflib
import io
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ep_neuro.errors import ConfigError


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping; a `ConfigError` names the file and the line at fault."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(str(path), f"cannot be read ({reason})", "give a YAML file") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse one YAML mapping; `where` names its origin in errors."""
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it does not parse"
        raise ConfigError(f"{where}{line}", f"not YAML: {problem}", "correct the line") from None
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise ConfigError(where, f"holds a {kind}, not a mapping", "write `key: value` lines")
    return data


def parse_value(text: str) -> Any:
    """Read a single YAML value, as in ``--set a.b=value``."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return text


def dump_yaml(data: dict[str, Any]) -> str:
    """YAML text of plain data, keys in their given order."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 100
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The first of pydantic's complaints as (problem, remedy)."""
    item = error.errors(include_url=False)[0]
    at = ".".join(str(part) for part in item["loc"]) or "the whole"
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, item["loc"])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{at}'", hint
    if item["type"] == "missing":
        return f"key '{at}' is missing", "add it"
    value = str(item["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{at} = {value}: {item['msg']}", "correct the value"


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    here: Any = model
    for part in loc[:-1]:
        field = getattr(here, "model_fields", {}).get(part)
        if field is not None:
            here = _model_within(field.annotation)
    return list(getattr(here, "model_fields", {}))


def _model_within(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_within(inner)
        if found is not None:
            return found
    return None

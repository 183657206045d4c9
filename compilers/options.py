"""Options of a backend: which there are, and how the command line writes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ep_neuro.errors import ConfigError, nearest
from ep_neuro.storage.yaml_io import parse_value


def declared(backend: object) -> Mapping[str, Any] | None:
    """Options that `backend` declares, with their defaults; None where it says nothing."""
    options: Mapping[str, Any] | None = getattr(backend, "options", None)
    return options


def refuse_unknown(where: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse an option that is not `known`; `where` names who would take it.

    Raises
    ------
    ConfigError
        Names the first one, all known ones and the nearest.
    """
    for name in given:
        if name in known:
            continue
        if not known:
            raise ConfigError(f"option '{name}'", f"{where} takes no options", "leave it out")
        remedy = nearest(name, known, "choose one of those")
        raise ConfigError(f"option '{name}'", f"{where} takes {', '.join(known)}", remedy)


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options from ``KEY=VALUE``, values in YAML: ``chips=2``, ``lowering=faithful``.

    Raises
    ------
    ConfigError
        If a text is not of this form, or a key comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"--option {text}", "is not KEY=VALUE", "write --option chips=2")
        if key in found:
            raise ConfigError(f"--option {text}", f"'{key}' is given twice", "give it once")
        found[key] = parse_value(value)
    return found

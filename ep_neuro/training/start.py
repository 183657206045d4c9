"""Where training begins: the network of a model that is named, and whether its weights fit."""

from __future__ import annotations

import itertools
from typing import Any

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import SPEC, best_in


def spec_of(start: str) -> NetworkSpec:
    """The network of the model or run `start`; `ConfigError` if there is none."""
    place = best_in(start)
    if not (place / SPEC).is_file():
        raise ConfigError(
            f"start: {start}",
            f"there is no {SPEC}",
            "give a directory that `ep-neuro train` wrote",
        )
    return NetworkSpec.from_yaml(place / SPEC)


def refuse_another(start: str, found: NetworkSpec, spec: NetworkSpec) -> None:
    """Raise `ConfigError` unless the weights of `found` mean the same in `spec`."""
    parts = ("input", "populations", "couplings", "output", "readout")
    for part in parts:
        for theirs, ours in itertools.zip_longest(*(_pieces(s, part) for s in (found, spec))):
            if theirs != ours:
                raise ConfigError(
                    f"start: {start}",
                    f"its {part} differ: {theirs} there, {ours} in network '{spec.name}'",
                    "start from a model of the same network, or leave network out",
                )


def _pieces(spec: NetworkSpec, part: str) -> list[Any]:
    """What has to agree, piece by piece; the gains of fresh weights need not."""
    value = spec.model_dump(mode="json", exclude_defaults=True).get(part)
    pieces = value if isinstance(value, list) else [value]
    return [
        {k: v for k, v in p.items() if k != "gain"} if isinstance(p, dict) else p for p in pieces
    ]

"""Strategies of texts: specs, configurations, and the words of a command."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.fuzz import bases
from tests.fuzz.case import Case
from tests.fuzz.mutations import TAME, WILD, mutated, yaml_bytes

ON_DATA = ("--data", "npz:d.npz", "--limit", "2", "--json")
COMPILE = ("--target", "reference", "--steps", "4", "--out", "q", "--json")

MODEL_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("inspect", "MODEL", "--json"),
    ("inspect", "MODEL"),
    ("check", "MODEL", "--batch", "1", "--json"),
    ("evaluate", "MODEL", *ON_DATA),
    ("compile", "MODEL", *COMPILE),
    ("compile", "MODEL", "--bits", "8", "--code", "sigma-delta", *COMPILE),
    ("compile", "MODEL", "--target", "nir", "--steps", "4", "--out", "q.nir", "--json"),
)
"""What is done with a spec, a model or a NIR file."""


def with_model(words: tuple[str, ...], name: str) -> tuple[str, ...]:
    """`words` with the name of the model in its place."""
    return tuple(name if word == "MODEL" else word for word in words)


@st.composite
def specs(draw: DrawFn) -> Case:
    """A network description, changed, and a command that reads it."""
    words = draw(st.sampled_from(MODEL_COMMANDS))
    values = WILD if words[0] == "inspect" else TAME
    tree = draw(mutated(draw(st.sampled_from(bases.SPECS)), values))
    files = {"s.yaml": draw(yaml_bytes(tree)), "d.npz": bases.data()}
    return Case(with_model(words, "s.yaml"), files)


ESTIMATORS: tuple[dict[str, Any], ...] = (
    bases.CONFIG["estimator"],
    {"kind": "one-sided", "beta": 0.1, "free": bases.PHASE, "nudged": bases.PHASE},
    {"kind": "random-sign", "beta": 0.1},
    {"kind": "frozen-mean", "beta": 0.1},
    {"kind": "holomorphic", "points": 2},
    {"kind": "deployed", "steps": 4, "bits": 6},
    {"kind": "backprop", "batch_norm": True},
)

_ESTIMATORS = st.sampled_from(ESTIMATORS)
_NETWORKS = st.sampled_from(("s.yaml", "zoo:digits_dense", *bases.SPECS))

CONFIG_COMMANDS = (
    ("inspect", "c.yaml", "--json"),
    ("inspect", "c.yaml", "--json"),
    ("inspect", "c.yaml"),
    ("check", "c.yaml", "--batch", "1", "--json"),
    ("train", "c.yaml", "--set", "epochs=1", "--out", "run", "--json"),
)


@st.composite
def configs(draw: DrawFn) -> Case:
    """A training configuration, changed, and a command that reads it."""
    words = draw(st.sampled_from(CONFIG_COMMANDS))
    values = WILD if words[0] == "inspect" else TAME
    tree = {**bases.CONFIG, "network": draw(_NETWORKS), "estimator": draw(_ESTIMATORS)}
    # What a plug-in does is its own; the configuration that names it is trusted.
    tree = draw(mutated(tree, values).filter(lambda t: not _names_plugins(t)))
    files = {
        "c.yaml": draw(yaml_bytes(tree)),
        "s.yaml": bases.texts()["s.yaml"],
        "d.npz": bases.data(),
        **bases.model(),
    }
    return Case(words, files)


def _names_plugins(tree: Any) -> bool:
    return isinstance(tree, dict) and any(str(key).startswith("plugin") for key in tree)


_NAMES = st.sampled_from(
    (
        *("m", "p", "s.yaml", "c.yaml", "f.nir", "d.npz", "nowhere", "", ".", "/", "m/spec.yaml"),
        *("zoo:digits_dense", "zoo:digits_residual", "zoo:", "zoo:\u00e9", "m/weights.safetensors"),
        *(
            "p/program.json",
            "p/graph.txt",
            "p/arrays.safetensors",
            "-",
            "--",
            "\u0000",
            "~nobody/m",
        ),
    )
)
_NUMBERS = st.sampled_from(
    ("0", "1", "2", "4", "-1", "1.5", "nan", "inf", "1e999", "", "x", "0x4", "1_0", "\u0663")
)
_DATA = st.sampled_from(
    (
        *("npz:d.npz", "npz:d.npz:val", "npz:d.npz:tset", "digits:val", "mnist:test", "folder:m"),
        *("npz:", "folder:", "npz:nowhere", "npz:m", "folder:d.npz", ":", "npz:d.npz:", "npz:p"),
        *("folder:/proc/self/fd", "npz:/dev/null", "npz:c.yaml", "npz:~nobody/x"),
    )
)
_PLACES = st.sampled_from(
    ("out", "m", "p", "d.npz", "d.npz/x", ".", "", "out.nir", "out.py", "a/b", "\u0000", "n" * 300)
)
_TARGETS = ("reference", "nir", "crossbar", "loihi2", "broken", "x", "", "reference:spike:8")
_OPTIONS: dict[str, Any] = {
    "--json": None,
    "--help": None,
    "--resume": None,
    "--force": None,
    "--layerwise": None,
    "--limit": _NUMBERS,
    "--seed": _NUMBERS,
    "--batch": _NUMBERS,
    "--bits": _NUMBERS,
    "--leak": _NUMBERS,
    "--beta": _NUMBERS,
    "--rate": _NUMBERS,
    "--anneal": _NUMBERS,
    "--precision": _NUMBERS,
    "--message-frac": _NUMBERS,
    "--state-frac": _NUMBERS,
    "--data": _DATA,
    "--data-root": _PLACES,
    "--out": _PLACES,
    "--model": _PLACES,
    "--trace": _PLACES,
    "--code": st.sampled_from(("graded", "spike", "sigma-delta", "x")),
    "--learn": st.sampled_from(("contrastive", "spike-average", "continual", "one-sided", "x")),
    "--rule": st.sampled_from(("contrastive", "spike-average", "continual", "one-sided", "x")),
    "--target": st.sampled_from(_TARGETS),
    "--option": st.sampled_from(("a=b", "cells=ideal", "x", "=", "lowering=faithful")),
    "--sweep": st.sampled_from(("steps=2,4", "bits=8,float", "bits=", "x=1", "steps=0", "steps=4")),
    "--print-after": st.sampled_from(("all", "encode", "x")),
    "--set": st.sampled_from(("batch=2", "seed=1", "x=1", "=", "a.b=c", "estimator.beta=0", "x")),
}
_COMMANDS = ("train", "evaluate", "check", "compile", "inspect", "run", "learn", "compare", "x")


@st.composite
def words(draw: DrawFn) -> Case:
    """A command with any options and values, over files that are right."""
    name = draw(st.sampled_from(_COMMANDS))
    found = [name, *draw(st.lists(_NAMES, min_size=0, max_size=2) | st.tuples(_NAMES))]
    for option in draw(st.lists(st.sampled_from(sorted(_OPTIONS)), max_size=4)):
        values = _OPTIONS[option]
        found.append(option)
        if values is not None:
            found.append(draw(values))
    # What would take minutes by its defaults is kept short; a later option wins.
    found += {
        "train": ["--set", "epochs=1", "--set", "data=npz:d.npz"],
        "compare": ["--with", draw(st.sampled_from(_TARGETS)), "--steps", "4"],
        "learn": ["--samples", "4"],
        "compile": ["--steps", "4"],
    }.get(name, [])
    if draw(st.integers(0, 19)) == 0:
        found = draw(st.lists(st.text(max_size=5), max_size=4))
    files = {
        "d.npz": bases.data(),
        **bases.texts(),
        "f.nir": bases.nir_file(1),
        **bases.model(),
        **bases.whole_program(),
    }
    return Case(tuple(found), files)

"""Claims about network specs: what they accept, refuse and keep."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ep_neuro.energy.spec import CouplingSpec, NetworkSpec
from ep_neuro.errors import SpecError
from ep_neuro.network.architectures import ZOO, zoo
from ep_neuro.storage.yaml_io import parse_yaml
from tests.helpers.graphs import random_residual_spec

PLAIN: dict[str, Any] = {
    "name": "net",
    "input": {"shape": [1, 4, 4]},
    "populations": [{"name": "h1", "shape": [2, 4, 4]}, {"name": "out", "shape": [3]}],
    "couplings": [
        {"pre": "input", "post": "h1", "kind": "conv", "kernel": 3, "padding": 1},
        {"pre": "h1", "post": "out"},
    ],
}

Change = Callable[[dict[str, Any]], Any]


def changed(change: Change) -> dict[str, Any]:
    data = copy.deepcopy(PLAIN)
    change(data)
    return data


def joined(pre: str, post: str) -> Change:
    """One more coupling."""
    return lambda data: data["couplings"].append({"pre": pre, "post": post})


def population(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [3], **more}


@pytest.mark.parametrize("name", ZOO)
def test_yaml_of_a_zoo_network_reads_back_as_the_same_network(name: str) -> None:
    spec = zoo(name)
    assert NetworkSpec.from_dict(parse_yaml(spec.to_yaml(), name)) == spec


@given(st.integers(0, 10**6))
def test_yaml_of_any_residual_network_reads_back_as_the_same_network(seed: int) -> None:
    spec = random_residual_spec(seed)
    assert NetworkSpec.from_dict(parse_yaml(spec.to_yaml(), "text")) == spec


@given(st.integers(0, 10**6))
def test_parameters_are_the_weights_and_one_bias_a_channel(seed: int) -> None:
    spec = random_residual_spec(seed)
    weights = sum(math.prod(shape) for shape in spec.weight_shapes.values())
    assert spec.parameters == weights + sum(p.shape[0] for p in spec.populations)


@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(-1, 1)
)
def test_a_convolution_fits_one_size_only(
    side: int, kernel: int, stride: int, padding: int, off: int
) -> None:
    coupling = CouplingSpec(
        pre="a", post="b", kind="conv", kernel=kernel, stride=stride, padding=padding
    )
    fits = (side + 2 * padding - kernel) // stride + 1
    shape = (2, fits + off, fits + off)
    if off == 0 and fits >= 1:
        coupling.check_shapes((1, side, side), shape)
    else:
        with pytest.raises(SpecError, match="coupling 'a->b'"):
            coupling.check_shapes((1, side, side), shape)


def test_the_last_population_is_the_output_unless_another_is_named() -> None:
    assert NetworkSpec.from_dict(PLAIN).output == "out"
    assert NetworkSpec.from_dict({**PLAIN, "output": "h1"}).output == "h1"


def test_a_spec_cannot_be_changed() -> None:
    spec = NetworkSpec.from_dict(PLAIN)
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(NetworkSpec.from_dict(PLAIN).to_yaml().replace("kernel: 3", "kernel: 2"))
    with pytest.raises(SpecError) as caught:
        NetworkSpec.from_yaml(path)
    assert str(caught.value).startswith(f"{path}: coupling 'input->h1': kernel 2")


REFUSED: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (lambda d: d.update(popultions=[]), ["'popultions'", "mean 'populations'?"]),
    "unknown key far from all": (lambda d: d.update(zzz=1), ["'zzz'", "known keys: name, input"]),
    "unknown key of a coupling": (
        lambda d: d["couplings"][0].update(kernal=3),
        ["'couplings.0.kernal'", "did you mean 'kernel'?"],
    ),
    "missing key": (lambda d: d.pop("input"), ["key 'input' is missing", "add it"]),
    "no mapping": (lambda d: d.update(populations={"h1": [3]}), ["populations = {'h1': [3]}"]),
    "a number of populations": (lambda d: d.update(populations=5), ["populations = 5"]),
    "no populations": (lambda d: d.update(populations=[]), ["populations = []", "at least 1"]),
    "no couplings": (lambda d: d.update(couplings=[]), ["couplings = []", "at least 1"]),
    "name with a space": (lambda d: d.update(name="a b"), ["name = a b", "pattern"]),
    "empty population": (
        lambda d: d["populations"][1].update(shape=[0]),
        ["populations.1.shape.0 = 0", "greater than or equal to 1"],
    ),
    "gain of infinity": (
        lambda d: d["couplings"][1].update(gain=math.inf),
        ["couplings.1.gain = inf", "finite"],
    ),
    "negative gain": (lambda d: d["couplings"][1].update(gain=-1), ["couplings.1.gain = -1"]),
    "shapes that do not match": (
        lambda d: d["couplings"][0].update(stride=2),
        [
            "coupling 'input->h1': kernel 3, stride 2, padding 1 on [1, 4, 4] gives [2, 2]",
            "but 'h1' is [4, 4]",
            "give 'h1' the shape [2, 2, 2]",
        ],
    ),
    "kernel larger than the image": (
        lambda d: d["couplings"][0].update(kernel=30),
        ["kernel 30 is larger than the padded image 6 x 6", "take at most 6"],
    ),
    "pool with no place": (
        lambda d: d["couplings"][0].update(kernel=6, pool="avg"),
        ["a 2x2 pool finds no place on the 1 x 1", "remove pool"],
    ),
    "convolution into a vector": (
        lambda d: d["couplings"][1].update(kind="conv", kernel=1),
        ["coupling 'h1->out'", "[2, 4, 4] to [3]", "use kind: dense"],
    ),
    "convolution without a kernel": (
        lambda d: d["couplings"][0].pop("kernel"),
        ["coupling 'input->h1'", "no kernel", "kernel: 3"],
    ),
    "dense with a stride": (
        lambda d: d["couplings"][1].update(stride=2),
        ["coupling 'h1->out'", "kind is dense", "kind: conv"],
    ),
    "unknown population": (
        lambda d: d["couplings"][1].update(pre="h7"),
        ["coupling 'h7->out'", "'h7' does not exist", "choose from input, h1, out"],
    ),
    "coupling to itself": (joined("out", "out"), ["coupling 'out->out'", "to itself", "another"]),
    "coupling into the input": (
        joined("h1", "input"),
        ["coupling 'h1->input'", "the input is clamped", "another"],
    ),
    "a coupling twice": (joined("h1", "out"), ["coupling 'h1->out'", "stands 2 times", "rename"]),
    "the way back of a coupling": (
        joined("out", "h1"),
        ["coupling 'out->h1'", "way back of 'h1->out'", "drop it", "untied: true"],
    ),
    "a population twice": (
        lambda d: d["populations"].append(population("h1")),
        ["population 'h1'", "stands 2 times", "rename"],
    ),
    "a population called input": (
        lambda d: d["populations"].insert(0, population("input")),
        ["population 'input'", "stands 2 times", "rename"],
    ),
    "unknown output": (
        lambda d: d.update(output="top"),
        ["output: population 'top' does not exist", "name a population"],
    ),
    "the input as output": (lambda d: d.update(output="input"), ["output: population 'input'"]),
    "an island": (
        lambda d: d["populations"].insert(0, population("lone")),
        ["population 'lone'", "joins it to the output", "add a coupling or remove"],
    ),
    "a dead end behind the input": (
        lambda d: (
            d["populations"].insert(0, population("dead")),
            d["couplings"].append({"pre": "input", "post": "dead"}),
        ),
        ["population 'dead'", "joins it to the output", "add a coupling or remove"],
    ),
    "nothing sees the input": (
        lambda d: d["couplings"].pop(0),
        ["population 'h1'", "joins it to the input", "add a coupling or remove"],
    ),
    "box upside down": (
        lambda d: d["populations"][0].update(box=[1, 0]),
        ["population 'h1'", "box [1.0, 0.0]", "lo < hi", "null"],
    ),
    "box without end": (
        lambda d: d["populations"][0].update(box=[0, math.inf]),
        ["population 'h1'", "box [0.0, inf]", "finite", "null"],
    ),
    "too few means": (
        lambda d: d["input"].update(mean=[0.1, 0.2]),
        ["input.mean", "2 values for 1 channels", "one value a channel"],
    ),
    "too few deviations": (
        lambda d: d["input"].update(std=[0.1, 0.2]),
        ["input.std", "2 values for 1 channels", "one value a channel"],
    ),
    "deviation that float32 does not hold": (
        lambda d: d["input"].update(std=[1e-300]),
        ["input.std", "1e-300 is outside 1e-08 to 1e+08", "in units of the pixels"],
    ),
    "mean that float32 does not hold": (
        lambda d: d["input"].update(mean=[-1e300]),
        ["input.mean", "-1e+300 is outside -1e+08 to 1e+08", "in units of the pixels"],
    ),
    "deviation of zero": (lambda d: d["input"].update(std=[0.0]), ["input.std.0 = 0.0"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_spec_is_refused_in_one_line_with_value_and_remedy(case: str) -> None:
    change, parts = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        NetworkSpec.from_dict(changed(change), where="net.yaml")
    text = str(caught.value)
    assert text.startswith("net.yaml: ")
    assert "\n" not in text
    assert caught.value.remedy
    assert all(part in text for part in parts), text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*PLAIN, "output", "other"]), JSON, min_size=1))
def test_no_data_whatever_raises_anything_but_our_errors(changes: dict[str, Any]) -> None:
    with contextlib.suppress(SpecError):
        NetworkSpec.from_dict({**PLAIN, **changes})

"""Claims about ranges: boxes drawn in to where states are refine a few levels, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import compilers
import targets
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ModelError
from ep_neuro.network.checkpoint import Model, load_model, save_model
from ep_neuro.network.network import Network
from ep_neuro.network.ranges import RANGES, measure_ranges, narrowed, read_ranges
from ep_neuro.network.settling import Schedule

TIGHT = Schedule(sweeps=200, tolerance=1e-6)
UNIT = 8.0


def roomy() -> Network:
    """Outputs of about 1 in a box of 64, hidden states of about a unit in a box of 50."""
    spec = NetworkSpec.from_dict(
        {
            "name": "roomy",
            "input": {"shape": [12]},
            "populations": [
                {"name": "h", "shape": [20], "box": [0, 50], "unit": UNIT},
                {"name": "output", "shape": [4], "box": [-32, 32]},
            ],
            "couplings": [
                {"pre": "input", "post": "h", "gain": 1.0},
                {"pre": "h", "post": "output", "gain": 0.5},
            ],
        }
    )
    return Network(spec, seed=1)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(40, 12, generator=torch.Generator().manual_seed(0))


def test_ranges_hold_the_output_whole_and_all_but_the_largest_hidden_states(
    x: torch.Tensor,
) -> None:
    network = roomy()
    found, state = measure_ranges(network, x, TIGHT), network.settle(x, TIGHT).state
    low, high = found["output"]
    assert low < state["output"].min() <= state["output"].max() < high
    above = (state["h"] / UNIT > found["h"][1]).double().mean()
    assert 0 <= above <= 2e-3


def test_a_network_drawn_in_settles_where_it_did(x: torch.Tensor) -> None:
    network = roomy()
    ranges = {**measure_ranges(network, x, TIGHT)}
    ranges["h"][1] *= 1.2
    twin = narrowed(network, read_ranges({RANGES: ranges}))
    assert max(twin.spec.boxes["output"] or [32]) < 32
    before, after = (n.settle(x, TIGHT).state for n in (network, twin))
    for name, z in before.items():
        assert torch.allclose(after[name], z, atol=1e-4 * UNIT)


def test_drawing_in_widens_no_box_and_leaves_the_foot_of_a_hidden_one() -> None:
    wide = {"h": (-5.0, 1e3), "output": (-1e3, 1e3)}
    assert narrowed(roomy(), wide).spec.boxes == roomy().spec.boxes
    flat = {"h": (0.0, 0.0), "output": (3.0, 3.0)}
    assert narrowed(roomy(), flat).spec.boxes == roomy().spec.boxes
    half = {"h": (1.0, 2.0)}
    assert narrowed(roomy(), half).spec.boxes["h"] == (0.0, 2.0 * UNIT)


@pytest.mark.parametrize("code", ["graded", "spike"])
def test_a_model_with_ranges_is_nearer_to_the_torch_network_in_integers(
    x: torch.Tensor, code: str
) -> None:
    network = roomy()
    exact = network.settle(x, TIGHT).state["output"].numpy()

    def error(model: Model) -> float:
        program = compilers.compile(model, code=code, bits=8, steps=64)
        with targets.open(program) as session:
            return float(np.abs(session.settle(x.numpy()).free.outputs - exact).mean())

    plain, seen = Model(network), Model(network, {RANGES: measure_ranges(network, x, TIGHT)})
    assert error(seen) < error(plain) / 2


def test_a_program_that_learns_keeps_the_boxes_in_which_weights_may_grow(x: torch.Tensor) -> None:
    network = roomy()
    model = Model(network, {RANGES: measure_ranges(network, x, TIGHT)})

    def height(**options: Any) -> float:
        return compilers.compile(model, **options).graph.population("output").readout.gain

    assert height(learn="contrastive") == 64 > 2 * height()


@pytest.mark.parametrize(
    "ranges", [{"h": [2, 1]}, {"h": 3}, {"h": ["a", 1]}, [1], {"h": [0, "nan"]}]
)
def test_ranges_that_are_none_are_refused_with_the_file(ranges: Any, tmp_path: Path) -> None:
    save_model(Model(roomy(), {RANGES: ranges}), tmp_path / "m")
    with pytest.raises(ModelError, match=r"metadata.json, ranges"):
        compilers.compile(load_model(tmp_path / "m"))

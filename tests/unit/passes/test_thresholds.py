"""Claims about the thresholds of sigma-delta messages: who is coarse, and who waits."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilers.ir.graph import SigmaDelta
from compilers.passes.thresholds import (
    ACTIVE,
    FINEST,
    LARGEST,
    PRECISION,
    Edge,
    depths,
    falls,
    sensitivities,
)

SHAPES = {"a": (300,), "b": (200,), "skip": (100,), "out": (10,)}
EDGES = (("a", "b"), ("b", "out"), ("a", "skip"), ("skip", "out"))


def back(weight: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Changes of the end of a dense coupling, (N, post), as changes of its start."""
    return z @ weight


def ways(
    seed: int = 0, gain: float = 1.0, edges: tuple[tuple[str, str], ...] = EDGES
) -> tuple[list[Edge], dict[tuple[str, str], np.ndarray]]:
    """Dense couplings of `SHAPES` with random weights, and these as (post, pre) matrices."""
    rng = np.random.default_rng(seed)
    weights = {
        (pre, post): gain * rng.standard_normal((SHAPES[post][0], SHAPES[pre][0]))
        for pre, post in edges
    }
    found = [Edge(pre, post, partial(back, w)) for (pre, post), w in weights.items()]
    return found, weights


@settings(max_examples=10)
@given(seed=st.integers(0, 10**4))
def test_a_sensitivity_is_the_norm_of_the_jacobian_along_all_paths(seed: int) -> None:
    couplings, w = ways(seed)
    jacobian = ACTIVE * (w["b", "out"] @ w["a", "b"] + w["skip", "out"] @ w["a", "skip"])
    exact = math.sqrt((jacobian**2).sum() / SHAPES["a"][0])
    found = sensitivities(SHAPES, "out", couplings)
    assert found["a"] == pytest.approx(exact, rel=0.25)  # four random probes
    assert found["b"] == pytest.approx(np.sqrt((w["b", "out"] ** 2).sum() / 200), rel=0.25)
    assert found["out"] == 0


def test_the_last_thresholds_spend_the_error_that_the_output_may_have() -> None:
    couplings, _ = ways(gain=0.03)
    found, moved = falls(SHAPES, "out", couplings, 64), sensitivities(SHAPES, "out", couplings)
    hidden = [name for name in SHAPES if name != "out"]
    assert all(FINEST < found[name].end < LARGEST for name in hidden)
    # One threshold of error in every neuron, signs at random, norm over the ten outputs.
    spent = sum(SHAPES[n][0] * (found[n].end * moved[n]) ** 2 for n in hidden)
    assert math.sqrt(spent / SHAPES["out"][0]) == pytest.approx(PRECISION, rel=1e-4)
    assert len({round(found[n].end * moved[n], 8) for n in hidden}) == 1
    assert found["out"].end == PRECISION


def test_the_deeper_a_population_lies_the_later_it_speaks() -> None:
    couplings, _ = ways(gain=0.03)
    found = falls(SHAPES, "out", couplings, 64)
    assert depths(SHAPES, couplings) == {"a": 0, "b": 1, "skip": 1, "out": 2}
    assert found["a"].start < found["b"].start == found["skip"].start < found["out"].start
    assert len({f.decay for f in found.values()}) == 1


@settings(max_examples=25)
@given(steps=st.integers(1, 400), gain=st.floats(1e-6, 1e3), precision=st.floats(1e-4, 0.3))
def test_every_last_threshold_stands_when_the_phase_ends(
    steps: int, gain: float, precision: float
) -> None:
    couplings, _ = ways(gain=gain)
    for fall in falls(SHAPES, "out", couplings, steps, precision).values():
        assert FINEST <= fall.end <= LARGEST
        assert fall.threshold(steps + 1) == fall.end
        assert all(fall.threshold(t + 1) <= fall.threshold(t) for t in range(1, steps))


@settings(max_examples=20)
@given(gain=st.floats(1e-6, 1e3), precision=st.floats(1e-4, 0.3))
def test_where_steps_are_whole_a_population_is_silent_until_the_signal_has_come_by_all_paths(
    gain: float, precision: float
) -> None:
    couplings, _ = ways(gain=gain)
    depth = depths(SHAPES, couplings)
    slowly = falls(SHAPES, "out", couplings, 64, precision)
    for name, fall in falls(SHAPES, "out", couplings, 64, precision, whole=True).items():
        assert fall.end == slowly[name].end
        assert fall.threshold(depth[name] + 1) == pytest.approx(fall.end, rel=1e-4)
        # No state leaves its box: a change of one height or more is not to be had.
        assert all(fall.threshold(t) > 1 for t in range(1, depth[name] + 1))


def test_what_cannot_reach_the_output_may_be_coarse() -> None:
    couplings, _ = ways(edges=(("a", "b"), ("b", "out"), ("a", "skip")))
    assert sensitivities(SHAPES, "out", couplings)["skip"] == 0
    assert falls(SHAPES, "out", couplings, 64)["skip"].end == LARGEST


def test_couplings_in_a_circle_come_to_an_end() -> None:
    couplings, _ = ways(gain=0.01, edges=(*EDGES, ("b", "a")))
    found = falls(SHAPES, "out", couplings, 64)
    assert all(np.isfinite([f.start, f.end, f.decay]).all() for f in found.values())


def test_a_last_bit_in_the_weights_changes_no_threshold() -> None:
    couplings, w = ways(gain=0.03)
    nudged = [
        Edge(c.pre, c.post, partial(back, v * (1 + 2**-50)))
        for c, v in zip(couplings, w.values(), strict=True)
    ]
    assert falls(SHAPES, "out", couplings, 64) == falls(SHAPES, "out", nudged, 64)


def test_a_threshold_falls_by_equal_factors_to_its_end() -> None:
    fall = SigmaDelta(start=0.8, end=0.1, decay=0.5)
    assert [fall.threshold(t) for t in (1, 2, 3, 4, 5)] == [0.8, 0.4, 0.2, 0.1, 0.1]

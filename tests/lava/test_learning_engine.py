"""Lava's own learning engine in fixed point: what `lava.connections.loihi_rule` counts on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lava.magma.core.learning.learning_rule_applier import LearningRuleApplierBitApprox

from targets.lava.builders.faithful import learning_rule
from targets.lava.connections.loihi_rule import LEVELS, OPEN, Rate, resting, rule_of
from tests.helpers.traced import neurons


@given(
    x=st.integers(0, 127),
    y=st.integers(-127, 127),
    tag=st.integers(-255, 255),
    offset=st.sampled_from([0.0, -0.5]),
    level=st.integers(1, LEVELS),
    shift=st.integers(0, 6),
)
def test_lavas_engine_computes_what_is_documented(
    x: int, y: int, tag: int, offset: float, level: int, shift: int
) -> None:
    """In its accumulator of 15 bits, of which a tag and a weight are the upper 8."""
    population = neurons(offset)
    rule = learning_rule(*rule_of(population, Rate(1.0, shift)))
    factors = {
        "shape": (1, 1),
        "x0": np.ones((1, 1), int),
        "u": 1,
        "x1_x0": np.array([[x]]),
        "y1_x0": np.array([[y]]),
        "y3_u": np.array([[OPEN * level]]),
        "tag_1": np.array([[tag]]),
    }
    added = {
        target: LearningRuleApplierBitApprox(series).apply(np.zeros((1, 1), int), **factors)
        for target, series in rule.active_product_series.items()
    }
    exact = 128 * (x + resting(population)) * y / 64
    assert 0 <= exact - added["dt"][0, 0] <= 2  # It cuts off a sixty-fourth of a tag at most.
    top = 2**15 - 1
    assert added["dw"][0, 0] == np.clip(tag * level * 2**shift, -top - 2, top)

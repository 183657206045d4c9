"""Claims about what records of all targets share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilers.ir.operators import apply
from ep_neuro.errors import RunError
from targets.interface.fanout import require_finite, synapses_of
from tests.helpers.graphs import graph_of, random_residual_spec


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_a_message_meets_as_many_synapses_as_it_reaches_neurons(seed: int) -> None:
    graph = graph_of(random_residual_spec(seed))
    for p in graph.populations:
        messages = np.eye(p.size).reshape(p.size, *p.shape)
        reached = np.zeros(p.size, np.int64)
        for q in graph.out_of(p.name):
            ones = np.ones_like(graph.arrays[q.weight], np.float64)
            met = apply(q.operator, ones, messages, graph.population(q.post).shape)
            reached += np.count_nonzero(met.reshape(p.size, -1), axis=1)
        np.testing.assert_array_equal(synapses_of(graph, p), reached)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_output_that_is_no_number_is_refused_by_the_name_of_its_phase(wrong: float) -> None:
    with pytest.raises(RunError, match="phase 'free': the output is not finite after 7 steps"):
        require_finite(np.array([0.0, wrong]), "free", 7)
    require_finite(np.zeros(2), "free", 7)

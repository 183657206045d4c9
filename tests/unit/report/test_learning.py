"""Claims about the figures of on-chip learning."""

from __future__ import annotations

import numpy as np
import pytest

from ep_neuro.report.plots.learning import plot_agreement, plot_synapses
from ep_neuro.report.svg import inline_svg


def test_every_synapse_is_a_line_and_every_coupling_a_colour() -> None:
    weights = {"a->b": np.zeros((3, 4)), "b->c": np.ones((3, 2))}
    (axes,) = plot_synapses([0, 10, 20], weights).axes
    assert len(axes.lines) == 6
    assert len({line.get_color() for line in axes.lines}) == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a->b", "b->c"]
    np.testing.assert_array_equal(axes.lines[5].get_xdata(), [0, 10, 20])


def test_agreement_is_drawn_against_chance() -> None:
    figure = plot_agreement([0, 100, 200], [0.9, 0.8, np.nan], [0.95, 0.85, np.nan])
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == ["equal signs (share)", "cosine", "signs by chance"]
    assert "nan" not in inline_svg(figure, "a", "agreement").lower()


def test_an_axis_goes_below_zero_only_where_a_cosine_does() -> None:
    above = plot_agreement([0, 1], [0.9, 0.9], [0.5, 0.6]).axes[0].get_ylim()
    below = plot_agreement([0, 1], [0.4, 0.4], [-0.2, 0.6]).axes[0].get_ylim()
    assert above[0] == 0
    assert below[0] == pytest.approx(-0.2)

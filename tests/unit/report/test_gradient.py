"""Claims about the figure and the words of how true a gradient was, and where they are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ep_neuro.errors import DataError
from ep_neuro.report import GradientTruth, LearningCurve, plot_curves, plot_truth
from ep_neuro.report.plots.gradient import NEAREST, describe_truth, truth_in_words
from ep_neuro.training.loop import train
from ep_neuro.training.metrics import gradient_truth, truth_beside
from tests.unit.training.test_gradient_monitor import watched
from tests.unit.training.test_loop import clusters, config

FALLEN = GradientTruth([1, 2, 3], [0.99899, 0.98999, 1.0], [0.99, -0.5, 0.9], [2, 4, 4], [1, 3, 3])


def test_the_distance_from_one_is_on_a_log_axis_and_the_cosine_at_its_ticks() -> None:
    (axes,) = plot_truth(replace(FALLEN, asked=0.99)).axes
    assert axes.get_yscale() == "log"
    assert axes.yaxis_inverted()
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines}
    assert list(lines) == ["gradient", "worst weight", "asked"]
    assert lines["gradient"] == pytest.approx([0.00101, 0.01001, NEAREST])
    assert lines["asked"] == pytest.approx(0.01)
    assert axes.yaxis.get_major_formatter()(0.01) == "0.99"


def test_the_curves_of_a_run_have_a_third_panel_where_the_truth_was_measured() -> None:
    curve = LearningCurve("m", [1, 2, 3], accuracy={"training": [0.1, 0.5, 0.9]})
    assert len(plot_curves(curve).axes) == 2
    assert plot_curves(curve, FALLEN).axes[2].get_ylabel() == "cosine to the exact gradient"


def test_words_tell_the_least_cosine_never_rounded_up_what_was_asked_and_the_sweeps() -> None:
    assert truth_in_words(replace(FALLEN, asked=0.99)) == (
        "Wherever it was measured, the gradient of equilibrium propagation had a cosine of at "
        "least 0.9899 to the exact one (0.99 was asked, and missed in 1 of 3 epochs), with 2 to 4 "
        "free and 1 to 3 nudged sweeps a step."
    )
    assert "(0.9 was asked), with" in truth_in_words(replace(FALLEN, asked=0.9))
    assert "asked" not in truth_in_words(FALLEN)
    assert describe_truth(FALLEN)[1] == "worst weight: cosine at least −0.5000, at the end 0.9000"


def test_epochs_that_measured_nothing_are_gaps_and_none_at_all_is_no_truth() -> None:
    measured = {
        "gradient_cosine": 0.999,
        "worst_cosine": 0.99,
        "sweeps_free": 3,
        "sweeps_nudged": 2,
    }
    history = [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, **measured}]
    found = gradient_truth(history, 0.99)
    assert found is not None
    assert np.isnan(np.asarray(found.cosine)[0])
    assert "at least 0.9990 to" in truth_in_words(found)
    plot_truth(found)
    assert gradient_truth(history[:1], 0.99) is None


def test_a_truth_without_values_is_refused() -> None:
    with pytest.raises(DataError, match="gradient truth cosine: has no value"):
        GradientTruth([1], [float("nan")], [1], [1], [1])


# --- in a run directory -------------------------------------------------------------------------


def test_the_truth_lies_beside_the_models_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(watched(epochs=2, truth={"cosine": 0.98}), run, dataset=clusters())
    for name in (run, run / "best", run / "last"):
        found = truth_beside(name)
        assert found is not None
        assert found.asked == 0.98
        assert np.nanmin(found.cosine) == result.gradient_cosine
    assert truth_beside(run / "best" / "spec.yaml") is None
    assert truth_beside("zoo:digits_dense") is None
    assert "cosine to the exact gradient" in (run / "curves.svg").read_text()


def test_a_run_that_measured_no_truth_draws_and_tells_as_before(tmp_path: Path) -> None:
    result = train(config(epochs=1), tmp_path, dataset=clusters())
    assert result.gradient_cosine is None
    assert truth_beside(tmp_path) is None
    assert "cosine" not in (tmp_path / "curves.svg").read_text()


@pytest.mark.parametrize(
    "line", [b"{half", b"[1]", b'{"epoch": "x"}', b'{"epoch": 1' + b"0" * 5000 + b"}", b"\xff"]
)
def test_metrics_that_cannot_be_read_are_a_one_line_error(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    first = json.dumps({"epoch": 1, "val_accuracy": None}).encode()
    (tmp_path / "metrics.jsonl").write_bytes(first + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=r"metrics.jsonl line 2: is not the metrics of an epoch"):
        truth_beside(tmp_path / "best")


def test_what_was_validated_now_and_then_is_a_line_all_the_same() -> None:
    nan = float("nan")
    accuracy = {"training": [0.1, 0.2, 0.3, 0.4], "validation": [nan, 0.2, nan, 0.5]}
    curve = LearningCurve("now and then", [1, 2, 3, 4], accuracy=accuracy, loss={})
    _, validation = plot_curves(curve).axes[0].lines
    np.testing.assert_array_equal(validation.get_xdata(), [2, 4])
    np.testing.assert_allclose(validation.get_ydata(), [20, 50])

"""Claims about the page of the settling viewer: whole, self-contained, not too large, and true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ep_neuro.errors import ConfigError
from ep_neuro.report import viewer
from ep_neuro.report.viewer import LEVELS, levels, packed, render_view, thin, view_data, write_view
from tests.helpers.settling_example import example_view, unpacked
from tests.unit.report.test_page import Outline


class PageOutline(Outline):
    """Of a page that one can use."""

    VOID = Outline.VOID | {"input"}


SHAPES = st.one_of(
    st.tuples(st.integers(1, 3000)),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
)


@given(SHAPES, st.integers(4, 1024))
def test_of_a_large_population_few_neurons_are_kept_and_all_of_a_small_one(
    shape: tuple[int, ...], most: int
) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(1, 1, *shape)
    kept = thin(values, most)
    assert 1 <= kept.size <= most
    assert np.isin(kept, values).all()
    if values.size <= most:
        assert kept is values
    else:
        assert len(np.unique(kept)) == kept.size


@given(arrays(np.float64, (2, 3, 5), elements=st.floats(-4, 4)))
def test_what_is_packed_is_within_half_a_level_and_zero_is_zero(values: np.ndarray) -> None:
    bytes_ = unpacked(packed(levels(values, [(-4.0, 4.0)] * 2)), values.shape)
    shown = -4 + bytes_ * (8 / LEVELS)
    assert np.abs(shown - values).max() <= 4 / LEVELS + 1e-12
    assert (shown[values == 0] == 0).all()


def test_curves_and_outputs_are_numbers_and_what_is_not_finite_is_null() -> None:
    view = example_view()
    free = view_data(view)["phases"][0]
    assert np.allclose(free["outputs"], view.phases[0].outputs, rtol=1e-4)
    (curve, *_) = free["curves"]
    assert (curve["name"], curve["log"]) == (viewer.RESIDUAL, True)
    assert [values[0] for values in curve["values"]] == [None] * len(view.labels)


def test_a_difference_has_scales_of_its_own_which_early_steps_do_not_stretch() -> None:
    view = example_view()
    phases = view_data(view)["phases"]
    for name, free, difference in zip(
        view.shapes, phases[0]["states"], phases[-1]["states"], strict=True
    ):
        late = np.abs(thin(view.phases[-1].states[name], viewer.MOST_CELLS)[:, 3:])
        low, high = np.array(difference["scales"]).T
        assert np.allclose(high, late.reshape(len(late), -1).max(1), rtol=1e-4)
        assert (low == -high).all()
        assert (high < free["scales"][0][1]).all()


def test_the_page_is_whole_and_asks_for_nothing_but_itself() -> None:
    page = render_view(example_view())
    outline = PageOutline(page.replace("<section ", "<section id='' "))
    assert outline.open == []
    assert all(a.startswith("data:") for a in outline.addresses)
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://(?!www\.w3\.org/2000/svg)""", page)
    assert page == render_view(example_view())


def test_a_name_cannot_end_the_script_it_stands_in() -> None:
    page = render_view(example_view(name="</script><b>"))
    text = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(text)["populations"][0]["name"] == "</script><b>"
    assert "<b>" not in page


def test_a_page_that_grows_too_large_shows_fewer_neurons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_view(example_view(), tmp_path / "whole.html")
    monkeypatch.setattr(viewer, "PAGE_BYTES", whole - 1)
    size = write_view(example_view(), tmp_path / "less.html")
    assert size == (tmp_path / "less.html").stat().st_size < whole
    assert " neurons shown" in (tmp_path / "less.html").read_text()


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    place.write_text("dear")
    with pytest.raises(ConfigError, match="other content"):
        write_view(example_view(), place)
    assert place.read_text() == "dear"


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((1, 8, 8), (1, 8, 8)),
        ((3, 4, 5), (3, 4, 5)),
        ((2, 4, 5), (4, 5)),
        ((10,), (1, 10)),
        ((30,), (5, 6)),
    ],
)
def test_whatever_the_input_is_there_is_a_picture_of_it(
    shape: tuple[int, ...], shown: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).random(shape)
    assert viewer.picture(image).shape == shown

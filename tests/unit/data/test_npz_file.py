"""Claims about samples in npz files: what is read, and what is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.data.datasets import SPLITS, Dataset, load
from ep_neuro.errors import DataError


@pytest.mark.parametrize(
    ("shape", "sample"), [((20, 6), (1, 1, 6)), ((20, 3, 2), (1, 3, 2)), ((20, 2, 3, 2), (2, 3, 2))]
)
def test_npz_arrays_of_any_rank_are_images(
    tmp_path: Path, shape: tuple[int, ...], sample: tuple[int, ...]
) -> None:
    np.savez(tmp_path / "a.npz", x=np.full(shape, 51, np.uint8), y=np.arange(20) % 3)
    found = load(f"npz:{tmp_path / 'a.npz'}")
    assert found.shape == sample
    assert found.classes == ("0", "1", "2")
    assert np.allclose(found.train.x, 0.2)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x": np.zeros((20, 4))}, "no array 'y'"),
        ({"x": np.zeros((20, 4)), "y": np.zeros(19, int)}, "y is int64 [19]"),
        ({"x": np.zeros((20, 4)), "y": np.zeros(20)}, "y is float64 [20]"),
        (
            {"x": np.full((20, 4), 7.0), "y": np.zeros(20, int)},
            "pixels 7 to 7 are not all in 0 to 1",
        ),
        ({"x": np.full((20, 4), np.nan), "y": np.zeros(20, int)}, "not all in 0 to 1"),
        ({"x": np.zeros((20, 4)), "y": np.full(20, -1)}, "labels -1 to -1"),
        ({"x": np.zeros((3, 4)), "y": np.zeros(3, int)}, "3 samples are too few"),
        ({"x": np.array([{}] * 20), "y": np.zeros(20, int)}, "not an npz file of plain arrays"),
    ],
)
def test_bad_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], problem: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        load(f"npz:{tmp_path / 'a.npz'}")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("x", "problem"),
    [
        (np.full((20, 4), "abc"), "x is <U3 [20, 4]"),
        (np.zeros((20, 4), [("r", "u1"), ("g", "u1")]), "[20, 4], y is int64 [20]"),
        (np.zeros((20, 4), complex), "x is complex128 [20, 4]"),
        (np.zeros((20, 0)), "x is float64 [20, 0]"),
    ],
)
def test_samples_that_are_no_numbers_are_refused(
    tmp_path: Path, x: np.ndarray, problem: str
) -> None:
    np.savez(tmp_path / "a.npz", x=x, y=np.zeros(20, int))
    with pytest.raises(DataError, match="of numbers and y") as caught:
        load(f"npz:{tmp_path / 'a.npz'}")
    assert problem in str(caught.value)


@pytest.mark.parametrize("label", [10**9, 10**13])
def test_a_stray_label_builds_no_class_for_every_number_below_it(
    tmp_path: Path, label: int
) -> None:
    y = np.arange(20) % 3
    y[7] = label
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 4)), y=y)
    with pytest.raises(DataError, match=f"labels 0 to {label}, but most .* no samples; number"):
        load(f"npz:{tmp_path / 'a.npz'}")


def test_a_class_without_samples_is_still_a_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 4)), y=np.repeat([0, 9], 10))
    assert len(load(f"npz:{tmp_path / 'a.npz'}").classes) == 10
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 4)), y=np.zeros(20, int), classes=list("abc"))
    assert load(f"npz:{tmp_path / 'a.npz'}").classes == ("a", "b", "c")


def test_one_name_for_all_classes_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 4)), y=np.zeros(20, int), classes=np.array("cat"))
    with pytest.raises(DataError, match=r"classes is <U3 \[\]; give a list"):
        load(f"npz:{tmp_path / 'a.npz'}")


def test_a_truncated_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((20, 4)), y=np.zeros(20, int))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read"):
        load(f"npz:{path}")


# --- Keras's arrays ----------------------------------------------------------------------------


Arrays = dict[str, Any]


def keras(shape: tuple[int, ...] = (8, 8), seed: int = 0, **more: Any) -> Arrays:
    """Twenty training and six test images of `shape` in three classes."""
    rng, found = np.random.default_rng(seed), {}
    for split, count in (("train", 20), ("test", 6)):
        found[f"x_{split}"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        found[f"y_{split}"] = np.arange(count) % 3
    return {**found, **more}


def loaded(arrays: Arrays) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "a.npz", **arrays)
        return load(f"npz:{folder}/a.npz")


def channels_first(arrays: Arrays) -> Arrays:
    return {k: v.transpose(0, 3, 1, 2) if k[0] == "x" else v for k, v in arrays.items()}


@given(st.integers(1, 4), st.integers(5, 12), st.integers(5, 12), st.integers(0, 99))
@settings(max_examples=25)
def test_images_with_channels_last_are_those_with_channels_first(
    channels: int, height: int, width: int, seed: int
) -> None:
    last = keras((height, width, channels), seed)
    found = loaded(last)
    assert found.shape == (channels, height, width)
    assert found.digest == loaded(channels_first(last)).digest
    assert np.array_equal(found.test.pixels, last["x_test"].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 8, 1), (16, 16, 16)])
def test_a_layout_that_cannot_be_told_is_asked_for(shape: tuple[int, ...]) -> None:
    arrays = keras(shape)
    with pytest.raises(DataError, match=r"x_train is \[.*may come first or last; store an array"):
        loaded(arrays)
    first = loaded(channels_first(arrays) | {"layout": np.array("NCHW")})
    assert loaded(arrays | {"layout": np.array("NHWC")}).digest == first.digest


def test_a_layout_is_told_of_x_and_y_too_and_only_in_two_words() -> None:
    plain = {"x": np.arange(20 * 18.0).reshape(20, 2, 3, 3) / 360, "y": np.arange(20) % 3}
    assert loaded(plain).shape == (2, 3, 3)
    assert loaded(plain | {"layout": np.array("NHWC")}).shape == (3, 2, 3)
    with pytest.raises(DataError, match="layout is 'last'; give it as NCHW or NHWC"):
        loaded(plain | {"layout": np.array("last")})


def test_images_of_height_and_width_are_grey_and_a_tenth_of_train_is_held_out() -> None:
    found = loaded(keras((8, 6)))
    assert found.shape == (1, 8, 6)
    assert [len(found.split(s)) for s in SPLITS] == [18, 2, 6]


@pytest.mark.parametrize("key", ["val", "valid"])
def test_a_validation_set_has_either_name(key: str) -> None:
    more = {f"x_{key}": np.zeros((4, 8, 8), np.uint8), f"y_{key}": np.arange(4) % 3}
    found = loaded(keras(**more))
    assert [len(found.split(s)) for s in SPLITS] == [20, 4, 6]
    assert not found.val.pixels.any()


@given(st.lists(st.integers(0, 3), min_size=20, max_size=20), st.sampled_from(["?", "i4", "f4"]))
@settings(max_examples=25)
def test_one_hot_rows_and_columns_of_labels_are_labels(labels: list[int], kind: str) -> None:
    plain = loaded(keras(y_train=np.array(labels), classes=np.arange(4)))
    rows = keras(y_train=np.eye(4, dtype=kind)[labels])
    assert loaded(rows).digest == plain.digest
    assert loaded(rows).classes == tuple("0123")
    column = keras(y_train=np.array(labels)[:, None], classes=np.arange(4))
    assert loaded(column).digest == plain.digest


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"y_train": np.ones((20, 3))}, "x_train is uint8 [20, 8, 8], y_train is float64 [20, 3]"),
        ({"y_train": np.zeros((20, 1))}, "y_train is float64 [20, 1]; give x_train"),
        ({"y_train": np.full((20, 2), np.nan)}, "or one-hot rows"),
        ({"y_test": np.array(3)}, "y_test is int64 []"),
        ({"y_test": None}, "no array 'y_test'; store x_train, y_train, x_test and y_test in it"),
        ({"x_test": None}, "no array 'x_test'"),
        ({"x_val": np.zeros(3), "x_valid": np.zeros(3)}, "it holds x_val and x_valid; store one"),
        ({"x_test": np.zeros((6, 8, 7))}, "samples are [1, 8, 7], in train [1, 8, 8]"),
        ({"y_train": np.eye(3)[np.arange(20) % 3], "y_test": np.full(6, 5)}, "labels 5 to 5, but"),
    ],
)
def test_other_arrays_are_refused_by_name(change: Arrays, problem: str) -> None:
    arrays = {k: v for k, v in (keras() | change).items() if v is not None}
    with pytest.raises(DataError) as caught:
        loaded(arrays)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)

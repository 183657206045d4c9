"""Claims about samples in npz files: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ep_neuro.data.datasets import load
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

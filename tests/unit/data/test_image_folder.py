"""Claims about folders of images: splits, classes, sizes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ep_neuro.data.datasets import SPLITS, load, load_fitted
from ep_neuro.errors import DataError
from tests.unit.data.test_datasets import spec_of


def write_image(
    path: Path, size: tuple[int, int] = (5, 4), mode: str = "L", value: int = 51
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def write_folder(root: Path, counts: dict[str, int], **image: object) -> None:
    for name, count in counts.items():
        for i in range(count):
            write_image(root / name / f"{i:03}.png", **image)  # type: ignore[arg-type]


def test_one_folder_splits_70_10_20(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 10, "dog": 10})
    pets = load(f"folder:{tmp_path}")
    assert [len(pets.split(s)) for s in SPLITS] == [14, 2, 4]
    assert pets.classes == ("cat", "dog")
    assert pets.shape == (1, 4, 5)
    assert np.allclose(pets.train.x, 0.2)
    assert sorted(pets.test.y) == [0, 0, 1, 1]


def test_subfolders_are_the_splits(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        write_folder(tmp_path / part, {"a": count, "b": count}, mode="RGB")
    pets = load(f"folder:{tmp_path}")
    assert [len(pets.split(s)) for s in SPLITS] == [12, 4, 6]
    assert pets.shape == (3, 4, 5)
    assert np.allclose(pets.train.x[0, :, 0, 0], [0.2, 0, 1])


def test_without_val_a_tenth_of_train_is_held_out(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 10, "b": 10})
    write_folder(tmp_path / "test", {"a": 3, "b": 3})
    assert [len(load(f"folder:{tmp_path}").split(s)) for s in SPLITS] == [18, 2, 6]


def test_one_coloured_image_makes_all_of_them_coloured(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 9})
    write_image(tmp_path / "b" / "last.png", mode="RGB")
    assert load(f"folder:{tmp_path}").shape == (3, 4, 5)


def test_sizes_that_disagree_are_refused_unless_a_shape_is_given(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 10})
    write_image(tmp_path / "b" / "wide.png", size=(9, 4))
    with pytest.raises(DataError, match=r"wide\.png: it is 9 x 4 pixels, .* is 5 x 4"):
        load(f"folder:{tmp_path}")
    assert load(f"folder:{tmp_path}", shape=(3, 8, 6)).shape == (3, 8, 6)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="no class folders with images; put the images"):
        load(f"folder:{tmp_path}")


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        load(f"folder:{tmp_path / 'nowhere'}")


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 10})
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"class folder .*dog: it holds no images"):
        load(f"folder:{tmp_path}")


def test_a_test_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 10})
    write_folder(tmp_path / "test", {"a": 3, "b": 3})
    with pytest.raises(DataError, match="training has no class of this name; choose from a"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("keep", [0, 40])
def test_a_truncated_image_is_named(tmp_path: Path, keep: int) -> None:
    write_folder(tmp_path, {"a": 10, "b": 10})
    broken = tmp_path / "a" / "003.png"
    broken.write_bytes(broken.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"003\.png: cannot be read"):
        load(f"folder:{tmp_path}")


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10})
    Image.fromarray(np.zeros((4, 5), dtype=np.uint16)).save(tmp_path / "a" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: pixels of mode I;16 are not 8 bits"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("names", [("train", "val"), ("training", "testing"), ("Train", "Test")])
def test_folders_that_are_called_like_splits_are_no_classes(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for part in names:
        write_folder(tmp_path / part, {"a": 6, "b": 6})
    with pytest.raises(DataError, match=r"it has \w+ and \w+, but no .*test; call its splits"):
        load(f"folder:{tmp_path}")


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    write_folder(tmp_path, {"bus": 6, "train": 6})
    assert load(f"folder:{tmp_path}").classes == ("bus", "train")


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        write_folder(tmp_path / part, {"a": 6, "b": 6})
    write_image(tmp_path / "test" / "stray.png")
    for i in range(10):
        (tmp_path / "train" / "a" / f"{i}.gif").touch()
    (tmp_path / "train" / "a" / ".DS_Store").touch()
    with pytest.warns(UserWarning, match="left out") as told:
        load(f"folder:{tmp_path}")
    assert [str(w.message).removeprefix(f"folder {tmp_path}") for w in told] == [
        ": the folder valid is none of train, val, test; left out",
        "/train: 10 files are no images that are read (.gif); left out",
        "/test: 1 image is in no class folder; left out",
    ]


@pytest.mark.parametrize("shape", [[1, 8, 8], [3, 4, 4]])
def test_images_of_a_folder_are_brought_to_the_shape_of_the_network(
    tmp_path: Path, shape: list[int]
) -> None:
    write_folder(tmp_path, {"a": 10, "b": 10}, mode="RGB")
    write_image(tmp_path / "b" / "wide.png", size=(9, 4))
    found = load_fitted(f"folder:{tmp_path}", None, spec_of(shape, 2))
    assert found.shape == tuple(shape)
    with pytest.raises(DataError, match=r"take a network whose input is \[channels, height, width"):
        load_fitted(f"folder:{tmp_path}", None, spec_of([60], 2))

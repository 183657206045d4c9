"""Claims about folders of images: splits, classes, sizes, and what is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from ep_neuro.data import image_folder
from ep_neuro.data.datasets import SPLITS, identity, load, load_fitted, noted_resize
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


@pytest.mark.parametrize("name", ["val", "valid"])
def test_the_validation_split_has_either_name(tmp_path: Path, name: str) -> None:
    for part, count in (("train", 10), (name, 2), ("test", 3)):
        write_folder(tmp_path / part, {"a": count, "b": count})
    assert [len(load(f"folder:{tmp_path}").split(s)) for s in SPLITS] == [20, 4, 6]


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


@pytest.mark.parametrize("mode", ["I", "F"])
def test_images_of_32_bits_are_refused(tmp_path: Path, mode: str) -> None:
    write_folder(tmp_path, {"a": 10})
    Image.new(mode, (5, 4)).save(tmp_path / "a" / "deep.tif")
    with pytest.raises(DataError, match=rf"deep\.tif: pixels of mode {mode} are neither 8 nor 16"):
        load(f"folder:{tmp_path}")


@given(st.integers(0, 2**32 - 1), st.sampled_from(["png", "tif", "pgm"]))
@settings(max_examples=10)
def test_an_image_of_16_bits_is_the_same_in_8_to_one_step(seed: int, ending: str) -> None:
    deep = np.random.default_rng(seed).integers(0, 2**16, (4, 5), dtype=np.uint16)
    deep[0, :2] = 0, 2**16 - 1
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), {"a": 10})
        Image.fromarray(deep).save(f"{folder}/a/0.{ending}")
        x, _ = image_folder.read([Path(folder)])[0][0]
    found = x[0, 0].astype(float) / 255
    assert np.abs(found - deep / (2**16 - 1)).max() <= 1 / 255
    assert (found[0, 0], found[0, 1]) == (0, 1)


@given(st.integers(1, 8), st.sampled_from(["png", "jpg", "webp", "tif"]), st.booleans())
@settings(max_examples=20)
def test_an_image_that_says_how_it_lies_is_read_upright(
    orientation: int, ending: str, given_shape: bool
) -> None:
    upright = Image.fromarray(np.arange(0, 240, 12, dtype=np.uint8).reshape(4, 5))
    lying = upright
    if orientation != 1:
        back = {6: 8, 8: 6}.get(orientation, orientation)
        lying = upright.transpose(image_folder._TURNS[back])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # Pillow itself sets a TIFF upright; of an uncompressed one whose sides swap it reads noise.
    options: dict[str, Any] = {"webp": {"lossless": True}, "tif": {"compression": "tiff_lzw"}}
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), {"a": 10})
        lying.save(f"{folder}/a/0.{ending}", exif=exif, **options.get(ending, {}))
        shape = (1, 4, 5) if given_shape else None
        x, _ = image_folder.read([Path(folder)], shape)[0][0]
    wrong = np.abs(x[0].mean(0) - np.asarray(upright, dtype=float)).max()
    assert wrong <= (12 if ending == "jpg" else 1)


def test_exif_that_cannot_be_read_leaves_an_image_as_it_lies(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10})
    write_image(tmp_path / "a" / "000.png", value=7)
    for number, exif in enumerate((b"Exif\x00\x00nonsense", b"Exif\x00\x00II*\x00", b"\x00")):
        Image.new("L", (5, 4), 7).save(tmp_path / "a" / f"00{number}.png", exif=exif)
    assert load(f"folder:{tmp_path}").shape == (1, 4, 5)


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
    for part in ("train", "val", "valid", "test"):
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


def test_a_resized_folder_of_mixed_sizes_is_known_by_its_size(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 10})
    write_image(tmp_path / "b" / "wide.png", size=(9, 4))
    with pytest.raises(DataError, match=r"resize: \[4, 5\] \(height, width\), or take a network"):
        load(f"folder:{tmp_path}")
    found = load_fitted(f"folder:{tmp_path}", None, spec_of([48], 2), (8, 6))
    notes = identity(found)
    assert noted_resize(notes) == (8, 6)
    again = load(f"folder:{tmp_path}", resize=noted_resize(notes))
    assert again.shape == (1, 8, 6)
    assert again.digest == found.digest


@pytest.mark.parametrize("note", [None, 3, [8, 6], "8x6", "0 6", "8 6 1", "9" * 99 + " 1"])
def test_a_note_that_is_no_size_resizes_nothing(note: object) -> None:
    assert noted_resize({"data.resize": note}) is None

"""Claims about npz files of packed JPEG images: decoded once, kept as bytes, refused if damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ep_neuro.data import packed_images
from ep_neuro.data.datasets import load
from ep_neuro.errors import DataError


def jpeg(value: int, size: int = 8, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size), value if mode == "L" else (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def packed(split: str, files: list[bytes], labels: list[int]) -> dict[str, np.ndarray]:
    return {
        f"{split}_jpeg": np.frombuffer(b"".join(files), np.uint8),
        f"{split}_offsets": np.cumsum([0, *map(len, files)]),
        f"{split}_labels": np.array(labels, np.uint8),
    }


def arrays(mode: str = "RGB") -> dict[str, np.ndarray]:
    """Twenty training and four test images whose first channel tells their number."""
    train = packed(
        "train", [jpeg(10 * i, mode=mode) for i in range(20)], [i % 2 for i in range(20)]
    )
    test = packed("test", [jpeg(250, mode=mode)] * 4, [0, 1, 0, 1])
    return {**train, **test, "classes": np.array(["cat", "dog"])}


def save(path: Path, **changes: np.ndarray) -> str:
    np.savez(path / "a.npz", **{**arrays(), **changes})
    return f"npz:{path / 'a.npz'}"


def test_packed_images_are_decoded_in_order_and_kept_as_bytes(tmp_path: Path) -> None:
    found = load(save(tmp_path))
    assert found.classes == ("cat", "dog")
    assert [len(s) for s in (found.train, found.val, found.test)] == [18, 2, 4]
    assert found.shape == (3, 8, 8)
    assert found.train.pixels.dtype == np.uint8
    red = np.concatenate([found.train.pixels, found.val.pixels])[:, 0, 0, 0]
    labels = np.concatenate([found.train.y, found.val.y])
    order = np.argsort(red)
    assert np.abs(red[order].astype(int) - 10 * np.arange(20)).max() <= 3
    assert np.array_equal(labels[order], np.arange(20) % 2)
    assert np.abs(found.test.x[:, 0] - 250 / 255).max() < 0.02


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays("L"))
    assert load(f"npz:{tmp_path / 'a.npz'}").shape == (1, 8, 8)


def test_a_validation_set_of_its_own_is_used(tmp_path: Path) -> None:
    val = packed("val", [jpeg(0)] * 3, [0, 1, 1])
    found = load(save(tmp_path, **val))
    assert [len(s) for s in (found.train, found.val, found.test)] == [20, 3, 4]


def test_a_file_is_decoded_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = packed_images._decoded

    def watched(where: str, index: int, data: bytes) -> np.ndarray:
        decoded.append(index)
        return decode(where, index, data)

    monkeypatch.setattr(packed_images, "_decoded", watched)
    name = save(tmp_path)
    load(name)
    load(name)
    assert len(decoded) == 24
    save(tmp_path, **packed("test", [jpeg(1)], [0]))
    assert len(load(name).test) == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train_offsets": np.arange(3)}, "20 labels, 3 offsets"),
        ({"train_labels": np.zeros(19, np.uint8)}, "19 labels, 21 offsets"),
        (packed("test", [jpeg(1)[:40]], [0]), "image 0 cannot be decoded"),
        (packed("test", [b"GIF89a"], [0]), "image 0 cannot be decoded"),
        (packed("test", [jpeg(1), jpeg(1, size=9)], [0, 1]), "images have the shapes"),
        (packed("test", [jpeg(1)], [7]), "labels 7 to 7, but 2 classes"),
        ({"train_labels": np.zeros(20)}, "20 labels, 21 offsets"),
        ({"train_offsets": np.array(3)}, "20 labels, 1 offsets"),
        ({"train_offsets": np.zeros(21, int)}, "20 labels, 21 offsets"),
        ({"classes": np.array("cat")}, "classes is <U3 []"),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(DataError) as caught:
        load(save(tmp_path, **changes))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["train_offsets", "train_labels", "test_jpeg", "test_labels"])
def test_a_missing_array_is_named(tmp_path: Path, key: str) -> None:
    kept = {k: v for k, v in arrays().items() if k != key}
    np.savez(tmp_path / "a.npz", **kept)
    with pytest.raises(DataError, match=f"no array '{key}'"):
        load(f"npz:{tmp_path / 'a.npz'}")

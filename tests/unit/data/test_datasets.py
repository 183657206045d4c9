"""Claims about the data sets: fixed splits, pixels in 0 to 1, one-line errors."""

from __future__ import annotations

import hashlib
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from ep_neuro.data import datasets
from ep_neuro.data.datasets import (
    SPLITS,
    Split,
    check_fits,
    fitted,
    identity,
    load,
    parse,
)
from ep_neuro.data.splitting import split_indices
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import DataError
from tests.helpers.forked import holds, without


def spec_of(shape: list[int], classes: int) -> NetworkSpec:
    return NetworkSpec.from_dict(
        {
            "name": "tiny",
            "input": {"shape": shape},
            "populations": [{"name": "out", "shape": [classes]}],
            "couplings": [{"pre": "input", "post": "out"}],
        }
    )


def write_idx(path: Path, array: np.ndarray, cut: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    body = header + array.astype(np.uint8).tobytes()
    path.write_bytes(body[: len(body) - cut])


def write_mnist(root: Path, folder: str = "MNIST", cut: int = 0) -> np.ndarray:
    """An idx set of 40 training and 7 test images; return the training images."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    raw = root / folder / "raw"
    write_idx(raw / "train-images-idx3-ubyte", images, cut)
    write_idx(raw / "train-labels-idx1-ubyte", np.arange(40) % 10)
    write_idx(raw / "t10k-images-idx3-ubyte", images[:7])
    write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(7))
    return images


# --- digits ------------------------------------------------------------------------------------


def test_digits_split_into_1257_180_and_360() -> None:
    digits = load("digits")
    assert [len(digits.split(s)) for s in SPLITS] == [1257, 180, 360]
    assert digits.shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")


def test_the_digits_split_never_changes() -> None:
    digits, sha = load("digits"), hashlib.sha256()
    for s in SPLITS:
        sha.update(digits.split(s).x.astype("<f4").tobytes())
        sha.update(digits.split(s).y.astype("<i8").tobytes())
    assert sha.hexdigest() == "06986a5e2c3b32344ee38110ac4789285120e478f4019f66db77e4ca9209d4db"


def test_digits_are_whole_sixteenths() -> None:
    x = load("digits").train.x
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (0, 1)
    assert np.array_equal(x * 16, np.round(x * 16))


def test_digits_need_no_torchvision() -> None:
    def load_them() -> None:
        without("ep_neuro", "torchvision")
        sys.modules["torchvision"] = None  # type: ignore[assignment]
        import ep_neuro

        assert len(ep_neuro.data.load("digits").train) == 1257

    assert holds(load_them)


# --- splitting ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 2**32), st.data())
def test_a_split_has_exact_sizes_and_loses_nothing(
    labels: list[int], seed: int, draw: st.DataObject
) -> None:
    test = draw.draw(st.integers(0, len(labels)))
    val = draw.draw(st.integers(0, len(labels) - test))
    parts = split_indices(np.array(labels), val, test, seed)
    assert [len(p) for p in parts] == [len(labels) - val - test, val, test]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))


@given(st.lists(st.integers(0, 4), min_size=10, max_size=200))
def test_each_class_has_its_share_of_the_held_out_samples(labels: list[int]) -> None:
    y = np.array(labels)
    count = len(y) // 5
    _, _, test = split_indices(y, 0, count)
    for c in np.unique(y):
        share = (y == c).sum() * count / len(y)
        assert abs((y[test] == c).sum() - share) <= 1


def test_another_seed_splits_otherwise() -> None:
    y = np.zeros(100, dtype=np.int64)
    first, second = (split_indices(y, 10, 20, seed)[2] for seed in (0, 1))
    assert set(first) != set(second)


def test_head_takes_the_first_samples() -> None:
    train = load("digits").train
    assert np.array_equal(train.head(3).x, train.x[:3])
    assert len(train.head(None)) == len(train)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits", ("digits", None)),
        ("digits:test", ("digits", "test")),
        ("folder:/a/b", ("folder:/a/b", None)),
        ("folder:/a:b:val", ("folder:/a:b", "val")),
        ("npz:x.npz:train", ("npz:x.npz", "train")),
    ],
)
def test_a_name_may_end_in_a_split(text: str, expected: tuple[str, str | None]) -> None:
    assert parse(text) == expected


def test_a_wrong_split_is_refused() -> None:
    with pytest.raises(DataError, match="'tset' is not a split; choose from train, val, test"):
        parse("digits:tset")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("fasion-mnist", "did you mean 'fashion-mnist'?"),
        ("foldr:/tmp", "did you mean 'folder:PATH'?"),
        ("imagenet", "choose from digits, mnist"),
        ("folder:", "did you mean 'folder:PATH'?"),
    ],
)
def test_an_unknown_name_meets_the_nearest_one(name: str, remedy: str) -> None:
    with pytest.raises(DataError, match=re.escape(remedy)):
        load(name)


# --- public files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_idx_files_are_read_and_a_tenth_is_held_out(tmp_path: Path, name: str, folder: str) -> None:
    images = write_mnist(tmp_path, folder)
    mnist = load(name, tmp_path, download=False)
    assert [len(mnist.split(s)) for s in SPLITS] == [36, 4, 7]
    assert mnist.shape == (1, 28, 28)
    assert np.array_equal(mnist.test.y, np.arange(7))
    assert np.allclose(mnist.test.x[:, 0] * 255, images[:7], atol=1e-4)
    held = {x.tobytes() for x in mnist.val.x}
    assert held.isdisjoint(x.tobytes() for x in mnist.train.x)


def test_mnist_names_its_classes_by_digit(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    assert load("mnist", tmp_path, download=False).classes == tuple("0123456789")


def test_a_truncated_idx_file_is_damaged(tmp_path: Path) -> None:
    write_mnist(tmp_path, cut=100)
    with pytest.raises(DataError, match=r"data 'mnist': its files in .* are damaged"):
        load("mnist", tmp_path, download=False)


def test_an_empty_idx_file_is_damaged(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        load("mnist", tmp_path, download=False)


def test_more_images_than_labels_are_damaged(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.arange(39) % 10)
    with pytest.raises(DataError, match="40 images, 39 labels"):
        load("mnist", tmp_path, download=False)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_absent_files_are_not_fetched_without_leave(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="allow the download, or name another data root"):
        load(name, tmp_path, download=False)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_failed_download_is_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("socket.create_connection", refuse)
    with pytest.raises(DataError, match=r"the download failed .*no route to host") as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)


# --- fitting a network -------------------------------------------------------------------------


def test_digits_fit_a_network_of_their_shape_and_a_flat_one() -> None:
    digits = load("digits")
    for shape in ([1, 8, 8], [64]):
        spec = spec_of(shape, 10)
        check_fits(digits, spec)
        assert fitted(digits, spec).test.x.shape == (360, *shape)


@pytest.mark.parametrize(
    ("shape", "classes", "problem"),
    [
        ([1, 28, 28], 10, "samples are [1, 8, 8], network 'tiny' takes [1, 28, 28]"),
        ([63], 10, "samples are [1, 8, 8], network 'tiny' takes [63]"),
        ([8, 1, 8], 10, "takes [8, 1, 8]"),
        ([64], 9, "10 classes, network 'tiny' has 9 outputs"),
    ],
)
def test_a_network_of_another_shape_is_refused(
    shape: list[int], classes: int, problem: str
) -> None:
    with pytest.raises(DataError) as caught:
        check_fits(load("digits"), spec_of(shape, classes))
    assert problem in str(caught.value)


def test_the_default_root_is_not_the_users_in_tests() -> None:
    assert "~" not in str(datasets.DEFAULT_ROOT)


# --- identity ---------------------------------------------------------------------------------


def test_a_data_set_bears_the_name_that_gives_it_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 4)), y=np.arange(20) % 3)
    monkeypatch.chdir(tmp_path)
    found = load("npz:a.npz")
    assert found.name == f"npz:{tmp_path / 'a.npz'}"
    monkeypatch.chdir("/")
    assert identity(load(found.name)) == identity(found)


def test_data_are_known_by_their_samples_and_labels() -> None:
    digits = load("digits")
    spec = spec_of([64], 10)
    assert identity(digits)["data"] == "digits"
    assert fitted(digits, spec).digest == load("digits").digest == digits.digest
    shuffled = Split(digits.test.pixels, digits.test.y[::-1])
    assert replace(digits, test=shuffled).digest != digits.digest
    assert replace(digits, test=digits.val, val=digits.test).digest != digits.digest


def test_data_in_memory_have_no_name_to_load_them_by() -> None:
    assert identity(replace(load("digits"), name="mine")).keys() == {"data.sha256"}


@pytest.mark.parametrize("name", ["npz:~/x.npz", "folder:~/x", "mnist"])
def test_without_a_home_the_tilde_is_refused_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(DataError, match=f"data '{name}': there is no home directory .*; set HOME"):
        load(name)


# --- one sample, or many -----------------------------------------------------------------------


def bytes_and_numbers() -> list[Split]:
    """The same seven samples as bytes and as numbers."""
    pixels = np.arange(7 * 12, dtype=np.uint8).reshape(7, 1, 3, 4)
    y = np.array([4, 0, 1, 2, 3, 0, 1])
    return [Split(pixels, y), Split(pixels.astype(np.float32) / np.float32(255), y)]


@pytest.mark.parametrize("split", bytes_and_numbers(), ids=["bytes", "numbers"])
def test_a_data_loader_takes_a_split_by_samples_or_by_batches(split: Split) -> None:
    by_sample = DataLoader(split, batch_size=3)  # type: ignore[arg-type]
    batches = BatchSampler(SequentialSampler(split), 3, drop_last=False)
    by_batch = DataLoader(split, sampler=batches, batch_size=None)  # type: ignore[arg-type]
    for loader in (by_sample, by_batch):
        found = list(loader)
        assert [len(y) for _, y in found] == [3, 3, 1]
        x, y = (torch.cat(parts) for parts in zip(*found, strict=True))
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert np.array_equal(x, split.x)
        assert np.array_equal(y, split.y)


@pytest.mark.parametrize("split", bytes_and_numbers(), ids=["bytes", "numbers"])
def test_samples_of_a_split_are_copies(split: Split) -> None:
    x, y = split[2]
    assert (tuple(x.shape), y, type(y)) == ((1, 3, 4), 1, int)
    assert np.array_equal(split[-5][0], x)
    some = [
        split[1:4],
        split[[1, 2, 3]],
        split[np.array([1, 2, 3])],
        split[torch.tensor([1, 2, 3])],
    ]
    for images, labels in some:
        assert torch.equal(images[1], x)
        assert labels.tolist() == [0, 1, 2]
        images.zero_()
    assert np.array_equal(split[2][0], x)
    assert len([label for _, label in split]) == 7  # type: ignore[attr-defined]

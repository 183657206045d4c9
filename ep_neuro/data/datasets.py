"""Data sets as arrays: digits, MNIST and the like, folders of images or events, and npz files."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, overload

import numpy as np

from ep_neuro.data import (
    class_folders,
    digits_file,
    event_recordings,
    image_folder,
    npz_file,
    torchvision_datasets,
)
from ep_neuro.data.npz_file import ALL
from ep_neuro.data.packed_images import Pixels
from ep_neuro.data.splitting import split_indices
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

DEFAULT_ROOT = Path("~/.cache/ep-neuro")
"""Where downloaded files lie unless a data root is given."""

LOCAL = ("folder", "npz", *event_recordings.RULES)
"""Kinds of data that are a place on disk."""

NAMES = ("digits", *torchvision_datasets.SOURCES, *(f"{kind}:PATH" for kind in LOCAL))
"""What `load` takes."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their labels.

    Attributes
    ----------
    pixels : ndarray of uint8 or float32, (N, channels, height, width)
        As stored: bytes 0 to 255, or numbers 0 to 1. Bytes take a quarter of the memory.
    y : ndarray of int64, (N,)
        Index of the class.
    """

    pixels: np.ndarray
    y: np.ndarray

    @property
    def x(self) -> np.ndarray:
        """Raw pixels, 0 to 1, float32; bytes are converted anew at each access."""
        return _to_unit(self.pixels)

    def __len__(self) -> int:
        return len(self.y)

    @overload
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]: ...

    def __getitem__(self, index: Any) -> tuple[Tensor, Any]:
        """Copies of the pixels, 0 to 1, float32, and of the label at `index`: what a loader takes.

        One sample and its label as a number; or those of a slice or of several indices, (N, ...)
        and (N,) of int64.
        """
        import torch  # here: who reads arrays shall not wait for it

        x, y = torch.tensor(_to_unit(self.pixels[index])), self.y[index]
        return x, int(y) if y.ndim == 0 else torch.tensor(y)

    def at(self, index: slice | np.ndarray) -> Split:
        """The samples at `index`, or where it is true, as they are stored."""
        return Split(self.pixels[index], self.y[index])

    def head(self, count: int | None) -> Split:
        """The first `count` samples; all of them if None."""
        return self.at(slice(count))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set in three disjoint splits; `classes` names the labels in order.

    What `load` gives bears the name that gives it again, from any working directory, and the
    (height, width) to which it was asked to `resize` the images of a folder.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    resize: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train.pixels.shape[1:]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all samples, as stored, and of their labels; no matter in which shape."""
        sha = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            sha.update(f"{split.pixels.dtype.str} {len(split)}".encode())
            for start in range(0, len(split), 4096):
                part = slice(start, start + 4096)
                sha.update(np.ascontiguousarray(split.pixels[part]).data)
                sha.update(np.ascontiguousarray(split.y[part]).data)
        return sha.hexdigest()

    def split(self, name: SplitName) -> Split:
        """The split called `name`."""
        return cast(Split, getattr(self, name))

    def each(self, change: Callable[[Split], Split]) -> Dataset:
        """The same with `change` done to every split."""
        train, val, test = (change(self.split(name)) for name in SPLITS)
        return replace(self, train=train, val=val, test=test)


# --- names -------------------------------------------------------------------------------------


def parse(text: str) -> tuple[str, SplitName | None]:
    """Take ``NAME[:split]`` apart, e.g. ``"digits:test"`` or ``"folder:/tmp/x:val"``.

    Raises
    ------
    DataError
        If what follows the name of a built-in set is not a split.
    """
    head, colon, last = text.rpartition(":")
    if colon and last in SPLITS:
        return head, last
    # The path of a folder may hold a colon itself; the name of a built-in set may not.
    if colon and text.partition(":")[0] not in LOCAL:
        raise DataError(
            f"data '{text}'", f"'{last}' is not a split", f"choose from {', '.join(SPLITS)}"
        )
    return text, None


def located(name: str) -> str:
    """`name` with the path of a folder or file made absolute."""
    kind, _, path = name.partition(":")
    if kind not in LOCAL or not path:
        return name
    return f"{kind}:{os.path.abspath(_expanded(name, path))}"


def identity(dataset: Dataset) -> dict[str, str]:
    """Notes by which a data set is known again.

    ``data``, unless in memory, ``data.resize``, if images were resized, and ``data.sha256``.
    """
    kind, _, path = dataset.name.partition(":")
    named = bool(path) if kind in LOCAL else dataset.name in NAMES
    size = {"data.resize": "{} {}".format(*dataset.resize)} if dataset.resize else {}
    return {**({"data": dataset.name} if named else {}), **size, "data.sha256": dataset.digest}


def noted_resize(notes: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (height, width) that `identity` noted, if any."""
    found = re.fullmatch(r"([1-9]\d{0,4}) ([1-9]\d{0,4})", str(notes.get("data.resize")))
    return (int(found[1]), int(found[2])) if found else None


def _expanded(name: str, path: str | Path) -> Path:
    """`path` with a leading ~ replaced."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DataError(
            f"data '{name}'",
            f"there is no home directory for {path}",
            "set HOME, or give the path in full (of public data sets: as the data root)",
        ) from None


def load(
    name: str,
    root: str | Path | None = None,
    download: bool = True,
    shape: Sequence[int] | None = None,
    resize: tuple[int, int] | None = None,
) -> Dataset:
    """Load a data set with its fixed splits.

    Parameters
    ----------
    name : str
        One of `NAMES`, without a split (see `parse`).
    root : path, optional
        Where the public files of MNIST, Fashion-MNIST and CIFAR lie, in torchvision's layout;
        `DEFAULT_ROOT` by default.
    download : bool
        Whether absent files may be fetched.
    shape : (channels, height, width), optional
        Of a folder only: convert and resize every image to this. Without it, sizes must agree. Of
        events, the size of a frame, which without it is as far as they reach.
    resize : (height, width), optional
        Of a folder only, where no `shape` is given: resize every image to this.

    Notes
    -----
    The 1797 digits are split into 1257, 180 and 360; MNIST and the like keep their published test
    set, and a tenth of train, at most 5000, is held out for validation; one folder or npz file is
    split 70/10/20. All of these are stratified, and the same on every machine.

    Raises
    ------
    DataError
        If the name is unknown, or files are missing, damaged or of different sizes.
    """
    kind, _, path = name.partition(":")
    if kind == "digits" and not path:
        return _checked(name, digits_file.splits(), [str(c) for c in range(10)])
    if kind in torchvision_datasets.SOURCES and not path:
        place = _expanded(name, root or DEFAULT_ROOT)
        return _split_train(name, *torchvision_datasets.read(name, place, download))
    if kind in LOCAL and path:
        place = _expanded(name, path)
        if kind == "npz":
            found = _given(name, *npz_file.read(name, place))
        else:
            found = _folder(name, place, shape, resize)
        return replace(found, name=located(name))
    kinds = {name.partition(":")[0]: name for name in NAMES}
    near = difflib.get_close_matches(kind, kinds, n=1)
    remedy = f"did you mean '{kinds[near[0]]}'?" if near else f"choose from {', '.join(NAMES)}"
    raise DataError(f"data '{name}'", "there is no data set of this name", remedy)


# --- fitting a network -------------------------------------------------------------------------


def check_fits(dataset: Dataset, spec: NetworkSpec) -> None:
    """Raise `DataError` unless `spec` can take the samples and has an output for each class.

    A network with a flat input takes images of as many pixels.
    """
    subject = f"data '{dataset.name}'"
    takes, has = tuple(spec.input.shape), tuple(dataset.shape)
    if takes != has and not (len(takes) == 1 and takes[0] == math.prod(has)):
        problem = f"samples are {list(has)}, network '{spec.name}' takes {list(takes)}"
        remedy = f"give the network's input the shape {list(has)}, or choose other data"
        raise DataError(subject, problem, CHANNELS_FIRST if channels_last(has, takes) else remedy)
    count = len(dataset.classes)
    if spec.classes != count:
        first = min(int(dataset.split(name).y.min()) for name in SPLITS)
        if first > 0 and spec.classes == count - first:
            missing = "class 0 has" if first == 1 else f"classes 0 to {first - 1} have"
            problem = f"labels {first} to {count - 1}: {missing} no samples"
            raise DataError(subject, problem, "count the classes from 0")
        raise DataError(
            subject,
            f"{count} classes, network '{spec.name}' has {spec.classes} outputs",
            f"give population '{spec.output}' {count} neurons, or choose other data",
        )


CHANNELS_FIRST = (
    "channels come first: store x.transpose(0, 3, 1, 2), or in an npz file layout='NHWC' beside x"
)


def channels_last(has: Sequence[int], takes: Sequence[int]) -> bool:
    """Whether samples of shape `has` are (height, width, channels) of what a network `takes`."""
    return len(has) == 3 and tuple(takes) != tuple(has) and (has[2], *has[:2]) == tuple(takes)


def fitted(dataset: Dataset, spec: NetworkSpec) -> Dataset:
    """`dataset` with samples in exactly the input shape of `spec`, flattened if that is flat."""
    check_fits(dataset, spec)
    shape = spec.input.shape
    return dataset.each(lambda s: Split(s.pixels.reshape(len(s), *shape), s.y))


def image_shape(pixels: Sequence[int]) -> Sequence[int] | None:
    """The shape to which images of a folder are brought for a network that takes `pixels`."""
    return pixels if len(pixels) == 3 else None


def load_fitted(
    name: str,
    root: str | Path | None,
    spec: NetworkSpec,
    resize: tuple[int, int] | None = None,
) -> Dataset:
    """The data set called `name` as `spec` takes it; images of a folder are resized to that.

    If `spec` is flat, to `resize`, (height, width), if it is given.
    """
    return fitted(load(name, root, shape=image_shape(spec.input.shape), resize=resize), spec)


# --- splitting ---------------------------------------------------------------------------------


def _split_all(name: str, x: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> Dataset:
    """One set of samples, split 70/10/20."""
    n = len(y)
    val, test = round(n / 10), round(n / 5)
    if min(val, test) < 1:
        raise DataError(f"data '{name}'", f"{n} samples are too few to split", "give at least 10")
    parts = split_indices(y, val, test)
    return _checked(name, [(x[i], y[i]) for i in parts], classes)


def _split_train(name: str, train: Pixels, test: Pixels, classes: Sequence[str]) -> Dataset:
    """A training and a test set; validation is held out of training."""
    x, y = train
    if len(y) < 10:
        raise DataError(
            f"data '{name}'",
            f"{len(y)} training samples are too few to hold some out",
            "give at least 10",
        )
    keep, val, _ = split_indices(y, min(5000, len(y) // 10), 0)
    return _checked(name, [(x[keep], y[keep]), (x[val], y[val]), test], classes)


def _checked(name: str, parts: Sequence[Pixels], classes: Sequence[str]) -> Dataset:
    """The data set of three (x, y), after a look at every value."""
    parts = [(x if x.dtype == np.uint8 else _to_unit(x), y) for x, y in parts]
    for split, (x, y) in zip(SPLITS, parts, strict=True):
        problem = None
        if not len(y):
            problem = "it is empty"
        elif x.shape[1:] != parts[0][0].shape[1:]:
            problem = f"samples are {list(x.shape[1:])}, in train {list(parts[0][0].shape[1:])}"
        elif y.min() < 0 or y.max() >= len(classes):
            problem = f"labels {y.min()} to {y.max()}, but {len(classes)} classes"
        elif x.dtype != np.uint8 and not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
            problem = f"pixels {x.min():g} to {x.max():g} are not all in 0 to 1"
        if problem:
            raise DataError(f"data '{name}:{split}'", problem, "correct the data")
    train, val, test = (Split(x, y.astype(np.int64)) for x, y in parts)
    return Dataset(name, train, val, test, tuple(classes))


def _to_unit(raw: np.ndarray) -> np.ndarray:
    """Pixels as float32; bytes become 0 to 1."""
    if raw.dtype == np.uint8:
        return raw.astype(np.float32) / np.float32(255)
    return raw.astype(np.float32, copy=False)


# --- sources -----------------------------------------------------------------------------------


def _given(name: str, parts: Mapping[str, Pixels], classes: Sequence[str]) -> Dataset:
    """Splits as they came; without val it is held out of train, and ALL is split."""
    if ALL in parts:
        return _split_all(name, *parts[ALL], classes)
    if "val" in parts:
        return _checked(name, [parts[split] for split in SPLITS], classes)
    return _split_train(name, parts["train"], parts["test"], classes)


def _folder(
    name: str, path: Path, shape: Sequence[int] | None, resize: tuple[int, int] | None
) -> Dataset:
    """Images, or recordings of events, in folders."""
    rule = name.partition(":")[0]
    events = rule in event_recordings.RULES
    kind = event_recordings.RECORDINGS if events else image_folder.IMAGES
    if not path.is_dir():
        raise DataError(
            f"data '{name}'", f"{path} is not a folder", f"give a folder of {kind.noun}s"
        )
    folders = class_folders.split_folders(path, kind)
    found = list(folders.values())
    if events:
        raw, classes = event_recordings.read(found, rule, shape)
    else:
        raw, classes = image_folder.read(found, shape, resize)
    parts = {ALL: raw[0]} if len(raw) == 1 else dict(zip(folders, raw, strict=True))
    return replace(_given(name, parts, classes), resize=None if events else resize)

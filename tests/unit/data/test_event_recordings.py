"""Claims about recordings of events: summed into frames that keep their number, or refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.data import event_recordings
from ep_neuro.data.datasets import SPLITS, identity, load, load_fitted, parse
from ep_neuro.errors import DataError
from tests.unit.data.test_datasets import spec_of

TONIC = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])


def recording(number: int, seed: int = 0, width: int = 6, height: int = 4) -> np.ndarray:
    """Events as tonic gives them; the corner is always among them."""
    rng = np.random.default_rng(seed)
    events = np.zeros(number, TONIC)
    events["x"], events["y"] = rng.integers(0, width, number), rng.integers(0, height, number)
    events["t"], events["p"] = np.arange(number), rng.integers(0, 2, number)
    events[:1] = (width - 1, height - 1, 0, True)
    return events


def write(root: Path, counts: dict[str, int], **options: Any) -> None:
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            np.save(root / name / f"{i:03}.npy", recording(30, i, **options))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_frames_keep_the_number_of_events_of_each_polarity(numbers: list[int], seed: int) -> None:
    every = [recording(n, seed + i) for i, n in enumerate(numbers)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").mkdir()
        for i, events in enumerate(every):
            np.save(f"{folder}/a/{i}.npy", events)
        (x, _), *_ = event_recordings.read([Path(folder)], "events-count")[0]
    assert x.shape == (len(every), 2, 4, 6)
    for frame, events in zip(x, every, strict=True):
        assert (
            frame.reshape(2, -1).sum(1).tolist() == np.bincount(events["p"], minlength=2).tolist()
        )
        assert frame[1, 3, 5] == (events[["x", "y", "p"]] == events[0][["x", "y", "p"]]).sum()


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.integers(1, 20))
@settings(max_examples=20)
def test_by_the_peak_a_recording_played_again_is_the_same(n: int, seed: int, times: int) -> None:
    once = recording(n, seed)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, events in (("a", once), ("b", np.tile(once, times))):
            (Path(folder) / name).mkdir()
            np.save(f"{folder}/{name}/0.npy", events)
        (x, _), *_ = event_recordings.read([Path(folder)], "events-peak")[0]
        found = list(x)
    assert np.array_equal(*found)
    assert found[0].max() == 255


def test_a_pixel_counts_255_events_at_most(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "0.npy", np.repeat(recording(1), 300))
    (x, _), *_ = event_recordings.read([tmp_path], "events-count")[0]
    assert x.max() == x.sum() == 255


@pytest.mark.parametrize("form", ["fields", "events", "signed", "bytes"])
def test_every_form_of_a_recording_is_the_same(tmp_path: Path, form: str) -> None:
    events = recording(50)
    fields: dict[str, np.ndarray] = {k: events[k] for k in "xytp"}
    if form == "signed":
        fields["p"] = np.where(events["p"], 1, -1)
    if form == "bytes":
        fields = {k: v.astype(np.uint8) for k, v in fields.items()}
    arrays = {"events": events} if form == "events" else fields
    for name in "ab":
        (tmp_path / name).mkdir()
    np.save(tmp_path / "a" / "0.npy", events)
    np.savez(tmp_path / "b" / "0.npz", **arrays)  # type: ignore[arg-type]
    (x, y), *_ = event_recordings.read([tmp_path], "events-count")[0]
    assert np.array_equal(x[0], x[1])
    assert y.tolist() == [0, 1]


@pytest.mark.parametrize("rule", event_recordings.RULES)
def test_a_folder_of_recordings_is_a_data_set(tmp_path: Path, rule: str) -> None:
    for part, count in (("train", 10), ("valid", 2), ("test", 3)):
        write(tmp_path / part, {"cat": count, "dog": count})
    found = load(f"{rule}:{tmp_path}")
    assert [len(found.split(s)) for s in SPLITS] == [20, 4, 6]
    assert (found.shape, found.classes) == ((2, 4, 6), ("cat", "dog"))
    assert identity(found)["data"] == f"{rule}:{tmp_path}"
    assert parse(f"{rule}:{tmp_path}:val") == (f"{rule}:{tmp_path}", "val")


def test_frames_have_the_size_that_the_network_takes(tmp_path: Path) -> None:
    write(tmp_path, {"a": 10, "b": 10})
    found = load_fitted(f"events-count:{tmp_path}", None, spec_of([2, 8, 9], 2))
    assert found.shape == (2, 8, 9)
    assert found.train.pixels.sum() == 30 * len(found.train)
    says = r"npy: x is up to 5, the network takes 5 of them, from 0; give the network's input"
    with pytest.raises(DataError, match=says):
        load_fitted(f"events-count:{tmp_path}", None, spec_of([2, 4, 5], 2))
    with pytest.raises(
        DataError, match=r"samples are \[2, 4, 6\], network 'tiny' takes \[1, 4, 6\]"
    ):
        load_fitted(f"events-count:{tmp_path}", None, spec_of([1, 4, 6], 2))


def changed(**fields: Any) -> dict[str, np.ndarray]:
    events = recording(5)
    return {**{k: events[k] for k in "xyp"}, **fields}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"x": np.zeros(3), "p": np.zeros(3)}, "have no 'y', but x, p; store a structured array"),
        ({"events": np.zeros(3)}, "have no 'x', but no fields; store"),
        (changed(x=np.zeros(5)), "x is float64 [5], y is int16 [5], p is bool [5]; give columns"),
        (changed(p=np.zeros(4, int)), "p is int64 [4]"),
        (changed(y=np.full(5, -1)), "y is -1 to -1, not in 0 to 65535; count columns and rows"),
        (changed(y=np.full(5, 2**63, np.uint64)), "not in 0 to 65535"),
        (changed(x=np.full(5, 65535), y=np.full(5, 65535)), "unpacks from"),
        (changed(x=np.array([{}] * 5)), "cannot be read"),
    ],
)
def test_bad_recordings_are_refused_by_name(
    tmp_path: Path, content: dict[str, np.ndarray], says: str
) -> None:
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "0.npz", **content)  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        event_recordings.read([tmp_path], "events-count")
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recording_without_events_is_an_empty_frame_and_a_cut_one_is_refused(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"a": 2})
    np.save(tmp_path / "a" / "000.npy", recording(0))
    for rule in event_recordings.RULES:
        (x, _), *_ = event_recordings.read([tmp_path], rule)[0]
        assert not x[0].any()
        assert x[1].any()
    cut = tmp_path / "a" / "001.npy"
    cut.write_bytes(cut.read_bytes()[:150])
    with pytest.raises(DataError, match=r"recording .*001\.npy: cannot be read"):
        event_recordings.read([tmp_path], "events-count")


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no class folders with recordings; put the recordings of"):
        load(f"events-count:{tmp_path}")
    with pytest.raises(DataError, match="is not a folder; give a folder of recordings"):
        load(f"events-peak:{tmp_path / 'nowhere'}")


# --- NIRData -----------------------------------------------------------------------------------


def write_nir(path: Path, *held: Any, node: str = "input") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    observables = {f"spikes{i}": data for i, data in enumerate(held)}
    nir.write_data(str(path), nir.NIRGraphData({node: nir.NIRNodeData(observables)}))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=20)
def test_events_and_a_grid_of_the_same_nir_data_are_the_same_frames(
    seed: int, samples: int, steps: int
) -> None:
    grid = nir.TimeGriddedData(np.random.default_rng(seed).random((samples, steps, 6)) < 0.4, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        write_nir(Path(folder) / "a" / "grid.nirdata", grid)
        write_nir(Path(folder) / "b" / "events.nirdata", grid.to_event(steps * 6))
        ((x, y),), classes = event_recordings.read([Path(folder)], "events-count", (1, 2, 3))
    assert (x.shape, classes) == ((2 * samples, 1, 2, 3), ["a", "b"])
    assert y.tolist() == [0] * samples + [1] * samples
    assert np.array_equal(x[:samples], x[samples:])
    assert np.array_equal(x[:samples].reshape(samples, 6), grid.data.sum(1))


def test_nir_data_are_data_of_a_network(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for name in "ab":
        write_nir(
            tmp_path / name / "all.nirdata", nir.TimeGriddedData(dice.random((10, 5, 24)) < 0.5, 1)
        )
    found = load_fitted(f"events-peak:{tmp_path}", None, spec_of([1, 4, 6], 2))
    assert found.shape == (1, 4, 6)
    assert len(found.train) + len(found.val) + len(found.test) == 20


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ([nir.TimeGriddedData(np.ones((2, 3, 5)), 1.0)], "it has 5 neurons, and a frame 6; give"),
        ([nir.TimeGriddedData(-np.ones((2, 3, 6)), 1.0)], "values are below 0 or not finite"),
        ([nir.EventData(np.array([[7]]), np.array([[0.0]]), 6, 1.0)], "events of neurons 7 to 7"),
        ([nir.EventData(np.array([[7]]), np.array([[0.0]]), 10**12, 1.0)], "unpacks from"),
        (
            [nir.TimeGriddedData(np.ones((2, 3, 6)), 1.0)] * 2,
            "NIRData with one observable of a node 'input'",
        ),
    ],
)
def test_other_nir_data_are_refused_by_name(tmp_path: Path, held: list[Any], says: str) -> None:
    write_nir(tmp_path / "a" / "0.nirdata", *held)
    with pytest.raises(DataError) as caught:
        event_recordings.read([tmp_path], "events-count", (1, 2, 3))
    assert says in str(caught.value)
    assert "0.nirdata" in str(caught.value)


@given(st.data())
@settings(max_examples=25)
def test_damaged_nir_data_are_refused_in_one_line(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a" / "0.nirdata"
        write_nir(path, nir.TimeGriddedData(np.ones((2, 3, 6), bool), 1.0))
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        for _ in range(data.draw(st.integers(1, 20))):
            if content:
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                    st.integers(0, 255)
                )
        path.write_bytes(content)
        told = ""
        try:
            ((x, _),), _ = event_recordings.read([Path(folder)], "events-count", (1, 2, 3))
        except DataError as error:
            told = str(error)
        else:
            assert x.shape[1:] == (1, 2, 3)
        assert "\n" not in told

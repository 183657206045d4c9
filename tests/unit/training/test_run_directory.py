"""Claims about run directories: nothing is replaced unasked, and one training writes at a time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import load_model
from ep_neuro.storage.atomic import is_free
from ep_neuro.training.loop import train
from ep_neuro.training.run_directory import check_run_place, claimed, clear, default_place
from targets.experiments.demo import _made_before
from tests.helpers.problems import interrupt_at
from tests.unit.training.test_loop import clusters, config


def content(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_not_replaced_unasked(tmp_path: Path) -> None:
    train(config(epochs=1), tmp_path / "run", dataset=clusters())
    before = content(tmp_path)
    with pytest.raises(ConfigError, match=r"holds a run already; go on with it \(--resume\)"):
        train(config(epochs=1, seed=1), tmp_path / "run", dataset=clusters())
    assert content(tmp_path) == before


def test_force_replaces_the_run_and_nothing_beside_it(tmp_path: Path) -> None:
    train(config(epochs=2), tmp_path, dataset=clusters())
    (tmp_path / "notes.txt").write_text("mine")
    result = train(config(epochs=1, seed=1), tmp_path, dataset=clusters(), force=True)
    assert load_model(tmp_path / "best").digest == result.model.digest
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("how", ["resume", "force"])
def test_a_directory_of_other_files_is_never_taken_for_a_run(tmp_path: Path, how: str) -> None:
    (tmp_path / "config.yaml").write_text("# my notes\nepochs: 1\n")
    before = content(tmp_path)
    with pytest.raises(ConfigError, match="other content"):
        train(config(epochs=1), tmp_path, dataset=clusters(), **{how: True})
    assert content(tmp_path) == before


def test_a_run_that_its_successor_starts_from_is_not_replaced_by_it(tmp_path: Path) -> None:
    train(config(epochs=1), tmp_path, dataset=clusters())
    for start in (tmp_path, tmp_path / "best"):
        with pytest.raises(ConfigError, match="is in the run directory"):
            train(config(start=str(start)), tmp_path, dataset=clusters(), force=True)


def test_a_run_that_was_stopped_at_once_is_a_run_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=1), tmp_path, dataset=clusters(), monitor=interrupt_at(1))
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config(epochs=1), tmp_path, dataset=clusters())
    assert len(train(config(epochs=1), tmp_path, dataset=clusters(), resume=True).history) == 1


def test_what_fails_before_the_first_step_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no colour"), claimed(tmp_path / "a" / "b"):
        raise ConfigError("blue", "is no colour", "take another")
    assert not list(tmp_path.iterdir())


def _train_meanwhile(place: Path, answer: multiprocessing.Queue[str]) -> None:
    try:
        with claimed(place, resume=True):
            answer.put("both train")
    except ConfigError as error:
        answer.put(str(error))


def test_a_second_training_is_kept_out_while_one_is_going_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[str] = context.Queue()
    with claimed(tmp_path / "run"):
        other = context.Process(target=_train_meanwhile, args=(tmp_path / "run", answer))
        other.start()
        said = answer.get(timeout=30)
        other.join()
    assert "another run is going on there; wait for its end" in said
    with claimed(tmp_path / "run"):
        pass


def test_a_run_without_a_place_gets_one_that_is_free(tmp_path: Path) -> None:
    wanted, second = tmp_path / "net-0", tmp_path / "net-0-2"
    assert default_place(wanted) == default_place(wanted, resume=True) == wanted
    train(config(epochs=1), wanted, dataset=clusters())
    assert default_place(wanted) == second
    assert default_place(wanted, force=True) == default_place(wanted, resume=True) == wanted
    train(config(epochs=1), second, dataset=clusters())
    assert default_place(wanted).name == "net-0-3"
    with pytest.raises(ConfigError, match=r"net-0, .*net-0-2; name one with --out"):
        default_place(wanted, resume=True)


def test_the_demo_replaces_only_what_a_demo_made(tmp_path: Path) -> None:
    train(config(epochs=1), tmp_path, dataset=clusters())
    assert _made_before(tmp_path, config(epochs=1))
    assert not _made_before(tmp_path, config(epochs=2))
    assert not _made_before(tmp_path / "nowhere", config())


def test_the_demo_begins_again_where_it_was_killed_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=1), tmp_path, dataset=clusters(), monitor=interrupt_at(1))
    assert not _made_before(tmp_path, config(epochs=2))
    (tmp_path / "config.yaml").unlink()
    assert _made_before(tmp_path, config(epochs=2))


def test_a_run_that_is_killed_while_it_replaces_another_is_still_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(epochs=1), tmp_path, dataset=clusters())

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ep_neuro.storage.atomic.shutil.rmtree", killed)
    while not is_free(tmp_path):
        check_run_place(tmp_path, force=True)
        with pytest.raises(KeyboardInterrupt):
            clear(tmp_path)

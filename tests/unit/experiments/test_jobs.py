"""Claims about studies as jobs: the same rows whoever computes them, kept and lost one by one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ep_neuro.data.datasets import load
from ep_neuro.errors import ConfigError, DataError, EPNeuroError, RunError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from targets.experiments.comparison.choices import Choice
from targets.experiments.comparison.compare import compare
from targets.experiments.comparison.sweep import Sweep
from targets.experiments.studies import workers as module
from targets.experiments.studies.jobs import MANIFEST, Job, Kept, Workers, run
from tests.helpers.study_jobs import NUMBERS, dying, dying_once, powers, starts

ROOT = Path(__file__).resolve().parents[3]
INPUTS = {"model": "a", "data": "b"}


def plain(rows: list[Any]) -> list[Any]:
    """Rows with lists for arrays, which compare."""
    return [some and [{**row, "all": row["all"].tolist()} for row in some] for some in rows]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The rows of all `NUMBERS`, computed here."""
    with pytest.warns(UserWarning, match="three is odd"):
        return plain(run(powers, tmp_path_factory.mktemp("here"), NUMBERS))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a Dask cluster of two workers, processes of this machine."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),  # 3 take longer
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster.scheduler_address


# --- what is kept -------------------------------------------------------------------------------


def test_a_second_call_runs_what_is_missing_and_says_how_much_is_not(
    tmp_path: Path, expected: list[Any]
) -> None:
    kept, said = Kept(tmp_path / "kept", "powers", INPUTS), list[str]()
    told: list[tuple[str, int]] = []
    run(powers, tmp_path, NUMBERS[1:3], kept=kept, log=said.append)
    assert said == []
    with pytest.warns(UserWarning, match="three is odd"):
        rows = run(
            *(powers, tmp_path, NUMBERS),
            kept=Kept(tmp_path / "kept", "powers", INPUTS),
            tell=lambda job, row: told.append((job.name, row["power"])),
            log=said.append,
        )
    assert plain(rows) == expected
    assert starts(tmp_path) == [1, 1, 1, 1]
    assert said == [f"2 of 4 jobs are in {tmp_path / 'kept'}, and do not run again"]
    assert sorted(told) == [(job.name, power) for job in NUMBERS for power in (2, 3)]


def test_rows_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    kept, job = Kept(tmp_path / "kept", "any", INPUTS), Job("one", {"n": 1})
    arrays = (np.eye(3)[:, ::2], np.array([True, False]), np.zeros((0, 2), np.int64))
    row = {"a": {"deep": [None, "text", 0.1, *arrays]}, "b": np.float64(1) / 3, "c": float("inf")}
    kept.save(job, [row])
    (found,) = kept.load(job) or ()
    np.testing.assert_equal(found, row)
    back = found["a"]["deep"][3:]
    assert [a.dtype for a in back] == [a.dtype for a in arrays]


def test_a_key_is_that_of_the_facts_in_any_order_and_of_nothing_else() -> None:
    key = Job("a", {"x": 1, "y": [2]}, payload=3).key
    assert Job("b", {"y": [2], "x": 1}).key == key
    assert Job("a", {"x": 1, "y": [3]}).key != key


@pytest.mark.parametrize(
    ("study", "inputs", "says"),
    [
        ("powers", {"model": "a", "data": "c"}, "holds jobs of other inputs (data differs)"),
        ("roots", INPUTS, "holds jobs of other inputs (study differs)"),
    ],
)
def test_jobs_of_other_inputs_are_refused_and_stay(
    study: str, inputs: dict[str, str], says: str, tmp_path: Path
) -> None:
    kept = Kept(tmp_path / "kept", "powers", INPUTS)
    run(powers, tmp_path, NUMBERS[:1], kept=kept)
    before = {path: path.read_bytes() for path in kept.folder.iterdir()}
    with pytest.raises(ConfigError) as error:
        Kept(kept.folder, study, inputs)
    assert says in str(error.value)
    assert {path: path.read_bytes() for path in kept.folder.iterdir()} == before


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ConfigError, match=f"no {MANIFEST} in it"):
        Kept(tmp_path, "powers", INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_a_job_whose_file_is_damaged_or_anothers_is_told_in_one_line(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", "powers", INPUTS)
    run(powers, tmp_path, NUMBERS[:2], kept=kept)
    first, second = (kept.folder / f"{job.key}.safetensors" for job in NUMBERS[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="holds another job; remove it, and the job runs again"):
        kept.load(NUMBERS[0])
    first.write_bytes(second.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        kept.load(NUMBERS[0])


# --- processes ----------------------------------------------------------------------------------


def test_two_processes_give_the_rows_of_one_and_a_killed_one_costs_its_job_alone(
    tmp_path: Path, expected: list[Any]
) -> None:
    with pytest.warns(UserWarning, match="three is odd"):
        rows = run(dying_once, tmp_path, NUMBERS, workers=Workers(jobs=2))
    assert plain(rows) == expected
    assert starts(tmp_path) == [1, 1, 2, 1]


@pytest.mark.filterwarnings("ignore:three is odd")
def test_a_job_that_always_kills_its_process_is_named_and_the_others_are_kept(
    tmp_path: Path, expected: list[Any]
) -> None:
    kept = Kept(tmp_path / "kept", "powers", INPUTS)
    with pytest.raises(RunError) as error:
        run(dying, tmp_path, NUMBERS, workers=Workers(jobs=2), kept=kept)
    assert "job 'number 2': killed every worker" in str(error.value)
    assert f"the others are in {kept.folder}" in str(error.value)
    assert starts(tmp_path) == [1, 1, 2, 1]
    assert plain(run(powers, tmp_path, NUMBERS, kept=kept)) == expected
    assert starts(tmp_path) == [1, 1, 3, 1]


def test_an_interrupt_stops_the_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.study_jobs", str(tmp_path)]
    study = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    files = [tmp_path / "pid0", tmp_path / "pid1"]
    while not all(file.exists() and file.read_text() for file in files):
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGINT)
    _, said = study.communicate(timeout=60)
    assert study.returncode == 130
    assert said == "error: interrupted; files written so far are whole\n"
    for file in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


# --- a cluster ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:three is odd")
def test_two_dask_workers_give_the_rows_of_one_process_and_a_killed_one_costs_its_job_alone(
    tmp_path: Path, expected: list[Any], address: str
) -> None:
    rows = run(dying_once, tmp_path, NUMBERS, workers=Workers(dask=address))
    assert plain(rows) == expected
    assert starts(tmp_path)[2] == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:three is odd")
def test_a_job_that_always_kills_its_dask_worker_is_named_and_the_others_are_kept(
    tmp_path: Path, expected: list[Any], address: str
) -> None:
    lost: list[str] = []
    rows = run(dying, tmp_path, NUMBERS, workers=Workers(dask=address), lost=lost)
    assert lost == ["number 2"]
    assert plain(rows) == [*expected[:2], None, expected[3]]


@pytest.mark.slow
def test_two_dask_workers_give_the_comparison_of_one_process(address: str) -> None:
    network, split = Network(zoo("digits_dense"), 0), load("digits").test.head(12)
    choices = [Choice("reference", code, 8) for code in ("graded", "sigma-delta", "spike")]
    one, two = (
        compare(
            *(network, split, choices),
            schedule=Schedule(sweeps=300),
            sweep=Sweep(steps=(2, 8)),
            layerwise=True,
            learning=True,
            workers=workers,
        )
        for workers in (None, Workers(dask=address))
    )
    assert len(one) == 7
    for here, there in zip(one, two, strict=True):
        timed = {"ms_per_sample": here.row.ms_per_sample}
        assert replace(there.row, **timed) == here.row
        assert there.cost == here.cost
        np.testing.assert_array_equal(there.predictions, here.predictions)
        assert there.layers() == here.layers()


def test_no_cluster_at_an_address_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.3)
    for place in ("tcp://127.0.0.1:9", "nonsense://here", "127.0.0.1"):
        with pytest.raises(ConfigError) as error:
            run(powers, Path(), NUMBERS, workers=Workers(dask=place))
        assert str(error.value).startswith(f"--dask {place}: no scheduler answers there")


def test_a_cluster_without_workers_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setattr(module, "WORKERS_SECONDS", 0.1)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty:
        workers = Workers(dask=empty.scheduler_address)
        with pytest.raises(RunError, match="has had no worker for 0 s; start some"):
            run(powers, Path(), NUMBERS, workers=workers)


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"jobs": 0}, "--jobs 0: fewer than 1 job at a time; give 1 or more"),
        ({"jobs": 2, "dask": "tcp://a:1"}, "--jobs 2: --dask tcp://a:1 has workers of its own"),
        ({"dask": "tcp://a:1"}, "--dask tcp://a:1: dask.distributed is not installed; `pip"),
    ],
)
def test_workers_that_cannot_be_are_refused_in_one_line(
    asked: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(EPNeuroError) as error:
        Workers(**asked)
    assert says in str(error.value)

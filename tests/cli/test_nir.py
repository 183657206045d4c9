"""Claims about NIR files of other tools on the command line: taken as models, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compilers import load_program
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.storage.yaml_io import parse_value
from targets.nir.backend import BACKEND
from tests.cli.conftest import Cli

nir = pytest.importorskip("nir", reason=BACKEND.available().reason)


def write(place: Path, neuron: Any, back: float = 1.0) -> str:
    """A NIR file as others write it, 64-6-10; symmetric in some units if `back` is above 0."""
    rng = np.random.default_rng(0)
    w_in, w = 0.1 * rng.normal(size=(6, 64)), 0.1 * rng.normal(size=(10, 6))
    nodes = {
        "input": nir.Input(np.array([64])),
        "up": nir.Affine(w_in, np.zeros(6)),
        "hidden": neuron(6),
        "on": nir.Linear(w),
        "out": nir.LI(tau=np.full(10, 0.02), r=np.ones(10), v_leak=np.zeros(10)),
        "down": nir.Linear(back * w.T),
        "output": nir.Output(np.array([10])),
    }
    edges = [("input", "up"), ("up", "hidden"), ("hidden", "on"), ("on", "out")]
    edges += [("out", "down"), ("down", "hidden"), ("out", "output")]
    nir.write(place, nir.NIRGraph(nodes=nodes, edges=edges))
    return str(place)


def leaky(size: int) -> Any:
    """Leaky integrators."""
    return nir.LI(tau=np.full(size, 0.01), r=np.ones(size), v_leak=np.zeros(size))


def firing(size: int) -> Any:
    """Neurons that fire and reset."""
    ones = np.ones(size)
    return nir.LIF(tau=0.01 * ones, r=ones, v_leak=0 * ones, v_threshold=ones)


def test_inspect_prints_the_spec_of_a_nir_file(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "theirs.nir", leaky)
    answer = cli("inspect", file, "--json").answer
    assert answer["kind"] == "spec"
    assert [p["name"] for p in answer["spec"]["populations"]] == ["hidden", "out"]
    spec = NetworkSpec.from_dict(parse_value(answer["yaml"]))
    assert spec.output == "out"
    assert {c.name for c in spec.couplings} == {"input->hidden", "hidden->out"}


@pytest.mark.parametrize("name", ["theirs.NIR", "theirs.h5", "theirs", "theirs.yaml"])
def test_a_nir_file_is_known_by_its_first_bytes_whatever_its_name(
    name: str, cli: Cli, tmp_path: Path
) -> None:
    write(tmp_path / name, leaky)
    spec = cli("inspect", name, "--json").answer["spec"]
    assert [p["name"] for p in spec["populations"]] == ["hidden", "out"]
    assert cli("check", name, "--json").answer["holds"]


def test_a_nir_file_compiles_with_its_weights_and_runs(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "theirs.nir", leaky)
    words = ("--target", "reference", "--out", "here", "--json")
    assert cli("compile", file, *words).answer["violations"] == []
    weights = load_program("here").graph.arrays["weight/hidden->out"]
    theirs = nir.read(tmp_path / "theirs.nir").nodes["on"].weight
    np.testing.assert_allclose(weights, theirs, rtol=0, atol=1e-7)
    assert cli("run", "here", "--limit", "20", "--json").answer["samples"] == 20
    assert cli("evaluate", file, "--limit", "20", "--json").answer["samples"] == 20
    assert cli("check", file, "--json").answer["holds"]


def test_a_nir_file_without_an_energy_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "torn.nir").write_bytes(b"\x89HDF no more")
    for file, reason in (
        (write(tmp_path / "firing.nir", firing), "it fires and resets"),
        (write(tmp_path / "one_way.nir", leaky, back=-1.0), "weights differ from their transpose"),
        (str(tmp_path / "torn.nir"), "no readable NIR file"),
        (str(tmp_path / "absent.nir"), "no such directory or file"),
    ):
        for words in (("inspect", file), ("compile", file, "--target", "reference")):
            outcome = cli(*words, "--json")
            assert outcome.code == 2
            assert outcome.out == ""
            assert reason in outcome.err
            assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("node", "field", "spoil", "reason"),
    [
        ("up", "weight", lambda w: w * np.nan, "node 'up': its weight holds NaN or infinity"),
        ("down", "weight", lambda w: w * 1e300, "node 'down': its weight holds"),
        ("out", "v_leak", lambda v: v + np.inf, "node 'out': its v_leak holds NaN or infinity"),
        ("up", "bias", lambda b: b + 1j, "node 'up': its bias is complex128, not a number"),
        ("out", "metadata", lambda _: {"box": "wide"}, "node 'out': the box in its metadata"),
    ],
)
def test_numbers_of_a_nir_file_that_cannot_be_used_are_named(
    node: str, field: str, spoil: Any, reason: str, cli: Cli, tmp_path: Path
) -> None:
    file = write(tmp_path / "theirs.nir", leaky)
    net = nir.read(file)
    setattr(net.nodes[node], field, spoil(getattr(net.nodes[node], field)))
    nir.write(file, net)
    for words in (("inspect", file), ("evaluate", file)):
        outcome = cli(*words, "--json")
        assert (outcome.code, outcome.out) == (2, "")
        assert reason in outcome.err
        assert outcome.err.count("\n") == 1


def test_a_file_for_a_reader_comes_with_its_samples_and_a_warning(cli: Cli, tmp_path: Path) -> None:
    words = ["zoo:digits_dense", "--target", "nir", "--code", "spike", "--option", "samples=2"]
    words += ["--option", "reader=snntorch", "--out", "net.nir"]
    done = cli("compile", *words)
    assert done.code == 0, done.err
    assert "warning: reader 'snntorch' (1.0.0 tested) loses: membranes start at 0" in done.err
    data = nir.read_data(tmp_path / "net.nirdata")
    assert data.nodes["input"].observables["values"].data.shape == (2, 64, 64)
    assert data.nodes["output"].observables["spikes"].data.dtype == bool

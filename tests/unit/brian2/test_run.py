"""Claims about Brian2 at work: the numbers of C++ and NumPy, scripts alone, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import compilers
import ep_neuro as ep
import targets
from compilers import Program, save_program
from compilers.ir.graph import ENCODINGS, Encoding, Graph
from compilers.passes.make_plastic import make_plastic
from ep_neuro.data import datasets
from ep_neuro.energy.spec import CouplingSpec, NetworkSpec
from ep_neuro.errors import RunError
from ep_neuro.report import EncodingActivity, plot_raster
from ep_neuro.training.config import read_config
from targets.brian2 import session as session_module
from targets.brian2.backend import BACKEND
from targets.brian2.codegen.equations import synapses_per_sample
from targets.brian2.session import Brian2Warning, missing_tools
from targets.brian2.simulation.worker import BUILD
from targets.interface.protocols import RunResult
from targets.interface.request import variables
from targets.interface.supervised.fork_server import ForkServer
from targets.interface.supervised.process import ProcessTracebackError
from tests.helpers.graphs import classifier, conv, graph_of, random_residual_spec, samples
from tests.helpers.targets import needs

# Brian2 itself works in a process of its own: importing it here would take seconds.
pytestmark = needs("brian2")

compiled = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools())


def small_spec() -> NetworkSpec:
    """A convolution and a dense head: the fewest files of C++ that have both."""
    return classifier(
        *("small", 5, 4),
        {"h": (3, 3, 3), "g": (2, 2, 2)},
        conv("input", "h", 3, 2, 1),
        conv("h", "g", 2),
        CouplingSpec(pre="g", post="out", gain=0.5),
    )


def smallest_spec() -> NetworkSpec:
    """The same without the population between the two."""
    couplings = conv("input", "h", 3, 2, 1), CouplingSpec(pre="h", post="out", gain=0.5)
    return classifier("smallest", 5, 4, {"h": (3, 3, 3)}, *couplings)


def program(graph: Graph, **options: object) -> Program:
    """What Brian2 runs of `graph`."""
    return replace(BACKEND.emit(graph), options=options)


def reference(graph: Graph, x: np.ndarray, y: np.ndarray | None, **more: object) -> RunResult:
    """What the reference makes of the same."""
    with targets.open(targets.get("reference").emit(graph)) as session:
        return session.settle(x, y, **more)  # type: ignore[arg-type]


def assert_equal(mine: RunResult, other: RunResult) -> None:
    """Messages and synaptic operations are the same, states to 1e-9."""
    assert list(mine.phases) == list(other.phases)
    for name, phase in mine.phases.items():
        expected = other.phases[name]
        np.testing.assert_allclose(phase.outputs, expected.outputs, rtol=0, atol=1e-9)
        for population, events in expected.events.items():
            np.testing.assert_array_equal(phase.events[population], events)
            np.testing.assert_array_equal(phase.synops[population], expected.synops[population])
        for probe, values in phase.probes.items():
            np.testing.assert_allclose(values, expected.probes[probe], rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def spoilt() -> ForkServer:
    """A server of its own, for tests that spoil it."""
    return ForkServer(sys.executable, path=sys.path)


@pytest.fixture
def compiler(
    spoilt: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A script that stands in for the compiler, in that process."""
    path = tmp_path_factory.getbasetemp() / "c++"
    monkeypatch.setattr(session_module, "SERVER", spoilt)
    monkeypatch.setenv("CXX", str(path))
    return path


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def assert_c_plus_plus_equals_the_reference(spec: NetworkSpec, code: Encoding) -> None:
    graph, (x, y) = graph_of(spec, code, steps=8, seed=3), samples(spec, 5, seed=4)
    probes = [f"{p.name}.{v}" for p in graph.populations for v in variables(p)]
    with BACKEND.open(program(graph, mode="standalone")) as session:
        assert_equal(session.settle(x, y, probes=probes), reference(graph, x, y, probes=probes))


@compiled
def test_c_plus_plus_equals_the_reference_at_every_step_of_every_phase(compiler: Path) -> None:
    """Optimised it does in the next test; that takes most of the time."""
    write_script(compiler, 'exec g++ "$@" -O0')
    assert_c_plus_plus_equals_the_reference(smallest_spec(), "sigma-delta")


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("code", ENCODINGS)
def test_so_does_optimised_c_plus_plus(code: Encoding) -> None:
    assert_c_plus_plus_equals_the_reference(small_spec(), code)


@compiled
@pytest.mark.slow
def test_code_is_built_once_and_serves_fewer_samples_and_other_targets() -> None:
    spec = small_spec()
    graph, (x, y) = graph_of(spec, "spike", steps=8), samples(spec, 5)
    with BACKEND.open(program(graph)) as session:
        first = session.settle(x, y, probes=["h.message"])
        assert session._folder is not None
        files = sorted((Path(session._folder.name) / BUILD).rglob("code_objects/*.o"))
        built = {file: file.stat().st_mtime_ns for file in files}
        again = session.settle(1 - x[:3], y[:3] + 0)
        assert {file: file.stat().st_mtime_ns for file in files} == built
        assert len(files) > 10
    assert_equal(first, reference(graph, x, y, probes=["h.message"]))
    assert_equal(again, reference(graph, 1 - x[:3], y[:3]))


@pytest.mark.parametrize("code", ENCODINGS)
def test_samples_one_after_another_are_the_same_as_side_by_side(
    code: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec()
    graph, (x, y) = graph_of(spec, code, steps=8), samples(spec, 7)
    probes = [f"{p.name}.{v}" for p in graph.populations for v in variables(p)]
    monkeypatch.setattr(session_module, "MOST_SYNAPSES", 3 * synapses_per_sample(graph))
    with BACKEND.open(program(graph, mode="runtime")) as session:
        mine = session.settle(x, y, probes=probes)
    assert_equal(mine, reference(graph, x, y, probes=probes))


def test_samples_in_several_runs_are_the_same_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec()
    graph, (x, y) = graph_of(spec, "sigma-delta", steps=8), samples(spec, 7)
    steps, neurons = sum(p.steps for p in graph.phases), sum(p.size for p in graph.neurons)
    monkeypatch.setattr(session_module, "RECORD_BYTES", 3 * 12 * steps * neurons)
    seen: list[tuple[int, int]] = []
    with BACKEND.open(program(graph, mode="runtime")) as session:
        mine = session.settle(x, y, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert_equal(mine, reference(graph, x, y))


def test_without_a_compiler_it_runs_in_numpy_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec()
    graph, (x, _) = graph_of(spec, "spike", steps=8), samples(spec, 2)
    monkeypatch.setattr(session_module, "missing_tools", lambda: "make not found; install it")
    with BACKEND.open(program(graph)) as session, pytest.warns(Brian2Warning, match="make"):
        mine = session.settle(x)
    assert_equal(mine, reference(graph, x, None))


@pytest.mark.parametrize(
    ("code", "rule"),
    [("graded", "one-sided"), ("sigma-delta", "contrastive"), ("spike", "spike-average")],
)
def test_weights_change_as_on_the_reference(code: Encoding, rule: str) -> None:
    """With decay, another rate, a stuck synapse, and a last batch that is smaller."""
    spec = small_spec()
    graph, (x, y) = graph_of(spec, code, steps=8), samples(spec, 3)
    graph = make_plastic(graph, rule, lr=0.5, decay=0.01)
    mask = np.ones_like(graph.arrays["weight/h->g"])
    mask.flat[3] = 0
    records = tuple(
        replace(r, mask="stuck") if r.weight == "weight/h->g" else r for r in graph.plasticity
    )
    graph = graph.with_arrays(arrays={**graph.arrays, "stuck": mask}, plasticity=records)
    found = []
    for backend in (BACKEND, targets.get("reference")):
        with targets.learner(backend.emit(graph)) as session:
            result = session.learn(x, y, batch=2, rate_scale=0.7)
            found.append((result, session.memory()))
    (mine, here), (theirs, there) = found
    assert here.keys() == there.keys()
    for name, value in there.items():
        np.testing.assert_allclose(here[name], value, rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(mine.predictions, theirs.predictions)
    assert mine.commits == theirs.commits == 2
    assert mine.changed == pytest.approx(theirs.changed)
    assert mine.events_per_sample == theirs.events_per_sample
    assert mine.synops_per_sample == theirs.synops_per_sample


# --- scripts -----------------------------------------------------------------------------------

ALONE = """
import runpy, sys
for name in ("ep_neuro", "compilers", "targets", "torch"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("form", ["file", pytest.param("program", marks=pytest.mark.slow)])
def test_a_script_runs_where_ep_neuro_is_not_installed(form: str, tmp_path: Path) -> None:
    spec = small_spec()
    graph, (x, y) = graph_of(spec, "sigma-delta", steps=8), samples(spec, 3)
    if form == "file":
        place = tmp_path / "net.py"
        BACKEND.export(BACKEND.emit(graph), place)
    else:
        save_program(BACKEND.emit(graph), tmp_path / "program")
        place = tmp_path / "program" / "files" / "brian2_network.py"
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.eye(4)[y])
    command = [sys.executable, "-c", ALONE, str(place), "x.npy", "out.npz", "--runtime"]
    command += ["--target", "y.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    other = reference(graph, x, y)
    with np.load(tmp_path / "out.npz") as found:
        for name, phase in other.phases.items():
            np.testing.assert_allclose(found[f"{name}/outputs"], phase.outputs, atol=1e-9)
            assert len(found[f"{name}/h/step"]) == phase.events["h"].sum()


def test_spike_monitors_feed_the_raster_plot(tmp_path: Path) -> None:
    spec = small_spec()
    graph, (x, _) = graph_of(spec, "spike", steps=8), samples(spec, 2)
    probes = [f"{p.name}.message" for p in graph.neurons]
    with BACKEND.open(program(graph, mode="runtime")) as session:
        free = session.settle(x, probes=probes).free
    messages = {p.name: free.probes[f"{p.name}.message"][:, 0] for p in graph.neurons}
    for name, raster in messages.items():
        np.testing.assert_array_equal(raster.reshape(8, -1).sum(1), free.events[name][:, 0])
    activity = EncodingActivity("spike", {n: e.mean(1) for n, e in free.events.items()}, messages)
    figure = plot_raster(activity)
    figure.savefig(tmp_path / "raster.svg")
    assert (tmp_path / "raster.svg").stat().st_size > 0


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler here is a shell script")
def test_a_compiler_that_fails_is_quoted_and_a_run_that_hangs_is_ended(
    compiler: Path,
) -> None:
    spec = small_spec()
    graph, (x, _) = graph_of(spec, "spike", steps=8), samples(spec, 2)
    write_script(compiler, "echo 'x.cpp:1: fatal error: the disk is full of tea' >&2; exit 1")
    with BACKEND.open(program(graph)) as session:
        with pytest.raises(RunError, match="fatal error: the disk is full of tea") as caught:
            session.settle(x)
        assert isinstance(caught.value.__cause__, ProcessTracebackError)
        assert "\n" not in str(caught.value)
    write_script(compiler, "sleep 60")
    with BACKEND.open(program(graph, time_limit=0.5)) as session:
        began = time.monotonic()
        with pytest.raises(RunError, match="time_limit"):
            session.settle(x)
        assert time.monotonic() - began < 20


def test_a_network_that_diverges_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec()
    graph, (x, _) = graph_of(spec, "graded", steps=400), samples(spec, 2)
    unbounded = tuple(replace(p, box=None) for p in graph.populations)
    arrays = {k: 40 * a for k, a in graph.arrays.items()}
    graph = replace(graph, populations=unbounded, arrays=arrays)
    with (
        BACKEND.open(program(graph, mode="runtime")) as session,
        pytest.raises(RunError, match="not finite"),
    ):
        session.settle(x)


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("code", ENCODINGS)
def test_trained_digits_get_the_answers_of_the_reference(code: str) -> None:
    network = ep.train(read_config("zoo:digits_residual", ["epochs=3"])).model.network
    test = datasets.load("digits").test
    mine = compilers.compile(network, target="brian2", code=code)
    theirs = compilers.compile(network, target="reference", code=code)
    with targets.open(mine) as session, targets.open(theirs) as oracle:
        result, expected = session.settle(test.x), oracle.settle(test.x)
    assert len(test) == 360
    assert_equal(result, expected)


@pytest.mark.slow
@compiled
def test_a_thousand_digits_take_at_most_a_minute_with_compilation() -> None:
    graph = compilers.compile(
        ep.train(read_config("zoo:digits_residual", ["epochs=3"])).model.network,
        target="brian2",
        code="spike",
        steps=64,
    ).graph
    digits = datasets.load("digits")
    x = np.concatenate([digits.test.x, digits.train.x])[:1000]
    with BACKEND.open(program(graph)) as session:
        result = session.settle(x)
    assert len(result.predictions) == 1000
    assert result.seconds < 60
    assert_equal(result, reference(graph, x, None))


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("code", ENCODINGS)
def test_c_plus_plus_equals_the_reference_on_a_residual_network(code: Encoding) -> None:
    spec = random_residual_spec(4)
    graph, (x, y) = graph_of(spec, code, steps=12, seed=5), samples(spec, 4, seed=6)
    with BACKEND.open(program(graph)) as session:
        assert_equal(session.settle(x, y), reference(graph, x, y))

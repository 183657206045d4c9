"""Claims about the PyNN script: NEST computes by it what the reference does with a hard reset."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import compilers
import ep_neuro as ep
import targets
from compilers.hardware.limits import Quantity
from compilers.ir import graph as ir
from compilers.passes.encode import with_spiking
from compilers.passes.make_plastic import make_plastic
from compilers.program import Program
from ep_neuro.data import datasets
from ep_neuro.errors import GraphError, ProgramError, TargetError
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network
from targets.brian2.codegen.script import script as brian2_script
from targets.pynn import BACKEND
from targets.pynn.backend import PLAIN
from targets.pynn.script import SCRIPT, script
from tests.helpers.graphs import graph_of, random_residual_spec, samples

SPEC = random_residual_spec(4)

needs_pynn = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pyNN", "nest")),
    reason="PyNN or NEST is not installed; pip install 'ep-neuro[pynn]'",
)


def plain(**options: object) -> ir.Graph:
    """A graph as PyNN's neurons compute it."""
    return with_spiking(graph_of(SPEC, "spike", **options), **PLAIN)  # type: ignore[arg-type]


def on_nest(program: Program, x: np.ndarray, folder: Path) -> np.ndarray:
    """Outputs that the script of `program` has NEST compute, (N, classes)."""
    BACKEND.export(program, folder / "net.py")
    np.save(folder / "in.npy", x)
    command = [sys.executable, "net.py", "in.npy", "out.npy", "nest"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.asarray(np.load(folder / "out.npy"))


def on_reference(program: Program, x: np.ndarray) -> np.ndarray:
    with targets.open(targets.get("reference").emit(program.graph)) as session:
        return session.settle(x).free.outputs.reshape(len(x), -1)


# --- what the script computes ------------------------------------------------------------------


@needs_pynn
def test_nest_counts_the_spikes_of_the_references_hard_reset(tmp_path: Path) -> None:
    """A membrane that leaks 1e-8 a step, and sums in another order, seldom shift a spike."""
    program, x = BACKEND.emit(plain(steps=32)), samples(SPEC, 3, seed=4)[0]
    found, expected = on_nest(program, x, tmp_path), on_reference(program, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 / 16)
    assert np.abs(found - expected).mean() < 0.01
    assert np.ptp(expected) > 0.1


@needs_pynn
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_digits_are_answered_as_on_the_reference(tmp_path: Path) -> None:
    network = ep.train(ep.read_config("zoo:digits_dense", ["epochs=3"])).model.network
    test = datasets.load("digits").test.head(100)
    program = compilers.compile(network, target="pynn", code="spike")
    found, expected = on_nest(program, test.x, tmp_path), on_reference(program, test.x)
    soft = compilers.compile(network, target="reference", code="spike")
    right = [(o.argmax(1) == test.y).mean() for o in (found, expected, on_reference(soft, test.x))]
    print(f"PyNN on NEST {right[0]:.0%}, reference hard {right[1]:.0%}, soft {right[2]:.0%}")
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98
    assert right[0] > 0.8


def test_compiling_gives_neurons_a_hard_reset_that_the_executor_computes() -> None:
    network, x = Network(digits_dense(), 0), samples(digits_dense(), 2, seed=4)[0]
    program = compilers.compile(network, target="pynn", code="spike", steps=32)
    assert {p.dynamics for p in program.graph.neurons} == {ir.Spiking(**PLAIN)}
    with targets.open(program) as session:
        outputs = session.settle(x).free.outputs.reshape(len(x), -1)
    np.testing.assert_array_equal(outputs, on_reference(program, x))
    assert list(program.files) == [SCRIPT]


def test_the_script_is_readable_python_without_us(tmp_path: Path) -> None:
    BACKEND.export(BACKEND.emit(plain()), tmp_path / "net.py")
    text = (tmp_path / "net.py").read_text()
    compile(text, "net.py", "exec")
    assert "@" not in text
    assert "import ep_neuro" not in text
    assert max(map(len, text.splitlines())) <= 400
    with np.load(tmp_path / "net.npz") as file:
        assert {n.partition("/")[0] for n in file.files} == {"bias", "synapses"}


def test_a_foreign_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("print('mine')")
    with pytest.raises(ProgramError, match=r"net\.py"):
        BACKEND.export(BACKEND.emit(plain()), tmp_path / "net.py")
    assert (tmp_path / "net.py").read_text() == "print('mine')"


# --- what it refuses ---------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], ir.Graph], str]] = {
    "graded": (lambda: graph_of(SPEC), "populations that do not spike"),
    "soft reset": (lambda: with_spiking(plain(), reset="soft"), "neurons that PyNN has not"),
    "leak": (lambda: with_spiking(plain(), leak=0.5), "neurons that PyNN has not"),
    "integers": (lambda: plain(bits=8), "real numbers"),
    "learning": (lambda: make_plastic(plain()), "weights that learn"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_script_cannot_say_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    make, said = REFUSED[what]
    program = Program("pynn", make())
    for use in (BACKEND.open, lambda p: BACKEND.export(p, tmp_path / "net.py")):
        with pytest.raises(TargetError, match=said) as caught:
            use(program)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_more_synapses_than_pynn_lists_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"synapses": Quantity(10, "synapses", "")}
    monkeypatch.setattr(BACKEND, "bounds", few)
    (found,) = BACKEND.check(plain())
    assert found.limit == 10


def test_compiling_needs_no_pynn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    program = compilers.compile(Network(digits_dense(), 0), target="pynn", code="spike")
    assert SCRIPT in program.files


@pytest.mark.parametrize("write", [script, brian2_script], ids=["pynn", "brian2"])
def test_a_script_of_any_name_is_python(write: Callable[..., str]) -> None:
    name = 'it\'s """mine""" \\ @STEPS@.py'
    graph = plain()
    text = write(graph, name, "net @STEPS@.npz")
    assert "net @STEPS@.npz" in text
    assert f"python {name} " in (ast.get_docstring(ast.parse(text)) or "")


def test_a_soft_reset_that_was_asked_for_is_refused() -> None:
    network = Network(digits_dense(), 0)
    with pytest.raises(GraphError, match=r"reset': soft was asked for, .*'pynn' have hard"):
        compilers.compile(network, "pynn", code="spike", parameters={"reset": "soft"})
    hard = compilers.compile(network, "pynn", code="spike", parameters={"reset": "hard"})
    assert hard.graph.digest() == compilers.compile(network, "pynn", code="spike").graph.digest()


@pytest.mark.parametrize("target", ["pynn", "nest", "brian2", "crossbar"])
def test_integers_are_refused_before_there_is_a_program(target: str) -> None:
    with pytest.raises(TargetError, match="compile without --bits, or run it on 'reference'"):
        compilers.compile(Network(digits_dense(), 0), target, code="spike", bits=8)

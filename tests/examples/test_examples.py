"""Claims about the examples: each runs as a script from a fresh clone, in seconds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import compilers
from compilers import load_program
from compilers.passes.make_plastic import learnable
from ep_neuro.energy.spec import InputSpec, NetworkSpec
from ep_neuro.network.checkpoint import load_model
from ep_neuro.network.network import Network
from ep_neuro.report.story import read_record
from tests.helpers.forked import run_script
from tests.helpers.targets import needs

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
SPIKING = sorted((ROOT / "examples" / "spiking").glob("*.yaml"))
LONGEST = 60
"""Lines that an example may have."""


def run(name: str, out: Path, *more: object) -> str:
    """What example `name` prints when it writes to `out`; `more` are its further arguments."""
    done = run_script(ROOT / "examples" / name, out, *more, cwd=out)
    assert done.code == 0, done.err
    return done.out


def percent(text: str, before: str) -> float:
    """The percentage that follows `before` in `text`."""
    found = re.search(re.escape(before) + r"\s+([\d.]+)\s*%", text)
    assert found, f"no percentage after '{before}' in:\n{text}"
    return float(found[1])


def test_training_by_ep_gets_most_digits_right_within_a_few_epochs(tmp_path: Path) -> None:
    printed = run("01_train.py", tmp_path)
    assert percent(printed, "test accuracy") > 90
    assert load_model(tmp_path / "digits" / "best").metadata["epochs"] >= 1


def test_a_network_specified_by_hand_compiles_stage_by_stage(tmp_path: Path) -> None:
    printed = run("02_compile.py", tmp_path)
    stages = re.findall(r"^after (\w+)", printed, re.MULTILINE)
    assert stages[0] == "frontend"
    assert stages.index("expand_couplings") < stages.index("encode") < stages.index("quantize")
    assert load_program(tmp_path / "by_hand.program").graph.quantised


@needs("lava")
def test_lava_runs_the_network_and_sends_less_as_it_settles(tmp_path: Path) -> None:
    printed = run("03_run_on_lava.py", tmp_path)
    assert percent(printed, "Lava") > 85
    counts = re.findall(r"([\d.]+) events in the first 4 steps,\s+([\d.]+) in the last", printed)
    first, last = (sum(map(float, column)) for column in zip(*counts, strict=True))
    assert last < first / 4
    assert np.load(tmp_path / "output.npy").shape[1:] == (100, 10)


def test_the_comparison_prints_every_row_and_writes_its_page(tmp_path: Path) -> None:
    printed = run("04_compare.py", tmp_path)
    rows, _, front = printed.partition("on the front:\n")
    codes = [code for code in ("graded", "sigma-delta", "spike") for _ in range(3)]
    assert [line.split()[1] for line in rows.splitlines()] == ["rate", *codes]
    best = front.splitlines()[:-1]
    assert best
    assert set(best) < set(rows.splitlines())
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {p.stem for p in tmp_path.glob("*.svg")} == {"accuracy_steps", "pareto", "layerwise"}


@needs("nir")
def test_a_nir_file_comes_back_the_same_and_as_a_network(tmp_path: Path) -> None:
    printed = run("05_exchange_by_nir.py", tmp_path)
    assert "read back: the same graph" in printed
    assert percent(printed, "its nodes get") > 85
    assert percent(printed, "a network that gets") > 85


@needs("brian2")
@pytest.mark.slow
def test_brian2_sends_what_the_reference_sends(tmp_path: Path) -> None:
    printed = run("06_run_on_brian2.py", tmp_path)
    assert percent(printed, "Brian2 gets") > 85
    counts = re.findall(r"(\d+) events, (\d+) on the reference", printed)
    assert len(counts) == 3
    assert all(here == there for here, there in counts)
    assert {p.name for p in tmp_path.glob("*")} >= {"digits_brian2.py", "digits_brian2.npz"}
    assert "<svg" in (tmp_path / "spikes.svg").read_text(encoding="utf-8")


def test_a_chip_learns_digits_from_scratch_in_spikes(tmp_path: Path) -> None:
    printed = run("08_learn_on_chip.py", tmp_path, 800)
    assert percent(printed, "after") > percent(printed, "before") + 30
    learnt, network = percent(printed, "after"), percent(printed, "in floating point")
    assert abs(learnt - network) < 15
    assert load_program(tmp_path / "digits.program").graph.plasticity
    assert (tmp_path / "digits.run" / "agreement.svg").is_file()


MNIST = [path for path in SPIKING if path.stem.startswith("mnist")]


@pytest.mark.parametrize("path", MNIST, ids=lambda path: path.stem)
def test_a_network_that_learns_mnist_in_spikes_takes_raw_pixels(path: Path) -> None:
    """Behind a normalisation, spikes would teach other weights than the network's."""
    assert NetworkSpec.from_yaml(path).input == InputSpec(shape=(1, 28, 28))


@pytest.mark.parametrize("path", SPIKING, ids=lambda path: path.stem)
def test_a_network_that_learns_in_spikes_compiles_with_all_that_can_learn(path: Path) -> None:
    spec = NetworkSpec.from_yaml(path)
    program = compilers.compile(Network(spec, 0), code="spike", learn="spike-average")
    learnt = {record.weight for record in program.graph.plasticity}
    assert learnt == set(learnable(program.graph))


@pytest.mark.slow
def test_learning_gets_around_damage(tmp_path: Path) -> None:
    printed = run("09_recover_from_damage.py", tmp_path, 400)
    _, _, broken = printed.partition("The damaged array")
    originally, before, after = (
        percent(broken, word) for word in ("originally", "before learning", "after learning")
    )
    assert before < originally - 15
    assert after > before + 0.8 * (originally - before)
    assert len(list(tmp_path.glob("recovery_*.svg"))) == 2


@pytest.mark.slow
def test_a_few_hundred_images_teach_turned_and_inverted_digits(tmp_path: Path) -> None:
    printed = run("10_adapt_to_rotation.py", tmp_path, 2000)
    for story in printed.split("figure:")[:2]:
        assert percent(story, "before learning") < 30
        assert percent(story, "after learning") > 60


@pytest.mark.slow
def test_a_new_class_is_learnt_and_the_old_ones_are_kept(tmp_path: Path) -> None:
    printed = run("11_learn_a_new_class.py", tmp_path, 1200)
    assert percent(printed, "new task:") > 85
    assert percent(printed, "old task:") > percent(printed, "originally") - 8


def test_a_story_writes_a_record_and_a_page_and_refuses_nonsense_in_one_line(
    tmp_path: Path,
) -> None:
    script, how = ROOT / "examples" / "stories.py", ("--samples", 20, "--points", 1, "--test", 20)
    more = ("--target", "reference", "--out", tmp_path / "told")
    done = run_script(script, "drifted", "hub:digits_resnet", *how, *more, cwd=tmp_path)
    assert done.code == 0, done.err
    record = read_record(tmp_path / "told" / "story.json")
    assert record.samples == 20
    assert "stories.py drifted hub:digits_resnet --samples 20" in record.command
    assert record.command in (tmp_path / "told" / "story.html").read_text(encoding="utf-8")
    for wrong, said in {"stuck=1": "stuck", "days=long": "long"}.items():
        done = run_script(
            script, "drifted", "hub:digits_resnet", "--change", wrong, *how, *more, cwd=tmp_path
        )
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
        assert said in done.err


def test_a_plain_loop_of_pytorch_learns_digits_that_the_reference_runs(tmp_path: Path) -> None:
    printed = run("12_plain_pytorch.py", tmp_path)
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", printed)]
    assert losses[-1] < losses[0]
    assert percent(printed, "test accuracy") > 92
    assert percent(printed, "on the reference") > 90
    assert load_program(tmp_path / "digits.program").graph.encoding == "sigma-delta"


@needs("crossbar")
@pytest.mark.slow
def test_a_crossbar_drifts_is_compensated_and_learns_its_errors_away(tmp_path: Path) -> None:
    printed = run("07_run_on_a_crossbar.py", tmp_path)
    exact, aged = percent(printed, "exact:"), percent(printed, "PCM, one year old:")
    assert exact > 90
    assert percent(printed, "not compensated:") < aged
    assert percent(printed, "learnt:") > percent(printed, "10 % programming error:") + 1
    assert "h1->output W, output->h1 W^T" in printed
    assert "<svg" in (tmp_path / "error.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert f"python examples/{path.name}" in text


def test_the_examples_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))

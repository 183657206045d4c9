"""Claims about answers: every command gives its JSON fields, and people a readable text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import targets
from compilers import load_program
from compilers.hardware.limits import Violation
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import Model, load_model, save_model
from ep_neuro.network.network import Network
from targets.interface.protocols import Availability
from tests.cli.conftest import Cli

ROW = {
    *("target", "code", "bits", "accuracy", "agreement", "unsettled"),
    *("events", "synops", "energy_joule", "ms_per_sample", "steps", "pareto", "neurobench"),
}
FRESH = "zoo:digits_dense"

UNSTABLE = """\
name: unstable
input: {shape: [6]}
populations:
- {name: a, shape: [12], box: null}
- {name: b, shape: [12], box: null}
- {name: output, shape: [3], box: null}
couplings:
- {pre: input, post: a}
- {pre: a, post: b, gain: 40}
- {pre: b, post: output, gain: 40}
"""


def test_demo_answers_with_what_the_main_job_found(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = dict.fromkeys(ROW, 0.5)

    def run_demo(out: Path, **_: Any) -> dict[str, Any]:
        found = {"test_accuracy": 0.98, "rows": [row], "seconds": 1.0}
        return {**found, "report": str(out / "report.html")}

    monkeypatch.setattr("targets.experiments.demo.run_demo", run_demo)
    answer = cli("demo", "--out", "here", "--json").answer
    assert answer["report"] == "here/report.html"
    assert answer["rows"] == [row]
    assert answer.keys() == {"test_accuracy", "rows", "report", "seconds"}


def test_images_of_mixed_sizes_are_trained_on_and_met_again_in_one_size(cli: Cli) -> None:
    for i in range(24):
        place = Path("f", "ab"[i % 2], f"{i}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3 + i, 4), 200 * (i % 2)).save(place)
    Path("net.yaml").write_text(UNSTABLE.replace("40", "0.5").replace("[3]", "[2]"))
    Path("c.yaml").write_text("{network: net.yaml, data: 'folder:f', resize: [2, 3], epochs: 2}")
    done = cli("train", "c.yaml", "--out", "run", "--json").answer
    assert cli("evaluate", "run", "--json").answer["accuracy"] == done["test_accuracy"]
    cli("compile", "run", "--target", "reference", "--steps", 8, "--out", "p")
    assert cli("run", "p", "--json").code == 0


def test_train_says_where_its_model_is_and_the_other_commands_take_it(cli: Cli) -> None:
    done = cli("train", FRESH, "--set", "epochs=1", "--out", "run", "--json").answer
    assert done.keys() >= {
        *("model", "test_accuracy", "val_accuracy", "epochs", "images_per_second"),
        "gradient_cosine",
    }
    assert done["epochs"] == 1
    # Its own directory and the run around it name the same model.
    for name in (done["model"], "run"):
        found = cli("evaluate", name, "--json").answer
        assert found["accuracy"] == pytest.approx(done["test_accuracy"], abs=0.01)
    compiled = cli("compile", "run", "--target", "reference", "--out", "p", "--json").answer
    noted = load_program(compiled["program"]).graph.provenance
    assert noted["model.sha256"] == load_model(done["model"]).digest
    rows = cli("compare", "run", "--with", "reference", "--limit", 40, "--json").answer["rows"]
    assert rows[1]["agreement"] > 0.9


def test_training_goes_on_where_it_was_told_to_stop(cli: Cli) -> None:
    cli("train", FRESH, "--set", "epochs=1", "--out", "run")
    done = cli("train", FRESH, "--set", "epochs=2", "--out", "run", "--resume", "--json")
    assert done.answer["epochs"] == 2
    metrics = Path("run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == [1, 2]


def test_a_second_run_by_default_stands_beside_the_first(cli: Cli) -> None:
    words = ("train", FRESH, "--set", "epochs=1", "--json")
    assert cli(*words).answer["model"] == "runs/digits_dense-0/best"
    again = cli(*words)
    assert again.answer["model"] == "runs/digits_dense-0-2/best"
    assert again.err == "runs/digits_dense-0 is taken; the run is runs/digits_dense-0-2\n"


def test_evaluate_reports_how_well_the_network_settled(cli: Cli) -> None:
    found = cli("evaluate", FRESH, "--limit", 10, "--json").answer
    assert found.keys() >= {"accuracy", "residual", "sweeps"}
    assert found["samples"] == 10
    assert found["residual"] < 1e-3


def test_the_data_of_training_is_the_data_of_the_evaluation(cli: Cli, model: Path) -> None:
    assert cli("evaluate", model, "--json").answer["samples"] == 180
    assert cli("evaluate", model, "--data", "digits:test", "--json").answer["samples"] == 360


def test_data_that_have_changed_since_the_training_are_told(cli: Cli, model: Path) -> None:
    notes = {"data": "digits", "data.sha256": "0" * 64}
    (model / "metadata.json").write_text(json.dumps(notes))
    found = cli("evaluate", model, "--limit", 3, "--json")
    assert found.answer["samples"] == 3
    assert found.err == (
        "warning: data 'digits' are not what they were when the model was trained\n"
    )
    other = cli("evaluate", model, "--data", "digits:val", "--limit", 3, "--json")
    assert "not what they were" in other.err


def test_what_did_not_settle_is_told_beside_the_figure(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ep_neuro.cli.network.SWEEPS", 1)
    monkeypatch.setattr("ep_neuro.cli.targets.SWEEPS", 1)
    found = cli("evaluate", FRESH, "--limit", 5, "--json")
    assert found.answer["unsettled"] == 1
    assert "did not settle" in found.err
    figure = cli("evaluate", FRESH, "--limit", 5).out.splitlines()[0]
    assert re.fullmatch(r"accuracy: [\d.]+ \(100.0% of the samples did not settle\)", figure)
    compared = cli("compare", FRESH, "--limit", 5, "--with", "reference", "--out", "page")
    assert re.search(r"torch:rate: [\d.]+% right, 100.0% did not settle", compared.err)
    page = Path("page/report.html").read_text()
    assert re.search(r">[\d.]+\s%<small>100.0\s% did not settle</small></td>", page)
    chosen = ("--with", "reference", "--with", "reference:spike", "--sweep", "steps=1,64")
    rows = cli("compare", FRESH, "--limit", 5, *chosen, "--json").answer["rows"]
    told = [(row["code"], row["steps"], row["unsettled"]) for row in rows]
    assert told == [
        ("rate", None, 1.0),
        *(("graded", 1, 1.0), ("graded", 64, 0.0)),
        *(("spike", 1, None), ("spike", 64, None)),
    ]


@pytest.mark.parametrize("bits", [(), ("--bits", 8)])
def test_run_tells_beside_the_accuracy_what_did_not_settle(
    cli: Cli, model: Path, bits: tuple[object, ...]
) -> None:
    words = ("compile", model, "--target", "reference", "--steps", 64, "--out", "p", *bits)
    assert cli(*words).code == 0
    settled = cli("run", "p", "--limit", 5, "--json").answer
    assert list(settled)[:2] == ["accuracy", "unsettled"]
    assert settled["unsettled"] == 0.0
    assert "settle" not in cli("run", "p", "--limit", 5).out.splitlines()[0]
    assert cli("run", "p", "--limit", 5, "--steps", 1, "--json").answer["unsettled"] == 1.0
    figure = cli("run", "p", "--limit", 5, "--steps", 1).out.splitlines()[0]
    assert re.fullmatch(r"accuracy: [\d.]+ \(100.0% of the samples did not settle\)", figure)


@pytest.mark.parametrize("words", [("evaluate",), ("compare", "--with", "reference")])
def test_a_network_that_is_not_finite_gives_no_figure(cli: Cli, words: tuple[str, ...]) -> None:
    Path("unstable.yaml").write_text(UNSTABLE.replace("[6]", "[1, 8, 8]").replace("[3]", "[10]"))
    found = cli(words[0], "unstable.yaml", *words[1:], "--limit", 5)
    assert found.code in (1, 2)
    assert found.out == ""
    assert re.search(r"error: .*(not finite|never settles|stable)", found.err)


def test_check_confirms_that_ep_gives_the_gradient(cli: Cli) -> None:
    found = cli("check", FRESH, "--json").answer
    assert found.keys() >= {"gradient_cosine", "worst_tensor", "energy_rises"}
    assert found["gradient_cosine"] > 0.9999


@pytest.mark.parametrize("command", ["check", "inspect"])
def test_the_loop_gain_of_each_coupling_is_told(cli: Cli, command: str) -> None:
    (loop,) = cli(command, FRESH, "--json").answer["couplings"]
    assert loop == {"name": "h1->output", "loop_gain": loop["loop_gain"], "sweeps": loop["sweeps"]}
    assert 0 < loop["loop_gain"] ** loop["sweeps"] <= 0.01
    assert f"h1->output: loop gain {loop['loop_gain']:.3g}, sweeps" in cli(command, FRESH).out


def test_a_loop_that_does_not_settle_has_no_number_of_sweeps(cli: Cli) -> None:
    Path("unstable.yaml").write_text(UNSTABLE)
    assert None in [
        c["sweeps"] for c in cli("inspect", "unstable.yaml", "--json").answer["couplings"]
    ]
    assert "may not settle" in cli("inspect", "unstable.yaml").out


def test_inspecting_a_model_tells_of_its_own_weights(cli: Cli) -> None:
    (fresh,) = cli("inspect", FRESH, "--json").answer["couplings"]
    network = Network(zoo("digits_dense"))
    with torch.no_grad():
        network.weights["h1->output"].mul_(0.5)
    save_model(Model(network), "halved")
    (found,) = cli("inspect", "halved", "--json").answer["couplings"]
    assert found["loop_gain"] == pytest.approx(fresh["loop_gain"] / 4)


def test_check_takes_a_training_configuration(cli: Cli) -> None:
    Path("config.yaml").write_text("network: zoo:digits_dense\n")
    assert cli("check", "config.yaml", "--json").answer["holds"]


def test_a_check_that_fails_exits_1_and_still_answers(cli: Cli) -> None:
    Path("unstable.yaml").write_text(UNSTABLE)
    found = cli("check", "unstable.yaml", "--json")
    assert found.code == 1
    assert not found.answer["holds"]
    assert "error: network 'unstable'" in found.err


def test_a_check_with_nothing_to_compare_says_why_and_how_to_go_on(cli: Cli) -> None:
    network = Network(zoo("digits_dense"))
    with torch.no_grad():
        network.biases["output"].fill_(-99.0)
    save_model(Model(network), "held")
    found = cli("check", "held", "--json")
    assert (found.code, found.answer["vanishes"], found.answer["settled"]) == (1, True, True)
    assert found.answer["curvature"] is None
    assert "inf" not in cli("check", "held").out
    assert "both gradients are zero: every output neuron sits at an end of its box" in found.err
    assert "--seed" in found.err


def test_compile_reports_what_the_program_takes(cli: Cli) -> None:
    found = cli("compile", FRESH, "--target", "reference", "--out", "p", "--json").answer
    assert found == {
        "program": "p",
        "cores": None,
        "chips": None,
        "neurons": 138,
        # The input drives h1; h1 and the output drive each other.
        "synapses": 64 * 128 + 2 * 128 * 10,
        "weight_bytes": 4 * (64 * 128 + 128 * 10),
        "deployed": {},
        "violations": [],
    }


def test_fewer_bits_take_fewer_bytes(cli: Cli) -> None:
    words = ("compile", FRESH, "--target", "reference", "--out", "p", "--bits", 8, "--json")
    assert cli(*words).answer["weight_bytes"] == 64 * 128 + 128 * 10


def test_finer_messages_are_compiled_into_the_program(cli: Cli) -> None:
    words = ("compile", FRESH, "--target", "reference", "--out", "p", "--bits", 8)
    cli(*words, "--message-frac", 12)
    assert "messages .12" in cli("inspect", "p").out


def test_compile_lists_every_broken_limit_and_writes_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [Violation(f"core {i}", 9000.0, 8192.0, "narrow the layer") for i in (1, 2)]
    monkeypatch.setattr(targets.get("reference"), "check", lambda graph: broken)
    found = cli("compile", FRESH, "--target", "reference", "--out", "p", "--json")
    assert found.code == 1
    assert found.answer["program"] is None
    assert found.answer["violations"] == [str(v) for v in broken]
    assert found.err == (
        "error: target 'reference': 2 limits are broken; follow the remedies of the violations\n"
    )
    assert not Path("p").exists()
    text = cli("compile", FRESH, "--target", "reference", "--out", "p").out
    assert all(str(v) in text for v in broken)


def test_a_network_that_does_not_fit_lists_every_limit_and_exits_1(
    cli: Cli, tmp_path: Path
) -> None:
    spec = tmp_path / "wide.yaml"
    spec.write_text(
        "name: wide\ninput: {shape: [200000]}\n"
        "populations: [{name: h1, shape: [2]}]\ncouplings: [{pre: input, post: h1}]\n"
    )
    found = cli("compile", spec, "--target", "loihi2", "--json")
    assert found.code == 1
    assert found.answer["program"] is None
    assert len(found.answer["violations"]) == 3
    for violation in found.answer["violations"]:
        assert "exceed the limit of" in violation
        assert "; " in violation


def test_the_file_of_a_chip_is_a_target(cli: Cli) -> None:
    Path("chip.yaml").write_text(
        "name: abacus\ntarget: {summary: a toy, module: no_such_module, missing: build one}\n"
        "limits: {neurons_per_core: {value: 100, unit: neurons, source: counted}}\n"
    )
    found = cli("compile", FRESH, "--target", "chip.yaml", "--json").answer
    assert (found["cores"], found["violations"]) == (3, [])
    assert found["program"] == "runs/programs/digits_dense-abacus-graded"
    Path("chip.yaml").unlink()
    ended = cli("run", found["program"])
    assert (ended.code, "target 'abacus': it cannot run here: build one" in ended.err) == (2, True)


@pytest.mark.parametrize(("stage", "count"), [("encode", 1), ("all", 7)])
def test_stages_are_printed_on_request(cli: Cli, stage: str, count: int) -> None:
    words = ("compile", FRESH, "--target", "reference", "--out", "p", "--print-after", stage)
    found = cli(*words, "--json")
    assert found.err.count("# after ") == count
    assert found.answer["program"] == "p"


def test_inspect_tells_spec_config_model_program_and_graph_apart(
    cli: Cli, model: Path, program: Path
) -> None:
    Path("config.yaml").write_text("network: zoo:digits_dense\n")
    names = {
        FRESH: "spec",
        model / "spec.yaml": "spec",
        "config.yaml": "config",
        model: "model",
        program: "program",
        program / "graph.txt": "program",
    }
    assert {n: cli("inspect", n, "--json").answer["kind"] for n in names} == names
    text = cli("inspect", program).out
    Path("stage.txt").write_text(f"# after verify\n{text}")
    graph = cli("inspect", "stage.txt", "--json").answer
    assert graph["kind"] == "graph"
    assert graph["graph"].splitlines()[0] == text.splitlines()[0]


def test_what_inspect_prints_of_a_spec_is_that_spec(cli: Cli) -> None:
    Path("again.yaml").write_text(cli("inspect", FRESH).out)
    assert (
        cli("inspect", "again.yaml", "--json").answer["spec"]
        == cli("inspect", FRESH, "--json").answer["spec"]
    )


def test_run_reports_accuracy_and_cost(cli: Cli, program: Path) -> None:
    found = cli("run", program, "--limit", 6, "--json").answer
    assert found.keys() >= {
        *("accuracy", "events_per_sample", "synops_per_sample", "ms_per_sample")
    }
    assert found["samples"] == 6
    shorter = cli("run", program, "--limit", 6, "--steps", 2, "--json").answer
    assert 0 < shorter["events_per_sample"] < found["events_per_sample"]


def test_compare_gives_the_contracts_fields_and_tells_rows_as_they_come(cli: Cli) -> None:
    chosen = ("--with", "reference", "--with", "reference:spike:8")
    found = cli("compare", FRESH, *chosen, "--steps", 8, "--limit", 5, "--json")
    assert found.answer.keys() == {"rows", "deployed", "near_bifurcation", "largest_eigenvalue"}
    assert all(row.keys() == ROW for row in found.answer["rows"])
    ran = [(r["target"], r["code"], r["bits"]) for r in found.answer["rows"]]
    assert ran == [
        ("torch", "rate", None),
        ("reference", "graded", None),
        ("reference", "spike", 8),
    ]
    assert [line.partition(":")[0] for line in found.err.splitlines()] == [r[0] for r in ran]


def test_compare_writes_a_page_that_says_how_to_repeat_it(cli: Cli) -> None:
    words = ("compare", FRESH, "--with", "reference", "--limit", "6", "--steps", "8")
    page = cli(*words, "--out", "page", "--json").answer["report"]
    assert page == "page/report.html"
    assert f"ep-neuro {' '.join(words)} --out page" in Path(page).read_text()


def test_targets_that_cannot_run_come_with_their_install_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    absent = Availability(False, "it is not installed; `pip install it`")
    monkeypatch.setattr(targets.get("reference"), "available", lambda: absent)
    found = {t["name"]: t for t in cli("targets", "--json").answer["targets"]}
    assert found["reference"]["available"] is False
    assert "pip install it" in found["reference"]["reason"]
    assert "spike" in found["reference"]["features"]
    assert "pip install it" in cli("targets").out
    refused = cli("run", program)
    assert refused.code == 2
    assert "pip install it" in refused.err


def test_without_json_each_field_is_a_line(cli: Cli) -> None:
    found = cli("evaluate", FRESH, "--limit", 4)
    fields = [line.partition(":")[0] for line in found.out.splitlines()]
    assert fields == ["accuracy", "residual", "sweeps", "unsettled", "samples"]

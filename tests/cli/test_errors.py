"""Claims about errors: one line on stderr, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

FRESH = "zoo:digits_dense"

SPEC = """\
name: small
input: {shape: [1, 8, 8]}
populations:
- {name: h, shape: [4, 4, 4]}
- {name: output, shape: [10]}
couplings:
- {pre: input, post: h, kind: conv, kernel: 3, stride: 2, padding: 1}
- {pre: h, post: output}
"""


def refuse(cli: Cli, *words: object, says: tuple[str, ...]) -> None:
    """Claim that the command is refused in one line that `says` all this, and writes nothing."""
    before = snapshot()
    found = cli(*words)
    assert found.code == 2, found
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1, found.err
    for part in says:
        assert part in found.err
    assert snapshot() == before


def snapshot() -> dict[Path, int]:
    """Every file and folder below the working directory, with its time."""
    return {p: p.stat().st_mtime_ns for p in Path().rglob("*")}


@pytest.mark.parametrize("command", ["evaluate", "check", "inspect", "compare"])
def test_an_unknown_key_comes_with_the_nearest_known_one(cli: Cli, command: str) -> None:
    Path("spec.yaml").write_text(SPEC.replace("shape: [4", "shpae: [4"))
    refuse(cli, command, "spec.yaml", says=("spec.yaml", "shpae", "did you mean 'shape'?"))


def test_a_coupling_whose_shapes_do_not_match_is_named(cli: Cli) -> None:
    Path("spec.yaml").write_text(SPEC.replace("[4, 4, 4]", "[4, 5, 5]"))
    says = ("coupling 'input->h'", "[4, 4]", "[5, 5]", "give 'h' the shape [4, 4, 4]")
    refuse(cli, "compile", "spec.yaml", "--target", "reference", says=says)


def test_an_unknown_key_of_a_configuration_is_refused(cli: Cli) -> None:
    Path("config.yaml").write_text("network: zoo:digits_dense\nepoch: 3\n")
    refuse(cli, "train", "config.yaml", says=("config.yaml", "epoch", "did you mean 'epochs'?"))


def test_a_chip_is_not_asked_to_nudge_by_a_cross_entropy(cli: Cli) -> None:
    Path("spec.yaml").write_text(SPEC + "cost: cross-entropy\n")
    compiling = ("compile", "spec.yaml", "--target", "reference", "--steps", 8, "--out", "p")
    says = ("network 'small'", "beta (y - z)", "beta (y - softmax(z))", "cost: squared-error")
    refuse(cli, *compiling, "--learn", "contrastive", says=says)
    refuse(cli, *compiling, "--beta", 0.5, says=says)
    assert cli(*compiling).code == 0
    refuse(cli, "learn", "p", "--data", "digits", "--samples", 10, says=says)
    assert cli("run", "p", "--data", "digits", "--limit", 10).code == 0


def test_missing_and_truncated_weights_are_told_apart(cli: Cli, model: Path) -> None:
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refuse(cli, "evaluate", model, says=(str(weights), "truncated or damaged", "train again"))
    weights.unlink()
    refuse(cli, "evaluate", model, says=(str(weights), "missing", "train again"))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format_version", 99, "format version 99 is not 1"),
        ("hash", "0" * 64, "does not fit its hash"),
        ("target", "chip", "does not fit its hash"),
    ],
)
def test_a_program_of_another_version_or_hash_is_refused(
    cli: Cli, program: Path, key: str, value: object, says: str
) -> None:
    manifest = program / "program.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: value}))
    for command in ("run", "inspect"):
        refuse(cli, command, program, says=(str(program), says, "compile the model again"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("compile", FRESH, "--target", "lvaa"), ("target 'lvaa'", "did you mean 'lava'?")),
        (
            ("compile", FRESH, "--target", "reference", "--code", "spikes"),
            ("encoding 'spikes'", "did you mean 'spike'?"),
        ),
        (
            ("compile", FRESH, "--target", "reference", "--print-after", "nothing"),
            ("--print-after nothing", "choose from all, frontend"),
        ),
        (
            ("compile", FRESH, "--target", "reference", "--bits", "99"),
            ("weight bits", "99", "2 to 16"),
        ),
        (
            ("compile", FRESH, "--target", "reference", "--message-frac", "12"),
            ("messages", "floating point", "give bits"),
        ),
        (
            ("compile", FRESH, "--target", "reference", "--leak", "7"),
            ("leak", "7"),
        ),
        (("evaluate", FRESH, "--data", "mnits"), ("data 'mnits'", "did you mean 'mnist'?")),
        (("evaluate", FRESH, "--data", "digits:tset"), ("'tset'", "train, val, test")),
        (("evaluate", "zoo:digits_dens"), ("digits_dens", "did you mean 'digits_dense'?")),
        (("train", "zoo:digits_dens"), ("digits_dens", "did you mean 'zoo:digits_dense'?")),
        (("train", FRESH, "--set", "epochs"), ("--set epochs", "KEY=VALUE")),
        (("train", FRESH, "--set", "epochs=many"), ("epochs = many",)),
        (("compare", FRESH, "--with", "lvaa"), ("target 'lvaa'", "did you mean 'lava'?")),
        (("compare", FRESH, "--with", "lava:burst"), ("encoding 'burst'", "choose from graded")),
    ],
)
def test_an_unknown_name_comes_with_a_remedy(
    cli: Cli, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refuse(cli, *words, says=says)
    refuse(cli, *words, "--json", says=says)


@pytest.mark.parametrize(
    "command", ["evaluate", "train", "check", "inspect", "run", "compare", "compile"]
)
def test_a_missing_file_is_named(cli: Cli, command: str) -> None:
    more = ("--target", "reference") if command == "compile" else ()
    refuse(cli, command, "nowhere.yaml", *more, says=("nowhere.yaml", "give "))


def test_a_folder_without_images_is_refused(cli: Cli, program: Path) -> None:
    Path("empty").mkdir()
    for words in (("evaluate", FRESH), ("run", program)):
        refuse(cli, *words, "--data", "folder:empty", says=("empty", "image"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", FRESH, "--limit", "0"), ("--limit 0", "1", "ep-neuro evaluate --help")),
        (("evaluate", FRESH, "--limit=many"), ("--limit many", "integer")),
        (("run", "p", "--steps", "0"), ("--steps 0", "ep-neuro run --help")),
        (("evaluate",), ("MODEL", "ep-neuro evaluate --help")),
        (("compile", FRESH), ("--target", "ep-neuro compile --help")),
        (("evaluate", FRESH, "--lmit", "3"), ("--lmit", "--limit")),
        (("evalute", FRESH), ("evalute", "ep-neuro --help")),
        (("evaluate", FRESH, "two"), ("two", "ep-neuro evaluate --help")),
    ],
)
def test_wrong_usage_is_one_line_that_points_to_the_help(
    cli: Cli, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refuse(cli, *words, says=says)


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--out"),
        ("train", FRESH, "--out"),
        ("compile", FRESH, "--target", "reference", "--out"),
        ("compare", FRESH, "--out"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    cli: Cli, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    for name in (
        *("targets.experiments.demo.run_demo", "ep_neuro.training.loop.train"),
        *("compilers.compile", "targets.experiments.comparison.compare.compare"),
    ):
        monkeypatch.setattr(name, work)
    Path("file").write_text("in the way")
    refuse(cli, *words, "file", says=("file", "not a folder", "choose another place"))
    refuse(cli, *words, "file/below", says=("file/below", "cannot be written", "another place"))


@pytest.mark.parametrize(
    ("name", "owner"), [("x.nir", "nir"), ("x.NIR", "nir"), ("x.py", "brian2 or pynn")]
)
def test_a_program_gets_no_name_of_another_targets_file(
    name: str, owner: str, cli: Cli, program: Path
) -> None:
    says = (f"--out {name}", "target 'reference' writes no .", f"--target {owner}")
    refuse(cli, "compile", FRESH, "--target", "reference", "--out", name, says=says)
    refuse(cli, "learn", program, "--out", name, says=(f"--out {name}", "learn writes no ."))


def test_a_foreign_folder_is_not_replaced_by_a_program(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compilers.compile", lambda *_, **__: pytest.fail("began"))
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    words = ("compile", FRESH, "--target", "reference", "--out", "mine")
    refuse(cli, *words, says=("mine", "other content"))


def test_a_run_is_replaced_only_by_force(cli: Cli) -> None:
    words = ("train", FRESH, "--set", "epochs=1", "--out", "run")
    assert cli(*words).code == 0
    refuse(cli, *words, says=("run directory 'run'", "--resume", "--force", "--out"))
    refuse(cli, *words, "--resume", "--force", says=("--resume with --force", "choose one"))
    assert cli(*words, "--force").code == 0


def test_a_configuration_is_not_written_over_by_its_run(cli: Cli) -> None:
    Path("config.yaml").write_text("# mine\nnetwork: zoo:digits_dense\nepochs: 1\n")
    refuse(cli, "train", "config.yaml", "--out", ".", says=(".: is a directory", "other content"))


def test_a_model_of_data_in_memory_asks_for_data(cli: Cli, model: Path) -> None:
    notes = model / "metadata.json"
    notes.write_text(json.dumps({"epochs": 1, "data.sha256": "0" * 64}))
    refuse(cli, "evaluate", model, says=("trained on data in memory", "name some with --data"))
    assert cli("evaluate", model, "--data", "digits", "--limit", 3).code == 0
    assert cli("compile", model, "--target", "reference", "--steps", 8, "--out", "p").code == 0
    refuse(cli, "run", "p", says=("trained on data in memory", "name some with --data"))


@pytest.mark.parametrize("key", ["data", "estimator"])
def test_a_note_of_another_kind_is_refused(cli: Cli, model: Path, key: str) -> None:
    (model / "metadata.json").write_text(json.dumps({key: 5}))
    refuse(cli, "evaluate", model, says=("metadata.json", f"'{key}' is 5, not a text"))


def test_a_network_beyond_the_memory_is_refused_with_its_largest_coupling(cli: Cli) -> None:
    Path("giant.yaml").write_text(SPEC.replace("[10]", "[10000000000]"))
    says = ("network 'small'", "GB", "narrow a population at coupling 'h->output'")
    refuse(cli, "inspect", "giant.yaml", says=says)


@pytest.mark.parametrize(
    "error", [MemoryError("8 TiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_ran_out_is_one_line_with_a_remedy(
    cli: Cli, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ep_neuro.training.loop.evaluate", broken)
    refuse(cli, "evaluate", FRESH, "--limit", 2, says=("memory: it ran out", "take fewer samples"))


def test_a_closed_stdout_is_refused_before_the_work(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    refuse(cli, "evaluate", FRESH, says=("stdout", "is closed", "/dev/null"))


def test_an_answer_that_does_not_fit_on_the_disk_is_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sys.stdout", Full())
    found = cli("targets", "--json")
    assert found.code == 2
    assert found.err.startswith("error: stdout: the answer cannot be written (No space left")
    assert found.err.endswith("; make room, or let it lead elsewhere\n")


def test_a_trace_that_cannot_be_written_is_refused(cli: Cli, program: Path) -> None:
    Path("file").write_text("in the way")
    for place in ("file/trace.npz", "."):
        refuse(cli, "run", program, "--trace", place, says=(place, "choose another place"))


@pytest.mark.parametrize("order", [lambda words: ["--debug", *words], lambda w: [*w, "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    cli: Cli, order: Callable[[list[str]], list[str]]
) -> None:
    found = cli(*order(["evaluate", "nowhere.yaml"]))
    assert found.code == 2
    assert "Traceback" in found.err
    assert found.err.splitlines()[-1].startswith("error: model 'nowhere.yaml'")


def test_an_unforeseen_error_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("ep_neuro.training.loop.evaluate", broken)
    found = cli("evaluate", FRESH, "--limit", 2)
    assert (found.code, found.out) == (1, "")
    assert found.err == (
        "error: unforeseen ZeroDivisionError: by zero; run with --debug and report the traceback\n"
    )


def test_ctrl_c_exits_130_without_a_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ep_neuro.training.loop.evaluate", interrupted)
    found = cli("evaluate", FRESH, "--limit", 2)
    assert (found.code, found.out) == (130, "")
    assert found.err == "error: interrupted; files written so far are whole\n"


@pytest.mark.parametrize("command", ["evaluate", "compare", "view"])
def test_data_that_only_the_notes_of_a_model_name_are_told_of_if_they_are_not_here(
    cli: Cli, command: str
) -> None:
    found = cli(command, "hub:cifar10_resnet")
    assert found.code == 2
    assert "'npz:cifar10-jpeg.npz': the model was trained on them" in found.err
    assert "--data npz:FILE" in found.err

"""Claims about `compare`: sweeps, layers and options, in JSON, on the page and in their errors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from compilers import load_program
from ep_neuro.cli import targets as command
from targets.experiments.comparison import report_page
from tests.cli.conftest import Cli

FRESH = "zoo:digits_dense"
FEW = ("--limit", "6")


def test_a_sweep_gives_a_row_for_each_point_and_marks_the_front(cli: Cli) -> None:
    chosen = ("--with", "reference", "--with", "reference:spike", "--sweep", "steps=8,2")
    rows = cli("compare", FRESH, *chosen, *FEW, "--json").answer["rows"]
    assert [(row["code"], row["steps"]) for row in rows] == [
        *(("rate", None), ("graded", 2), ("graded", 8), ("spike", 2), ("spike", 8))
    ]
    assert {row["pareto"] for row in rows} == {True, False}
    assert not rows[0]["pareto"]


def test_both_axes_may_be_swept_at_once(cli: Cli) -> None:
    sweeps = ("--sweep", "steps=2,4", "--sweep", "bits=8,float")
    rows = cli("compare", FRESH, "--with", "reference", *sweeps, *FEW, "--json").answer["rows"]
    points = [(row["bits"], row["steps"]) for row in rows[1:]]
    assert points == [(8, 2), (8, 4), (None, 2), (None, 4)]


def test_layers_are_in_the_answer_and_in_a_table_of_their_own(cli: Cli) -> None:
    words = ("compare", FRESH, "--with", "reference::4", "--steps", "6", *FEW, "--layerwise")
    layers = cli(*words, "--json").answer["layerwise"]
    assert [(x["code"], x["bits"], x["steps"], x["population"]) for x in layers] == [
        *(("graded", 4, 6, "h1"), ("graded", 4, 6, "output"))
    ]
    assert all(len(x["relative_rms_by_step"]) == 6 for x in layers)
    assert all(x["relative_rms"] > 0 for x in layers)
    text = cli(*words).out
    assert "Departure from the equilibrium" in text
    assert "layerwise" not in cli(*words[:-1], "--json").answer
    assert "Departure" not in cli(*words[:-1]).out


def test_the_page_and_the_figures_beside_it_show_the_sweep_and_the_layers(cli: Cli) -> None:
    words = ("--with", "reference", "--sweep", "steps=2,4", "--layerwise", "--out", "page")
    answer = cli("compare", FRESH, *words, *FEW, "--json").answer
    page = Path(answer["report"]).read_text()
    for section in ("sweep", "costs", "layerwise"):
        assert f'<section id="{section}"' in page
    # The sweep over steps takes the place of the trade-off on the reference.
    assert '<section id="tradeoff"' not in page
    assert sorted(p.name for p in Path("page").iterdir()) == [
        *("accuracy_steps.svg", "layerwise.svg", "pareto.svg", "report.html")
    ]
    assert all("<svg" in path.read_text() for path in Path("page").glob("*.svg"))


def test_a_page_without_a_sweep_estimates_the_learning_step_too(cli: Cli) -> None:
    cli("compare", FRESH, "--with", "reference", "--steps", "4", *FEW, "--out", "page")
    page = Path("page/report.html").read_text()
    assert '<section id="sweep"' not in page
    costs = page[page.index('<section id="costs"') : page.index('<section id="neurobench"')]
    (cells,) = [part for part in costs.split("<tr>") if 'data-key="reference graded"' in part]
    assert cells.count("J</td>") == 5
    assert [p.name for p in Path("page").iterdir()] == ["report.html"]


def test_rows_that_ran_have_the_figures_of_neurobench_in_json(cli: Cli) -> None:
    torch, row = cli("compare", FRESH, "--with", "reference::8", *FEW, "--json").answer["rows"]
    assert torch["neurobench"] is None
    assert list(row["neurobench"]) == [
        *("footprint", "connection_sparsity", "activation_sparsity", "effective_macs"),
        *("effective_acs", "dense", "membrane_updates", "reason"),
    ]
    assert row["neurobench"]["effective_macs"] < row["synops"]


def test_the_harness_of_neurobench_stands_below_our_figures(cli: Cli) -> None:
    pytest.importorskip("neurobench", reason="NeuroBench is not installed")
    words = ("compare", FRESH, "--with", "reference:spike:8", "--steps", "8", *FEW, "--neurobench")
    answer = cli(*words, "--json").answer
    (theirs,), ours = answer["harness"], answer["rows"][1]["neurobench"]
    assert theirs["neurobench"].pop("reason") is ours.pop("reason") is None
    # The harness rounds the sparsity of connections to four digits.
    assert theirs["neurobench"] == pytest.approx(ours, abs=5e-5)
    text = cli(*words).out
    assert text.index("ep-neuro") < text.index("harness")


def test_without_neurobench_the_harness_is_refused_in_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    done = cli("compare", FRESH, *FEW, "--neurobench")
    assert done.code == 2
    assert "--neurobench: NeuroBench is not installed; `pip install 'ep-neuro" in done.err


def test_a_second_page_leaves_no_figure_of_the_first(cli: Cli) -> None:
    words = ("compare", FRESH, "--with", "reference", *FEW, "--out", "page")
    assert cli(*words, "--sweep", "steps=2,4", "--layerwise").code == 0
    (note := Path("page/notes.txt")).write_text("mine")
    assert cli(*words, "--sweep", "bits=8,float").code == 0
    left = {"accuracy_bits.svg", "pareto.svg", "report.html", note.name}
    assert {p.name for p in Path("page").iterdir()} == left


def test_a_second_page_that_fails_loses_nothing_of_the_first(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("compare", FRESH, "--with", "reference", *FEW, "--out", "page", "--sweep")
    assert cli(*words, "steps=2,4").code == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "page")

    for fails in ("write_report", "save_figure"):
        before = {p: p.read_bytes() for p in Path("page").iterdir()}
        with monkeypatch.context() as patch:
            patch.setattr(report_page.report, fails, full)
            assert "page: No space left on device; make room" in cli(*words, "bits=8,float").err
        after = {p: p.read_bytes() for p in Path("page").iterdir()}
        page = Path("page/report.html")
        assert fails == "write_report" or before.pop(page) != after.pop(page)
        assert after == before


def test_a_figure_of_somebody_else_beside_the_page_is_refused(cli: Cli) -> None:
    words = ("compare", FRESH, "--with", "reference", *FEW, "--out", "page")
    assert cli(*words).code == 0
    Path("page/pareto.svg").write_text("<svg>mine</svg>")
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert "page/pareto.svg: is a file with other content" in done.err
    assert Path("page/pareto.svg").read_text() == "<svg>mine</svg>"


def test_a_coarser_precision_sends_fewer_events_of_sigma_delta_alone(cli: Cli) -> None:
    def events(*words: object) -> list[float]:
        choices = ("--with", "reference:sigma-delta", "--with", "reference:spike")
        rows = cli("compare", FRESH, *choices, "--steps", 8, *FEW, *words, "--json").answer["rows"]
        return [row["events"] for row in rows[1:]]

    (fine, spikes), (coarse, same) = events("--precision", 0.001), events("--precision", 0.1)
    assert coarse < fine
    assert same == spikes
    words = ("compile", FRESH, "--target", "reference", "--code", "sigma-delta", "--out", "p")
    cli(*words, "--precision", 0.1, "--steps", 8)
    program = load_program("p")
    assert program.graph.population("output").dynamics.end == 0.1


def test_an_option_reaches_the_program(cli: Cli) -> None:
    words = ("compile", FRESH, "--target", "lava", "--option", "lowering=faithful", "--out", "p")
    cli(*words, "--option", "batch=3")
    assert load_program("p").options == {"lowering": "faithful", "batch": 3}


def test_what_is_kept_does_not_run_again_and_gives_the_same_rows(cli: Cli) -> None:
    words = ("compare", FRESH, "--with", "reference", "--with", "reference:sigma-delta", *FEW)
    more = (*words, "--layerwise", "--keep", "kept", "--json")
    first = cli(*more, "--sweep", "steps=2,4")
    files = sorted(Path("kept").iterdir())
    second = cli(*more, "--sweep", "steps=2,4")
    assert "4 of 4 jobs are in kept, and do not run again" in second.err
    assert second.answer == first.answer
    assert sorted(Path("kept").iterdir()) == files
    # Another length of sigma-delta is a job of its own, and of graded messages another program.
    assert "3 of 5 jobs" in cli(*more, "--sweep", "steps=2,4,6").err
    other = cli(*more, "--data", "digits:val")
    assert (other.code, other.out) == (2, "")
    assert "kept: holds jobs of other inputs (data differs)" in other.err


def test_a_page_and_kept_jobs_do_not_share_a_folder(cli: Cli) -> None:
    done = cli("compare", FRESH, *FEW, "--out", "page", "--keep", "page/jobs")
    assert (done.code, done.out) == (2, "")
    assert "--keep page/jobs: shares its place with page" in done.err
    assert not Path("page").exists()


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(cli: Cli) -> None:
    words = ("compare", FRESH, "--with", "reference", "--with", "reference:spike:8", *FEW)
    one, two = (
        cli(*words, "--layerwise", "--json", *jobs).answer for jobs in ((), ("--jobs", "2"))
    )
    for row in (*one["rows"], *two["rows"]):
        del row["ms_per_sample"]
    assert two == one


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--jobs", "0"), ("--jobs 0: fewer than 1 job at a time",)),
        (("--jobs", "2", "--dask", "tcp://a:1"), ("--jobs 2", "workers of its own", "drop one")),
        (("--sweep", "stpes=8"), ("--sweep stpes=8", "did you mean 'steps'?")),
        (("--sweep", "steps=eight"), ("'eight' is no number of steps", "steps=8,16,32,64")),
        (("--sweep", "bits=1"), ("'1' is no number of bits from 2 to 16",)),
        (("--sweep", "steps=8", "--steps", "4"), ("--steps 4", "swept", "drop --steps")),
        (("--sweep", "bits=8", "--with", "reference:spike:4"), ("names 4 bits", "drop one")),
        (("--option", "lowering"), ("--option lowering", "KEY=VALUE")),
        (
            ("--option", "lowring=faithful"),
            ("option 'lowring'", "batch, lowering", "did you mean 'lowering'?"),
        ),
        (("--option", "lowering=fast"), ("is 'fast'", "choose from batched, faithful")),
        (("--with", "nir", "--option", "chips=2"), ("with nir", "takes reader, samples")),
        (("--option", "precision=single"), ("'single'", "float64, float32")),
        (("--with", "reference", "--precision", "0.01"), ("graded messages", "take sigma-delta")),
        (("--precision", "0"), ("--precision 0", "0.000001")),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    cli: Cli, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    found = cli("compare", FRESH, *words, "--out", "page", "--json")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1, found.err
    for part in says:
        assert part in found.err
    assert not Path("page").exists()


@pytest.mark.parametrize(
    ("target", "option", "says"),
    [
        ("loihi2", "chip=2", ("option 'chip'", "target 'loihi2' takes chips", "'chips'?")),
        ("loihi2", "chips=two", ("chips", "'two'", "give a whole number from 1 to")),
        ("pynn", "chips=2", ("target 'pynn' takes no options", "leave it out")),
        ("reference", "chips=2", ("target 'reference' takes precision, device",)),
    ],
)
def test_compile_refuses_an_option_that_its_target_lacks(
    cli: Cli, target: str, option: str, says: tuple[str, ...]
) -> None:
    found = cli("compile", FRESH, "--target", target, "--option", option, "--out", "p")
    assert (found.code, found.out) == (2, "")
    assert found.err.count("\n") == 1, found.err
    for part in says:
        assert part in found.err
    assert not Path("p").exists()


def test_the_page_of_a_trained_model_tells_how_true_its_gradient_was(cli: Cli) -> None:
    kind = ("--set", "estimator.kind=frozen-mean", "--set", "epochs=1")
    done = cli("train", FRESH, *kind, "--out", "run", "--json").answer
    assert done["gradient_cosine"] > 0.9
    cli("compare", done["model"], "--with", "reference", "--steps", "4", *FEW, "--out", "page")
    page = Path("page/report.html").read_text()
    assert "How true the gradient was" in page
    assert "(0.99 was asked" in page

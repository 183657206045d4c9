"""The report page: whole, self-contained, the same for the same data, and true to its numbers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.image import imread

from ep_neuro.errors import ConfigError, DataError
from ep_neuro.report import (
    Activity,
    Answers,
    EncodingActivity,
    LearningCurve,
    ReportData,
    RunInfo,
    SettlingCurve,
    TargetRow,
    Tradeoff,
    event_ratio,
    render_report,
    write_report,
)
from ep_neuro.report.plots import formatting
from ep_neuro.report.plots.palette import COLOURS, LIGHT
from ep_neuro.report.svg import image_uri
from tests.helpers.report_example import CODES, SECTIONS, example_report

SECTION_OF = {
    "rows": "targets",
    "tradeoffs": "tradeoff",
    "costs": "costs",
    "departures": "layerwise",
    "settling": "settling",
    "activity": "activity",
    "answers": "answers",
    "learning": "learning",
    "truth": "gradient",
}


class Outline(HTMLParser):
    """Headings, ids, addresses and nesting of a page."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.unlabelled: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "section":
            self.sections.append(str(values["id"]))
        self.addresses += [str(values[k]) for k in ("href", "src", "xlink:href") if k in values]
        if (tag == "img" and not values.get("alt")) or (
            tag == "svg" and not values.get("aria-label")
        ):
            self.unlabelled.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(example_report())


# --- the page ------------------------------------------------------------------------------------


def test_every_part_has_its_section(page: str) -> None:
    assert tuple(Outline(page).sections) == SECTIONS


@pytest.mark.parametrize("part", SECTION_OF)
def test_each_part_stands_alone(part: str) -> None:
    data = ReportData(RunInfo("m"), **{part: getattr(example_report(), part)})
    outline = Outline(render_report(data))
    # Rows that ran have NeuroBench's figures, which are a section.
    assert outline.sections == [SECTION_OF[part], *["neurobench"] * (part == "rows")]
    assert outline.open == []


def test_a_report_of_a_name_alone_is_a_whole_page() -> None:
    page = render_report(ReportData(RunInfo("bare")))
    outline = Outline(page)
    assert outline.sections == []
    assert outline.open == []
    assert "<h1>bare</h1>" in page


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    assert all(address.startswith(("data:", "#")) for address in Outline(page).addresses)
    assert "@import" not in page
    assert not re.search(r"(https?:)?//\w+\.\w", page)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_ids_are_unique_and_every_reference_has_its_target(page: str) -> None:
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", page))
    wanted |= {a[1:] for a in outline.addresses if a.startswith("#")}
    wanted |= set(re.findall(r'aria-labelledby="([^"]+)"', page))
    assert wanted
    assert wanted <= set(outline.ids)


def test_headings_descend_one_level_at_a_time_and_figures_are_described(page: str) -> None:
    outline = Outline(page)
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(outline.levels, outline.levels[1:], strict=False))
    assert outline.unlabelled == []
    assert outline.open == []


def test_the_same_data_gives_the_same_page(page: str) -> None:
    assert render_report(example_report()) == page


def test_a_full_page_is_under_two_megabytes(page: str) -> None:
    assert len(page.encode()) < 2_000_000


def test_names_cannot_inject_markup() -> None:
    bad = "<script>alert(1)</script>$x_1$"
    page = render_report(
        ReportData(
            RunInfo(bad, commands=[bad], details={bad: bad}),
            rows=[TargetRow(bad, bad)],
            settling=[SettlingCurve(bad, [1.0, 0.1], [0.0, -1.0])],
            activity=Activity([EncodingActivity(bad, {bad: [1, 2]}, {bad: np.ones((2, 3))})]),
            notes=[bad],
        )
    )
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x_1$</text>" in page


def test_writing_replaces_the_page_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    for name in ("old", "new"):
        assert write_report(ReportData(RunInfo(name)), path) == path
    assert path.read_text(encoding="utf-8") == render_report(ReportData(RunInfo("new")))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"report\.html: cannot be written .*; choose another"):
        write_report(ReportData(RunInfo("m")), tmp_path / "file" / "report.html")


def test_figures_take_every_colour_from_the_page(page: str) -> None:
    assert set(re.findall(r"var\(--([\w-]+)\)", page)) <= set(COLOURS)
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) >= 12
    assert not any(re.search(r"#[0-9a-f]{6}|<style|rgb", drawing) for drawing in drawings)
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_figures_keep_their_text_as_text_with_units(page: str) -> None:
    for label in ("residual (box heights)", "events per sample", "accuracy (%)", "sweep"):
        assert f">{label}</text>" in page


def test_a_page_of_a_deep_network_and_colour_images_stays_under_two_megabytes() -> None:
    rng = np.random.default_rng(0)
    sizes = [500] * 8 + [10]
    messages = {f"population{i}": rng.random((256, n)) < 0.3 for i, n in enumerate(sizes)}
    events = {name: raster.sum(1) for name, raster in messages.items()}
    found = {"graded": np.zeros(60), "spike": np.ones(60)}
    data = ReportData(
        RunInfo("deep"),
        activity=Activity([EncodingActivity(code, events, messages) for code in CODES]),
        answers=Answers(rng.random((60, 3, 32, 32)), np.zeros(60), found),
    )
    page = render_report(data)
    assert len(page.encode()) < 2_000_000
    assert "60 of 60 samples get more than one answer; the first 24 are shown." in page


# --- rows ----------------------------------------------------------------------------------------


def test_table_shows_every_value_of_compare_and_a_dash_for_what_is_missing(page: str) -> None:
    table = page[: page.index('<section id="sweep"')]
    rows = re.findall(r"<tr><th scope=\"row\" data-key.*?</tr>", table, re.S)
    assert len(rows) == len(example_report().rows)
    cells = [re.sub(r"<[^>]+>", "", c) for c in re.findall(r"<td.*?</td>", rows[3])]
    thin_space = formatting.NO_BREAK
    assert [c.replace(thin_space, " ") for c in cells] == [
        "float", "64", "97.5 %", "99.4 %", "2 124", "8.38× fewer", "171 000", "4.1 µJ", "3.5", "yes"
    ]  # fmt: skip
    assert rows[0].count(f">{formatting.MISSING}</td>") == 6


def test_events_are_compared_with_graded_on_the_same_target() -> None:
    rows = [
        TargetRow("a", "graded", events=100),
        TargetRow("b", "graded", events=50),
        TargetRow("b", "spike", events=10),
        TargetRow("c", "spike", events=10),
        TargetRow("torch", "rate"),
    ]
    assert [event_ratio(r, rows) for r in rows] == [1, 1, 0.2, 0.1, None]
    assert event_ratio(rows[2], rows[2:]) is None


def test_of_several_numbers_of_steps_the_best_is_what_others_are_compared_with() -> None:
    rows = [
        TargetRow("a", "graded", accuracy=0.9, events=50, steps=8),
        TargetRow("a", "graded", accuracy=0.98, events=100, steps=16),
        TargetRow("a", "graded", accuracy=0.98, events=400, steps=64),
        TargetRow("a", "sigma-delta", accuracy=0.97, events=20, steps=64),
    ]
    assert [event_ratio(r, rows) for r in rows] == [0.5, 1, 4, 0.2]
    page = render_report(ReportData(RunInfo("m"), rows=rows))
    assert "<strong>5×</strong>" in page
    assert "against graded at 16 steps" in page


def test_percentages_in_place_of_fractions_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 'lava spike' accuracy: 97.2 exceeds 1"):
        TargetRow("lava", "spike", accuracy=97.2)
    with pytest.raises(DataError, match="fraction"):
        Tradeoff("spike", [1], [1], [97.2])
    with pytest.raises(DataError, match="fraction"):
        LearningCurve("t", [1], accuracy={"test": [97.2]})


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.4e-5, "34 µJ"), (9.999e-7, "1 µJ"), (0.0, "0 J"), (2e-13, "0.2 pJ"), (None, "–")],
)
def test_energies_take_the_prefix_that_fits(value: float | None, text: str) -> None:
    shown = formatting.joules(value).replace(formatting.NO_BREAK, " ")
    assert shown == text.replace("0.2 pJ", "200 fJ")


@given(st.floats(1e-14, 1e3))
def test_energies_keep_three_digits(value: float) -> None:
    number, unit = formatting.joules(value).split(formatting.NO_BREAK)
    scale = {"kJ": 1e3, "J": 1, "mJ": 1e-3, "µJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12, "fJ": 1e-15}[unit]
    assert float(number) * scale == pytest.approx(value, rel=5.1e-3)


def test_neurobench_has_a_table_of_its_own_with_the_reason_of_each_dash(page: str) -> None:
    table = page[page.index('<section id="neurobench"') : page.index('<section id="layerwise"')]
    rows = re.findall(r"<tr><th scope=\"row\" data-key.*?</tr>", table, re.S)
    assert len(rows) == len(example_report().rows) - 1
    cells = [re.sub(r"<[^>]+>", "", c) for c in re.findall(r"<td.*?</td>", rows[0])]
    assert [c.replace(formatting.NO_BREAK, " ") for c in cells] == [
        "16", "149 kB", "1.3 %", "93.0 %", "1 287 000", "0", "5 400 000", "–"
    ]  # fmt: skip
    assert table.count("A dash: invented.") == 1
    rows_of_torch = ReportData(RunInfo("m"), rows=[TargetRow("torch", "rate")])
    assert "NeuroBench" not in render_report(rows_of_torch)


# --- answers -------------------------------------------------------------------------------------


@given(arrays(int, (3, 12), elements=st.integers(0, 2)))
def test_disagreements_are_the_samples_with_more_than_one_answer(table: np.ndarray) -> None:
    given_answers = dict(zip("abc", table, strict=True))
    answers = Answers(np.zeros((12, 2, 2)), np.zeros(12), given_answers)
    expected = [i for i in range(12) if len(set(table[:, i])) > 1]
    assert answers.disagreements.tolist() == expected


def test_agreement_on_everything_is_said_in_words() -> None:
    same = Answers(np.zeros((5, 2, 2)), np.arange(5), {"a": np.arange(5), "b": np.arange(5)})
    page = render_report(ReportData(RunInfo("m"), answers=same))
    assert "the same answer to all 5 samples" in page


def test_a_disagreement_shows_the_image_the_label_and_each_answer() -> None:
    image = np.eye(4)
    answers = Answers([image], [2], {"rate": [2], "spike": [0]}, classes=["ant", "bee", "cat"])
    page = render_report(ReportData(RunInfo("m"), answers=answers))
    assert image_uri(image) in page
    assert re.search(r"<b>cat</b>.*rate</dt><dd class=\"right\">cat .*\"wrong\">ant ", page, re.S)


def test_images_survive_the_way_into_the_page(tmp_path: Path) -> None:
    import base64

    colour = np.random.default_rng(0).random((3, 5, 4))
    path = tmp_path / "image.png"
    path.write_bytes(base64.b64decode(image_uri(colour).partition(",")[2]))
    np.testing.assert_allclose(imread(path), np.moveaxis(colour, 0, -1), atol=0.5 / 255 + 1e-6)


# --- malformed parts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SettlingCurve("free", [[1.0]]), r"settling 'free' residual: shape \(1, 1\)"),
        (lambda: Tradeoff("s", [1, 2], [1], [0.5]), r"trade-off 's': lengths differ \(steps 2, e"),
        (lambda: EncodingActivity("s", {"a": [1], "b": [1, 2]}), r"lengths differ \(a 1, b 2\)"),
        (lambda: EncodingActivity("s", {}, {"a": [1, 2]}), r"messages 'a': shape \(2,\)"),
        (lambda: Answers(np.zeros((2, 3, 3)), [1], {}), r"images 2, labels 1"),
        (lambda: Answers(np.zeros((1, 2, 3, 3)), [1], {}), r"shape \(2, 3, 3\) is not an image"),
        (lambda: LearningCurve("t", [1, 2], loss={"x": [1]}), r"'t': lengths differ"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(make, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()

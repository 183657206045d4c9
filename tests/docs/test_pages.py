"""Claims about README and docs: links lead somewhere, commands exist, code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

import compilers
import ep_neuro
import targets
from ep_neuro.cli import app
from tests.docs.pages import DOCS, PAGES, ROOT, anchors, blocks, commands, links

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@each_page
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    dead = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            dead.append(link)
    assert not dead


def problem(words: list[str]) -> str | None:
    """What the command line has against a command, apart from the values."""
    group = typer.main.get_command(app)
    with group.make_context("ep-neuro", [], resilient_parsing=True) as context:
        if words[0].startswith("--") or words[0] == "COMMAND":
            return None
        command = group.get_command(context, words[0])
        if command is None:
            return f"no command {words[0]}"
        with type(context)(command, info_name=words[0], parent=context) as inner:
            try:
                _, rest, _ = command.make_parser(inner).parse_args(words[1:])
            except Exception as error:  # typer keeps the class of a usage error to itself
                return f"{words}: {error}"
    return f"{words}: {rest} too many" if rest else None


@each_page
def test_every_command_and_option_exists(page: Path) -> None:
    assert not [found for words in commands(page) if (found := problem(words))]


def test_commands_are_found_and_wrong_ones_told() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 50
    assert problem(["learn", "DIR", "--rate", "0.2", "--batch", "4"]) is None
    assert "no command" in str(problem(["lern", "DIR"]))
    assert "--rat" in str(problem(["learn", "DIR", "--rat", "0.2"]))


@each_page
def test_every_block_of_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_the_python_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    accuracy, events = map(float, capsys.readouterr().out.split())
    assert accuracy > 0.9
    assert events > 0
    assert not any(tmp_path.iterdir())


MEASURED = ("deploying", "learning-on-chip", "measured", "start", "targets", "training")


@pytest.mark.parametrize("name", MEASURED)
def test_every_table_of_figures_says_on_what_machine_and_when(name: str) -> None:
    text, tables = (DOCS / f"{name}.md").read_text(), 0
    for table in re.finditer(r"(?:^\|.*\n)+", text, re.MULTILINE):
        if not re.search(r"\| *\d[\d.,]*(?: ?%| x|,| ?B| *\||;)", table[0].split("---|\n", 1)[1]):
            continue
        tables += 1
        below = text[table.end() :].lstrip().split("\n\n", 1)[0]
        assert re.match(r"\*\[Machine\]\(\S*#the-machine\), 20\d\d-\d\d-\d\d, [0-9a-f]{7}\b", below)
    assert tables


def test_the_reference_has_every_public_name() -> None:
    named = set(re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.MULTILINE))
    public = {f"{p.__name__}.{n}" for p in (ep_neuro, compilers, targets) for n in p.__all__}
    assert not public - named


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120

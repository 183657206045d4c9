"""The pages that people read, and what stands in them: links, headings, commands, code."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TUTORIALS = sorted(DOCS.glob("tutorials/*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *TUTORIALS]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TOLD = re.compile(rf"{_FENCE.pattern}|`([^`]+)`", re.DOTALL | re.MULTILINE)
_CALLED = re.compile(
    r"(?:ep-neuro|export|make|pip|(?:\S*/)?python[\d.]*|pytest|sh|torchrun|uv|\S*/(?:pre-commit|run))"
    r"(?!\S)(?: (?!--as)\S|(?<=/run))"
)
_OURS = re.compile(r"(?:ep-neuro|(?:\S*python|torchrun .*?) -m ep_neuro)\s+(.+)", re.DOTALL)


def text_of(page: Path) -> str:
    """A page in Markdown; of a notebook, what stands between its code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown") + "\n"


def told(page: Path) -> Iterator[tuple[str, str]]:
    """Blocks and commands in the order of the page: the language, ``sh`` of a command, and text.

    Further options in the text, ``--with ...``, go behind the last command.
    """
    last = ""
    for found in _TOLD.finditer(text_of(page)):
        language, block, span = found.groups()
        if span is None and language != "sh":
            yield language, block
            continue
        # In a cell of a table a bar is written with a backslash.
        lines = [span.replace("\\|", "|")] if span else block.replace("\\\n", " ").splitlines()
        for line in lines:
            said = " ".join(line.split())
            if _CALLED.match(said):
                last = said
            elif not (span and said.startswith("--with ")):
                continue
            yield "sh", said if said is last else f"{last} {said}"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of `page` in one language."""
    return [text for kind, text in _FENCE.findall(text_of(page)) if kind == language]


def links(page: Path) -> list[str]:
    """Where the links and pictures of `page` lead, but for other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text_of(page)))
    return [link for link in found if not re.match(r"https?:", link)]


def anchors(page: Path) -> set[str]:
    """The names by which the headings of `page` are reached."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in headings}


def shell(page: Path) -> list[str]:
    """Every command of `page`."""
    return [text for language, text in told(page) if language == "sh"]


def ours(line: str) -> list[str] | None:
    """The words behind ``ep-neuro``; None of another program."""
    found = _OURS.match(line)
    return shlex.split(found[1], comments=True) if found else None


def commands(page: Path) -> list[list[str]]:
    """The words behind ``ep-neuro`` of each command of `page`."""
    return [words for line in shell(page) if (words := ours(line)) is not None]

"""The pages that people read, and what stands in them: links, headings, commands, code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TUTORIALS = sorted(DOCS.glob("tutorials/*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *TUTORIALS]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    """A page in Markdown; of a notebook, what stands between its code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown") + "\n"


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


def commands(page: Path) -> list[list[str]]:
    """The words behind ``ep-neuro`` of each command in `page`, from blocks and from the text."""
    text = text_of(page)
    lines = [line for _, block in _FENCE.findall(text) for line in _joined(block)]
    spans = re.findall(r"`([^`]+)`", _FENCE.sub("", text))
    found = []
    for line in [*lines, *spans]:
        start = re.match(r"(?:ep-neuro|(?:\S*python|torchrun .*?) -m ep_neuro)\s+(.+)", line, re.S)
        if start:
            # In a cell of a table a bar is written with a backslash.
            found.append(shlex.split(start[1].replace("\\|", "|"), comments=True))
    return found


def _joined(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()

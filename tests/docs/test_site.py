"""Claims about the site: it builds without a warning, no link is dead, nothing loads from afar."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer

from ep_neuro.cli import app
from tests.docs.pages import DOCS, ROOT, TUTORIALS


class Page(HTMLParser):
    """The places that a page leads to, those in it, and the pictures without words."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.places: set[str] = set()
        self.silent: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag leads to, and what leads to it."""
        found = {key: value or "" for key, value in attrs}
        self.leads += [found[key] for key in ("href", "src") if found.get(key)]
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "img" and not found.get("alt"):
            self.silent.append(found.get("src", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (the extra docs)")
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    known = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


def test_the_site_has_every_page_and_command_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in (*DOCS.glob("*.md"), *TUTORIALS):
        built = (site / page.relative_to(DOCS).with_suffix(".html")).read_text()
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', built)
        assert not loaded, page
        assert "mathjax" not in built.lower(), page
    written = (site / "cli.html").read_text()
    for name in typer.main.get_command(app).commands:
        assert f"Usage: ep-neuro {name}" in written


def test_no_link_of_the_site_is_dead_and_every_picture_has_words(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        assert not page.silent, path
        for lead in page.leads:
            there = urlsplit(lead)
            # The page for what is not found names the others from the root of a server.
            if there.scheme or path.name == "404.html":
                continue
            to = (path.parent / unquote(there.path)).resolve() if there.path else path
            place = unquote(there.fragment)
            known = pages[to].places if to in pages else set()
            if not to.is_file() or (place and place not in known):
                dead.append(f"{path.name}: {lead}")
    assert not dead

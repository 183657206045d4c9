"""Claims about the site: it builds without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ep_neuro.cli import app
from tests.docs.pages import DOCS, ROOT, TUTORIALS


def test_the_site_builds_strictly_and_has_every_page_and_command(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (the extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    known = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (*DOCS.glob("*.md"), *TUTORIALS):
        built = (tmp_path / page.relative_to(DOCS).with_suffix(".html")).read_text()
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', built)
        assert not loaded, page
        assert "mathjax" not in built.lower(), page
    written = (tmp_path / "cli.html").read_text()
    for name in typer.main.get_command(app).commands:
        assert f"Usage: ep-neuro {name}" in written

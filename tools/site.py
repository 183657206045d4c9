"""Hooks of the documentation site (mkdocs.yml): the commands write a page, nothing is fetched."""

from __future__ import annotations

import re
from typing import Any

import typer

from ep_neuro.cli import app

PLACE = "<!-- every command -->"
"""Where `docs/cli.md` wants them."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page, with the help of each command in its place."""
    return markdown.replace(PLACE, commands()) if PLACE in markdown else markdown


def on_post_page(output: str, **_: Any) -> str:
    """A page without the script by which mkdocs-jupyter fetches MathJax; no notebook has math."""
    return re.sub(r"<script data-mkdocs-jupyter-mathjax.*?</script>", "", output, flags=re.DOTALL)


def commands() -> str:
    """What ``ep-neuro --help`` and then ``ep-neuro COMMAND --help`` print, a section each."""
    group = typer.main.get_command(app)
    with group.make_context("ep-neuro", [], resilient_parsing=True) as parent:
        texts = [("ep-neuro", group.get_help(parent))]
        for name, command in group.commands.items():
            context = type(parent)(command, info_name=name, parent=parent)
            texts.append((f"ep-neuro {name}", command.get_help(context)))
    return "\n\n".join(f"## {name}\n\n```text\n{text.strip()}\n```" for name, text in texts)

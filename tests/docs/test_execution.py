"""Claims about what the pages tell a reader to type: every block and command of a page works."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import compilers
import ep_neuro as ep
import targets
from ep_neuro.cli import app
from tests.cli.conftest import Cli, cli  # noqa: F401 - a fixture
from tests.docs.pages import PAGES, ROOT, ours, shell, told
from tests.docs.shrunk import BEHIND, ELSEWHERE, INSTEAD, MEANT, SLOW
from tests.helpers.forked import run_script
from tests.unit.data.test_datasets import write_mnist

TYPED = [page for page in PAGES if page.suffix == ".md"]


def elsewhere(line: str) -> bool:
    return line.startswith(tuple(ELSEWHERE))


def lacking(line: str) -> str | None:
    """What `line` needs and this machine has not."""
    if "--neurobench" in line and importlib.util.find_spec("neurobench") is None:
        return "NeuroBench is not installed"
    for name in targets.names():
        state = targets.get(name).available()
        if re.search(rf"(--with |--out \S+\.|targets\.){name}\b", line) and not state.available:
            return state.reason
    return None


def shrunk(words: list[str]) -> list[str]:
    """`words` as they are executed."""
    meant = [MEANT.get(word, word) for word in words]
    more = [behind for begin, behind in BEHIND.items() if " ".join(meant).startswith(begin)]
    return [*meant, *shlex.split(" ".join(more))]


def only_named(words: list[str]) -> bool:
    """Whether ``ep-neuro WORD`` names a command in a sentence: it cannot go without an argument."""
    command = typer.main.get_command(app).commands.get(words[0])  # type: ignore[attr-defined]
    return len(words) == 1 and command is not None and any(p.required for p in command.params)


@pytest.fixture
def scratch(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The folder in which a page is executed, with what its words in capitals mean."""
    for name in ("examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr("ep_neuro.data.datasets.DEFAULT_ROOT", tmp_path / "data")
    write_mnist(tmp_path / "data")
    network = ep.Network(ep.zoo("digits_dense"), 0)
    program = compilers.compile(network, target="reference", steps=8, learn="contrastive")
    compilers.save_program(program, tmp_path / "program")
    noise, digits = np.random.default_rng(0), ep.data.load("digits")
    images: dict[str, Any] = {"layout": np.array("NCHW")}
    few: dict[str, Any] = {"layout": np.array("NCHW")}
    for split in ("train", "val", "test"):
        images[f"x_{split}"] = noise.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        images[f"y_{split}"] = np.arange(10)
        some = getattr(digits, split).head(60)
        few[f"x_{split}"], few[f"y_{split}"] = some.pixels, some.y
    np.savez(tmp_path / "images.npz", **images)
    np.savez(tmp_path / "digits.npz", **few)
    return tmp_path


def execute(line: str, call: Cli, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What went wrong in a command."""
    words = ours(line)
    if words is not None:
        if only_named(words):
            return None
        done = call(*shrunk(words))
        return f"{line}: {done.err}" if done.code else None
    python, *words = shlex.split(line, comments=True)
    assert python == "python", f"{line}: say in tests/docs/shrunk.py what is to become of it"
    if words[0] == "-m":
        words = shrunk(words[1:])
        monkeypatch.setattr(sys, "argv", words)
        importlib.import_module(words[0]).main()
        return None
    name, *words = shrunk(words)
    script = run_script(ROOT / name, *words, cwd=scratch, limit=600)
    return f"{line}: {script.err}" if script.code else None


def test_a_command_that_does_not_work_is_found(
    cli: Cli,  # noqa: F811
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for line in ("ep-neuro compile zoo:digits_dens --target reference", "ep-neuro run nothing"):
        assert "error" in str(execute(line, cli, scratch, monkeypatch))
    with pytest.raises(AssertionError, match=r"shrunk\.py"):
        execute("sh nothing.sh", cli, scratch, monkeypatch)


def has_slow(page: Path) -> bool:
    return any(line.startswith(SLOW) for line in shell(page) if not elsewhere(line))


LONG = (pytest.mark.slow, pytest.mark.timeout(900))


@pytest.mark.parametrize(
    ("page", "slow"),
    [
        *(pytest.param(page, False, id=page.stem) for page in TYPED),
        *(pytest.param(p, True, id=f"{p.stem}-slow", marks=LONG) for p in TYPED if has_slow(p)),
    ],
)
def test_the_blocks_and_commands_of_a_page_work_one_after_the_other(
    page: Path,
    slow: bool,
    cli: Cli,  # noqa: F811
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: dict[str, Any] = {}
    wrong, passed_over = [], []
    for language, text in dict.fromkeys(told(page)):
        if language == "python" and not elsewhere(text):
            for said, smaller in INSTEAD.items():
                text = text.replace(said, smaller)
            exec(compile(text, str(page), "exec"), names)
        elif language == "yaml":
            (scratch / "block.yaml").write_text(text)
            wrong.append(execute("ep-neuro inspect block.yaml", cli, scratch, monkeypatch))
        elif language == "sh" and not elsewhere(text) and (slow or not text.startswith(SLOW)):
            if reason := lacking(text):
                passed_over.append(f"{text}: {reason}")
            else:
                wrong.append(execute(text, cli, scratch, monkeypatch))
    assert not list(filter(None, wrong))
    if passed_over:
        pytest.skip(f"executed but for {'; '.join(passed_over)}")


def test_what_is_not_executed_stands_in_a_page_and_is_what_it_says() -> None:
    lines = [line for page in TYPED for line in shell(page)]
    blocks = [text for page in TYPED for language, text in told(page) if language == "python"]
    for begin in (*ELSEWHERE, *SLOW):
        assert any(line.startswith(begin) for line in lines + blocks), f"{begin!r} is in no page"
    said = {word for line in lines for word in line.split()}
    assert not MEANT.keys() - said
    made = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in lines:
        words = line.split()
        if words[0] == "make":
            assert words[1] in made
        if elsewhere(line):
            for path in re.findall(r"(?<!\S)(?:tests|examples|tools)/[\w/.]+", line):
                assert (ROOT / path).exists() or "NAME" in path, line
    for reason in ELSEWHERE.values():
        for path in re.findall(r"tests/[\w/.]+", reason):
            assert (ROOT / path).exists(), reason

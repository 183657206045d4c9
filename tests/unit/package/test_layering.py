"""Claims about who imports whom: ep_neuro <- compilers <- targets, read off the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("ep_neuro", "compilers", "targets", "examples", "tests")
LINE_LIMIT = 450

OWNERS = {
    **{name: name for name in ("lava", "brian2", "nest", "nir")},
    "aihwkit": "crossbar",
    **dict.fromkeys(("neurobench", "snntorch", "distributed"), "experiments"),
}
"""The one target, or room of `targets`, that may import each heavy package."""


@dataclass(frozen=True)
class Import:
    """One imported name; `inside` tells whether it stands in a function or under TYPE_CHECKING."""

    file: str
    line: int
    module: str
    inside: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_of(source: str, file: str) -> list[Import]:
    """Every import in `source`; `file` is relative to the root, for relative imports."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(file, node.lineno, a.name, inside) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = Path(file).parts[: -node.level] if node.level else ()
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found.extend(Import(file, node.lineno, f"{base}.{a.name}", inside) for a in node.names)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr):  # in which nothing is imported
                visit(child, inside or function or typing)

    visit(ast.parse(source), False)
    return found


@cache
def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def imports_in(folder: str) -> list[Import]:
    return [
        found
        for path in files(folder)
        for found in imports_of(path.read_text(), str(path.relative_to(ROOT)))
    ]


def target_of(module: str) -> str | None:
    """The target that ``targets.x.y`` belongs to; None for helpers that hold no BACKEND."""
    name = module.split(".")[1] if "." in module else ""
    return name if is_target(name) else None


@cache
def is_target(name: str) -> bool:
    """Whether ``targets.name`` is a target."""
    candidates = [
        ROOT / "targets" / f"{name}.py",
        *(ROOT / "targets" / name).glob("*.py"),
    ]
    return any(holds_backend(path.read_text()) for path in candidates if name and path.is_file())


def holds_backend(source: str) -> bool:
    """Whether a module binds ``BACKEND`` or ``BACKENDS`` at its top level, or imports it."""
    bound: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            bound |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            bound.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            bound |= {a.asname or a.name for a in node.names}
    return bool(bound & {"BACKEND", "BACKENDS"})


# --- the rules, each a list of offenders -------------------------------------------------------


def upward(found: list[Import]) -> list[Import]:
    """Imports against ``ep_neuro <- compilers <- targets``, less the two allowed look-ups."""
    above = {"ep_neuro": {"compilers", "targets"}, "compilers": {"targets"}}
    gates = ("ep_neuro/cli/", "compilers/__init__.py")
    return [
        i
        for i in found
        if i.package in above.get(Path(i.file).parts[0], ())
        and not (i.file.startswith(gates) and i.inside)
    ]


def sideways(found: list[Import]) -> list[Import]:
    """Imports of one target by another."""
    offenders = []
    for i in found:
        own = Path(i.file).parts[1].removesuffix(".py")
        other = target_of(i.module) if i.package == "targets" else None
        if other not in (None, own):
            offenders.append(i)
    return offenders


def strangers(found: list[Import]) -> list[Import]:
    """Imports of a heavy package outside its own target."""
    return [
        i
        for i in found
        if i.package in OWNERS
        and Path(i.file).parts[:2]
        not in {("targets", OWNERS[i.package]), ("targets", f"{OWNERS[i.package]}.py")}
    ]


def test_only_the_command_line_and_one_look_up_reach_up() -> None:
    assert not [str(i) for i in upward(imports_in("ep_neuro") + imports_in("compilers"))]


def test_targets_do_not_import_each_other() -> None:
    assert not [str(i) for i in sideways(imports_in("targets"))]


def test_heavy_packages_stay_inside_their_target() -> None:
    found = [i for f in ("ep_neuro", "compilers", "targets") for i in imports_in(f)]
    assert not [str(i) for i in strangers(found)]


def test_finding_a_target_imports_no_heavy_package() -> None:
    eager = [
        str(i)
        for i in imports_in("targets")
        if i.package in OWNERS and not i.inside and holds_backend((ROOT / i.file).read_text())
    ]
    assert not eager


def test_only_the_frontend_and_the_executor_know_torch() -> None:
    found = [i for i in imports_in("compilers") if i.package in ("torch", "torchvision")]
    free = ("compilers/frontend.py", "compilers/execution/")
    assert not [str(i) for i in found if not i.file.startswith(free)]


def test_no_file_loads_a_pickle() -> None:
    found = [i for f in ("ep_neuro", "compilers", "targets") for i in imports_in(f)]
    assert not [str(i) for i in found if i.package in ("pickle", "dill", "joblib", "shelve")]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_is_longer_than_the_limit(folder: str) -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in files(folder)}
    assert not {name: n for name, n in lengths.items() if n > LINE_LIMIT}


@pytest.mark.parametrize("folder", ["ep_neuro", "compilers", "targets", "examples"])
def test_each_file_says_first_what_lives_in_it(folder: str) -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in files(folder)
        if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert not silent


# --- the rules catch what they are for ---------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "file", "source", "caught"),
    [
        (upward, "ep_neuro/report.py", "from compilers.ir.graph import Graph", True),
        (upward, "ep_neuro/report.py", "def f():\n    import targets", True),
        (upward, "ep_neuro/cli/program.py", "import targets.interface.protocols", True),
        (upward, "ep_neuro/cli/program.py", "def f():\n    import targets", False),
        (upward, "compilers/ir/graph.py", "from targets import base", True),
        (upward, "compilers/__init__.py", "def f():\n    import targets", False),
        (upward, "compilers/ir/graph.py", "from ep_neuro.errors import GraphError", False),
        (sideways, "targets/lava/run.py", "from targets.reference import BACKEND", True),
        (sideways, "targets/lava/run.py", "from targets import reference", True),
        (sideways, "targets/lava/run.py", "def f():\n    from ..reference.engine import run", True),
        (sideways, "targets/nir/files.py", "from targets.nir.export import to_nir", False),
        (sideways, "targets/lava/run.py", "from targets.interface.protocols import Session", False),
        (strangers, "targets/reference/backend.py", "import lava.magma", True),
        (strangers, "targets/lava/session.py", "from lava.magma.core import process", False),
        (strangers, "ep_neuro/data/datasets.py", "def f():\n    import nir", True),
        (strangers, "targets/nir.py", "import nir", False),
        (strangers, "targets/nir.py", "import aihwkit", True),
    ],
)
def test_an_import_against_a_rule_is_caught(
    rule: Callable[[list[Import]], list[Import]], file: str, source: str, caught: bool
) -> None:
    assert bool(rule(imports_of(source, file))) is caught

"""Claims about rooms, the folders of the packages: few things in each, and imports go one way."""

from __future__ import annotations

from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.unit.package.test_layering import ROOT, files, imports_of

CROWDED = 14
"""Files and folders that a room has at most; about ten is better."""

PACKAGES = ("ep_neuro", "compilers", "targets")


def module_file(name: str) -> Path | None:
    """The file of the longest beginning of a dotted `name` that is a module of ours."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


def room_of(file: Path) -> str:
    """The folder of `file`; a file at the top of a package stands for itself."""
    inside = file.relative_to(ROOT)
    return str(inside) if len(inside.parts) == 2 else str(inside.parent)


@pytest.mark.parametrize("package", [*PACKAGES, "tests/unit"])
def test_no_room_is_crowded(package: str) -> None:
    folders = {path.parent for path in files(package)}
    counts = {
        str(folder.relative_to(ROOT)): len([e for e in folder.iterdir() if e.name[:2] != "__"])
        for folder in folders
    }
    assert not {name: n for name, n in counts.items() if n > CROWDED}


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_each_other_one_way(package: str) -> None:
    """Imports inside functions and for types alone aside; a circle is a `CycleError`."""
    below: dict[str, set[str]] = defaultdict(set)
    for path in files(package):
        for found in imports_of(path.read_text(), str(path.relative_to(ROOT))):
            file = module_file(found.module) if found.package == package else None
            if file is not None and not found.inside and room_of(file) != room_of(path):
                below[room_of(path)].add(room_of(file))
    assert list(TopologicalSorter(below).static_order())

"""The first thing that a fork server runs: it opens our packages there, and serves forks.

They are opened without their ``__init__``, which would lead on to packages that a simulator has no
need of, torch among them. So modules that run in there import others by their full name. In Lava's
environment they need nothing beside NumPy, SciPy and Lava, and are written in its Python.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from typing import Any


class Packages(MetaPathFinder):
    """Finds the modules of some packages, each package being a bare folder.

    Parameters
    ----------
    folders : mapping of str to str
        Folder of each top-level package.
    """

    def __init__(self, folders: Mapping[str, str]) -> None:
        self.folders = folders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module or folder called `name`; None if it is not in one of these packages."""
        top, *rest = name.split(".")
        if top not in self.folders:
            return None
        place = os.path.join(self.folders[top], *rest)
        if not os.path.isdir(place):
            file = f"{place}.py"
            return spec_from_file_location(name, file) if os.path.isfile(file) else None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [place]
        return spec


def main(text: str) -> None:
    """Serve the socket that `text` names, over the packages and paths that it names: JSON."""
    given = json.loads(text)
    sys.meta_path.insert(0, Packages(given["packages"]))
    sys.path.extend(place for place in given["path"] if place not in sys.path)
    from targets.interface.supervised.fork_server import serve

    serve(given["fd"])


if __name__ == "__main__":
    main(sys.argv[1])

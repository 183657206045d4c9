"""The command line: thin commands over the library; the only part that looks up, and lazily."""

import sys
from typing import Any

# In the order of the help.
from ep_neuro.cli import network, program, learning, targets, viewer, installation  # isort: skip
from ep_neuro.cli.app import app
from ep_neuro.cli.console import plain_warnings
from ep_neuro.cli.ending import exit_code
from ep_neuro.cli.package_guard import check_packages

__all__ = ["app", "installation", "learning", "main", "network", "program", "targets", "viewer"]


def main() -> None:
    """Run the command line; errors become one line on stderr and the exit code."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]

    def work() -> Any:
        check_packages()
        with plain_warnings():
            return app(arguments or ["--help"], standalone_mode=False, prog_name="ep-neuro")

    sys.exit(exit_code(work, debug="--debug" in sys.argv[1:]))

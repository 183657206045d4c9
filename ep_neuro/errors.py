"""The exception tree: each error says object, value, limit and remedy in one line."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class EPNeuroError(Exception):
    """Base of every error that a user can cause or meet.

    Parameters
    ----------
    subject : str
        The object at fault, e.g. ``"population 'h3'"``.
    problem : str
        Its value and the limit that the value breaks.
    remedy : str
        What to do about it.

    Notes
    -----
    ``str(error)`` is ``subject: problem; remedy`` on one line; ``exit_code`` is what the
    command line returns.
    """

    exit_code = 2

    def __init__(self, subject: str, problem: str, remedy: str) -> None:
        self.subject, self.problem, self.remedy = subject, problem, remedy
        super().__init__(" ".join(f"{subject}: {problem}; {remedy}".split()))

    def __reduce__(self) -> tuple[type[EPNeuroError], tuple[str, str, str]]:
        # By default an exception is rebuilt from its message alone, which fails between processes.
        return type(self), (self.subject, self.problem, self.remedy)


def nearest(name: str, known: Collection[str], otherwise: str = "") -> str:
    """The remedy for a `name` that is none of the `known`: the nearest, else all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else otherwise or f"choose from {', '.join(known)}"


class SpecError(EPNeuroError):
    """A network description that has no consistent energy."""


class ConfigError(EPNeuroError):
    """A configuration file or an option with a wrong key or value."""


class DataError(EPNeuroError):
    """A data set that is missing, empty or of the wrong shape."""


class ModelError(EPNeuroError):
    """A model directory that is missing, truncated or does not fit its spec."""


class GraphError(EPNeuroError):
    """A graph that breaks the rules of the IR, or a text that is not one."""


class ProgramError(EPNeuroError):
    """A compiled program that is missing, damaged or of another format version."""


class TargetError(EPNeuroError):
    """A target that is unknown, unavailable, or lacks a feature that was asked for."""


class CheckFailed(EPNeuroError):
    """A check or a hardware limit that did not hold."""

    exit_code = 1


class RunError(EPNeuroError):
    """An execution that died, hung or diverged."""

    exit_code = 1

"""What is tried and what came of it, as supervisor and child exchange it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """Files that a user has, by path below the working directory, and the words that he types."""

    words: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} ({len(data)} B)" for name, data in self.files.items())
        return f"ep-neuro {' '.join(map(repr, self.words))} [{sizes}]"


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    """Exit code."""
    out: str
    err: str
    """What stood on stdout and stderr."""
    peak: int = 0
    """Largest resident memory of the process meanwhile, in bytes."""
    infinite: int = 0
    """Numbers of the answer that were not finite."""
    escaped: tuple[str, ...] = ()
    """What appeared outside of the working directory, or because code in a file was run."""
    traceback: str = ""
    """Of an error that nobody foresaw; empty else."""

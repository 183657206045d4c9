"""The claim that every outcome is held to: a good answer, or one line on what is wrong."""

from __future__ import annotations

import json
import re

from tests.fuzz.case import Case, Outcome

GIB = 1 << 30
MEMORY = 2 * GIB
"""Most resident memory of a process, in bytes."""

_NOT_FINITE = re.compile(r"(?<![\w./'-])(nan|inf)(?![\w/'-])")


def fault_of(case: Case, found: Outcome) -> str | None:
    """What is wrong with `found`; None if nothing is."""
    if found.escaped:
        return f"wrote {', '.join(found.escaped)}"
    if found.peak > MEMORY:
        return f"took {found.peak / GIB:.1f} GiB"
    if found.traceback:
        return f"unforeseen: {found.traceback.strip().splitlines()[-1]}"
    if found.code not in (0, 1, 2):
        return f"exit code {found.code}"
    if "Traceback" in found.err or "Traceback" in found.out:
        return "a traceback"
    errors = [line for line in found.err.splitlines() if line.startswith("error: ")]
    if found.code == 0:
        return _fault_of_answer(case, found, errors)
    last = found.err.splitlines()[-1:]
    if len(errors) != 1 or last != errors:
        return f"exit code {found.code} with {len(errors)} errors"
    # An error of its own has three parts; the second and third stand behind colon and semicolon.
    if ": " not in errors[0][7:] or "; " not in errors[0]:
        return f"an error without object or remedy: {errors[0]}"
    if found.code == 2 and found.out:
        return "an error beside an answer"
    return None


def _fault_of_answer(case: Case, found: Outcome, errors: list[str]) -> str | None:
    if errors:
        return "exit code 0 with an error"
    if found.infinite:
        return f"{found.infinite} numbers of the answer are not finite"
    if "--help" in case.words:
        return None if found.out else "no help"
    if "--json" not in case.words:
        seen = _NOT_FINITE.search(found.out) if case.words[:1] != ("inspect",) else None
        return f"'{seen.group()}' in the answer" if seen else None
    if found.out.count("\n") != 1:
        return "the answer is not one line"
    try:
        answer = json.loads(found.out)
    except ValueError:
        return "the answer is no JSON"
    return None if isinstance(answer, dict) and answer else "the answer is no object"

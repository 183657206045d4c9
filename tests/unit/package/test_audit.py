"""Claims about the audit of the constraints: it tells what it found, and never fails."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parents[3] / "tools" / "audit.sh"


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("No known vulnerabilities found", 0, "audit: no known vulnerabilities"),
        ("Found 1 known vulnerability in 1 package\ntorch 2.15.0 PYSEC-1", 1, "PYSEC-1"),
        ("requests.exceptions.ConnectionError: no route", 1, "not audited: requests.exceptions"),
        ("", 124, "audit: no answer, not audited"),
    ],
)
def test_an_audit_tells_what_it_found_and_never_fails(
    answer: str, code: int, says: str, tmp_path: Path
) -> None:
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\ncat <<'E'\n{answer}\nE\nexit {code}\n")
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", AUDIT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert says in done.stderr
    assert done.stdout == ""

"""Claims about users without a name or a home: caches lie below the temporary folder."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from ep_neuro.storage.cache_folders import provide_caches

VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")


def unknown() -> str:
    raise KeyError("getpwuid(): uid not found: 12345")


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.fixture(autouse=True)
def _no_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in VARIABLES:
        # Set first, so that what the test sets is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_user_id_without_a_name_and_a_home_gets_caches_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.setattr(Path, "home", homeless)
    provide_caches()
    for name in VARIABLES:
        assert Path(os.environ[name]).parent == tmp_path
        assert str(os.getuid()) in os.environ[name]


def test_a_cache_that_is_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    provide_caches()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"


def test_a_user_with_a_name_and_a_home_keeps_the_usual_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "me")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    provide_caches()
    assert not any(name in os.environ for name in VARIABLES)

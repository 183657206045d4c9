"""Claims about what is released: wheel and sdist install and run alone, in fresh environments."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import ep_neuro

ROOT = Path(__file__).resolve().parents[3]
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
LARGEST = 5_000_000
"""Bytes of a wheel; 3,000,000 of them may be trained models."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None,
    reason="hatchling is not installed; `pip install hatchling`",
)


def run(*words: object, cwd: Path, limit: float = 110) -> str:
    """What a command prints that gets no path of ours."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    found = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def built(kind: str, source: Path, out: Path) -> Path:
    """The wheel or sdist of the tree at `source`."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(words, cwd=source, env=env, capture_output=True, timeout=100, check=True)
    (file,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def fresh(python: str, wheel: Path, at: Path) -> Path:
    """The Python of a new environment that holds `wheel`, and sees the requirements of `python`.

    They are on its path alone: what is installed there in editable form is not.
    """
    lib = run(python, "-c", PURELIB, cwd=at).strip()
    run(python, "-m", "venv", at / "venv", cwd=at)
    inside = at / "venv" / "bin" / "python"
    words = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", wheel)
    run(inside, "-m", "pip", "install", *words, cwd=at)
    sinabs = importlib.util.find_spec("sinabs") if python == sys.executable else None
    also = [str(Path(str(sinabs.origin)).parents[1])] if sinabs else []
    own = Path(run(inside, "-c", PURELIB, cwd=at).strip())
    (own / "requirements.pth").write_text("\n".join([lib, *also]) + "\n")
    return inside


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_holds_all_that_the_packages_do_and_nothing_else(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "ep_neuro", "compilers", "targets"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no clone, so git cannot say what belongs to it")
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert found == set(listed.stdout.split())
    assert wheel.stat().st_size < LARGEST


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(built("sdist", ROOT, tmp_path)) as file:
        file.extractall(tmp_path, filter="data")
    tree = next(p for p in tmp_path.iterdir() if p.is_dir())
    assert contents(built("wheel", tree, tmp_path / "again")) == contents(wheel)
    assert (tree / "CITATION.cff").is_file()


PYTHONS = [sys.executable, *os.environ.get("EP_PYTHONS", "").split()]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_stranger_gets_from_the_wheel_to_another_simulator_in_two_minutes(
    python: str, wheel: Path, tmp_path: Path
) -> None:
    """`EP_PYTHONS` names further Pythons that have the requirements."""
    inside = fresh(python, wheel, tmp_path)
    command = inside.parent / "ep-neuro"
    assert run(command, "--version", cwd=tmp_path) == f"ep-neuro {ep_neuro.__version__}\n"
    found = json.loads(run(command, "doctor", "--json", cwd=tmp_path))
    assert Path(found["place"]).is_relative_to(tmp_path)
    shutil.copy(ROOT / "examples" / "ten_minutes.py", tmp_path)
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    printed = run(inside, "ten_minutes.py", cwd=tmp_path, limit=300)
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before < 120
    assert "hub:mnist_residual" in printed
    tool, reference = printed.splitlines()[-2:]
    agreement = float(tool.split("right, ")[1].split("%")[0])
    assert agreement > 85 if "sinabs " in tool.split(":")[0] else agreement == 100
    assert float(reference.split()[1].rstrip("%")) > 80


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_wheel_installs_and_compiles_on_each_python(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    """Without its requirements: with them it runs as `EP_PYTHONS` says, above."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [*root.glob(f"versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    python = next((str(p) for p in places if p is not None), None)
    if python is None:
        pytest.skip(f"there is no Python {version} on PATH or in pyenv")
    words = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", "--target")
    run(python, "-m", "pip", "install", *words, tmp_path / "lib", wheel, cwd=tmp_path)
    run(python, "-m", "compileall", "-q", "-f", tmp_path / "lib", cwd=tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r}); import ep_neuro"
    assert run(python, "-c", f"{code}; print(ep_neuro.__version__)", cwd=tmp_path).strip() == (
        ep_neuro.__version__
    )

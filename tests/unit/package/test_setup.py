"""Claims about the way from a fresh clone to an environment, and about shadowed packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ep_neuro.cli.package_guard import check_packages
from ep_neuro.errors import ConfigError
from targets.lava.runtime.environment import PACKAGE

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lines_of(name: str) -> list[str]:
    """Lines of a file of constraints without the comments, each with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


PINS, LAVA_PINS = lines_of("constraints.txt"), lines_of("constraints-lava.txt")

UV = """#!/bin/sh
# Stands in for uv: notes its arguments, and makes the environment that it is asked for.
echo "$@" >> uv.log
case "$1 $2" in
    "python find" | "python install") exit {python} ;;
    "venv "*) mkdir -p .venv/bin ;;
    "pip install") exit {install} ;;
esac
"""
OTHER_PYTHON = "#!/bin/sh\nexit 1\n"


def python_of(version: str) -> str:
    """Stands in for a Python that set-up asks whether it is of a version."""
    return f'#!/bin/sh\n[ "$3" = {version} ]\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What set-up reads, in a folder with a space, beside a PATH of a few bare tools."""
    folder = tmp_path / "a clone"
    (folder / "tools").mkdir(parents=True)
    (folder / ".ci").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "constraints-lava.txt", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("tools/setup.sh", ".ci/run"):
        shutil.copy(ROOT / name, folder / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "bash", "dirname", "mkdir", "rm", "touch", "id"):
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name} here"))
    return folder


def add_tool(clone: Path, name: str, script: str) -> Path:
    path = clone.parent / "bin" / name
    path.unlink(missing_ok=True)  # never write through a link to the system's own tool
    path.write_text(script)
    path.chmod(0o755)
    return path


def run(clone: Path, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(clone.parent / "bin"), "HOME": str(clone.parent), **extra}
    program = shutil.which(command[0], path=env["PATH"]) or command[0]
    return subprocess.run(
        [program, *command[1:]], cwd=clone, env=env, capture_output=True, text=True, timeout=60
    )


def set_up(clone: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return run(clone, "sh", "tools/setup.sh", **extra)


def refusal(clone: Path, **extra: str) -> str:
    """What a set-up says that is refused."""
    done = set_up(clone, **extra)
    assert done.returncode == 2
    return done.stderr


# --- what is required --------------------------------------------------------------------------


@pytest.mark.parametrize("pins", [PINS, LAVA_PINS], ids=["ours", "lava's"])
def test_constraints_are_exact_versions_without_addresses(pins: list[str]) -> None:
    assert pins
    exact = r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( +--hash=sha256:[0-9a-f]{64})*"
    assert not [line for line in pins if not re.fullmatch(exact, line)]


def test_every_requirement_is_pinned_within_its_range() -> None:
    pins = {canonicalize_name(n): v for n, v in (line.split("==") for line in PINS)}
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(r for group in extras.values() for r in group)]
    problems = []
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({"python_version": "3.12"}):
            continue
        version = pins.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            problems.append(f"{requirement} but {version}")
    assert not problems


def test_lava_which_is_archived_is_pinned_by_hash_in_an_environment_of_its_own() -> None:
    (lava,) = (line for line in LAVA_PINS if line.startswith("lava-nc"))
    assert lava.split()[0] == PACKAGE
    assert "--hash=sha256:" in lava
    extras = PROJECT["optional-dependencies"].values()
    assert "lava" not in " ".join([*PROJECT["dependencies"], *(r for e in extras for r in e)])
    assert not [line for line in PINS if "lava" in line]


def test_the_changelog_starts_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == PROJECT["version"]


# --- set-up ------------------------------------------------------------------------------------


@pytest.fixture
def pythons(clone: Path) -> None:
    """Both Pythons on the PATH, and a uv that works and finds none."""
    add_tool(clone, "uv", UV.format(python=1, install=0))
    for version in ("3.12", "3.10"):
        add_tool(clone, f"python{version}", python_of(version))


@pytest.mark.usefixtures("pythons")
def test_set_up_builds_pinned_environments_where_the_path_has_a_space(clone: Path) -> None:
    done = set_up(clone)
    assert done.returncode == 0, done.stderr
    assert (clone / ".venv" / ".stamp").exists()
    calls = (clone / "uv.log").read_text()
    assert "venv --quiet --python python3.12 .venv\n" in calls
    assert "--constraint constraints.txt --editable .[dev,docs,crossbar,nest,pynn,cluster]" in calls
    assert "venv --quiet --python python3.10 .venv-lava\n" in calls
    assert "--python .venv-lava/bin/python --requirement constraints-lava.txt" in calls
    # The metrics of NeuroBench import little of what it asks for.
    assert "--constraint constraints.txt --no-deps neurobench==2.3.* snntorch" in calls
    assert calls.count("pip install --quiet --compile-bytecode") == 3


def test_set_up_finds_the_pythons_of_pyenv(clone: Path) -> None:
    add_tool(clone, "uv", UV.format(python=1, install=0))
    add_tool(clone, "python3", OTHER_PYTHON)
    for version in ("3.12", "3.10"):
        add_tool(clone, f"python{version}", OTHER_PYTHON)  # a shim that exists and fails
        pyenv = clone.parent / ".pyenv" / "versions" / f"{version}.99" / "bin"
        pyenv.mkdir(parents=True)
        shutil.copy(add_tool(clone, "real", python_of(version)), pyenv / "python")
    assert set_up(clone).returncode == 0
    calls = (clone / "uv.log").read_text()
    for version in ("3.12", "3.10"):
        assert f"--python {clone.parent / '.pyenv/versions'}/{version}.99/bin/python" in calls


@pytest.mark.usefixtures("pythons")
def test_set_up_prefers_the_pythons_that_the_user_names(clone: Path) -> None:
    chosen = add_tool(clone, "chosen", python_of("3.12"))
    lavas = add_tool(clone, "chosen310", python_of("3.10"))
    assert set_up(clone, EP_PYTHON=str(chosen), EP_PYTHON310=str(lavas)).returncode == 0
    calls = (clone / "uv.log").read_text()
    assert f"--python {chosen} .venv\n" in calls
    assert f"--python {lavas} .venv-lava\n" in calls


@pytest.mark.usefixtures("pythons")
@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_another_supported_python_takes_versions_from_the_ranges(clone: Path, version: str) -> None:
    chosen = add_tool(clone, "chosen", python_of(version))
    done = set_up(clone, EP_PYTHON=str(chosen))
    assert done.returncode == 0
    assert "constraints.txt is for Python 3.12" in done.stderr
    assert "--constraint" not in (clone / "uv.log").read_text()


@pytest.mark.usefixtures("pythons")
@pytest.mark.parametrize(
    ("variable", "problem"),
    [("EP_PYTHON", "is not a Python 3.11 to 3.13"), ("EP_PYTHON310", "is not a Python 3.10")],
)
def test_set_up_refuses_a_named_python_of_another_version(
    clone: Path, variable: str, problem: str
) -> None:
    wrong = add_tool(clone, "wrong", OTHER_PYTHON)
    assert problem in refusal(clone, **{variable: str(wrong)})


def test_set_up_without_a_python_that_will_do_says_what_to_do(clone: Path) -> None:
    add_tool(clone, "uv", UV.format(python=1, install=0))
    add_tool(clone, "python3", OTHER_PYTHON)
    assert "or set EP_PYTHON=/path/to/python" in refusal(clone).splitlines()[-1]


def test_set_up_without_python_310_goes_on_without_lava_and_says_so(clone: Path) -> None:
    add_tool(clone, "uv", UV.format(python=1, install=0))
    add_tool(clone, "python3", OTHER_PYTHON)
    add_tool(clone, "python3.12", python_of("3.12"))
    done = set_up(clone)
    assert done.returncode == 0
    assert (clone / ".venv" / ".stamp").exists()
    assert "the target lava cannot run here and its tests skip" in done.stderr
    assert ".venv-lava" not in (clone / "uv.log").read_text()


def test_set_up_without_uv_or_python3_says_what_to_do(clone: Path) -> None:
    (line,) = refusal(clone).splitlines()
    assert "python3 is not on PATH; install any Python 3" in line


def test_set_up_without_venv_and_pip_says_what_to_do(clone: Path) -> None:
    add_tool(clone, "python3", OTHER_PYTHON)
    assert "python3 has neither venv nor pip" in refusal(clone).splitlines()[-1]


def test_a_failed_installation_leaves_no_stamp(clone: Path) -> None:
    add_tool(clone, "uv", UV.format(python=0, install=1))
    add_tool(clone, "python3.12", python_of("3.12"))
    assert "the packages could not be installed" in refusal(clone)
    assert not (clone / ".venv" / ".stamp").exists()


# --- make and CI -------------------------------------------------------------------------------


def dry_run(clone: Path, target: str) -> str:
    make = shutil.which("make") or pytest.skip("make is not installed")
    return run(clone, make, "-n", target).stdout


def test_each_target_builds_the_environment_first(clone: Path) -> None:
    for target in ("setup", "demo", "test", "lint", "bench"):
        assert dry_run(clone, target).startswith("sh tools/setup.sh"), target


def test_a_built_environment_is_built_again_only_when_requirements_change(clone: Path) -> None:
    stamp = clone / ".venv" / ".stamp"
    stamp.parent.mkdir()
    stamp.touch()
    newer = stamp.stat().st_mtime + 10
    os.utime(stamp, (newer, newer))
    assert "tools/setup.sh" not in dry_run(clone, "demo")
    os.utime(clone / "constraints.txt", (newer + 10, newer + 10))
    assert "tools/setup.sh" in dry_run(clone, "demo")


def test_make_test_runs_lint_types_and_tests(clone: Path) -> None:
    steps = re.findall(r"-m (ruff check|ruff format|mypy|pytest)", dry_run(clone, "test"))
    assert steps == ["ruff check", "ruff format", "mypy", "pytest"]


def test_ci_goes_on_without_apt_and_says_so(clone: Path) -> None:
    add_tool(clone, "make", '#!/bin/sh\necho "make $*"\n')
    done = run(clone, "bash", ".ci/run")
    assert done.returncode == 0
    assert done.stdout.strip() == "make test"
    assert "chromium chromium-driver missing" in done.stderr


@pytest.mark.parametrize("code", [0, 100])
def test_ci_installs_the_browser_as_root_and_goes_on_if_it_cannot(clone: Path, code: int) -> None:
    add_tool(clone, "make", '#!/bin/sh\necho "make $*"\n')
    add_tool(clone, "id", "#!/bin/sh\necho 0\n")
    add_tool(clone, "apt-get", f'#!/bin/sh\necho "$*" >> apt.log\nexit {code}\n')
    done = run(clone, "bash", ".ci/run")
    assert (done.returncode, done.stdout.strip()) == (0, "make test")
    asked = (clone / "apt.log").read_text().splitlines()
    assert asked[0].startswith("update")
    assert ("chromium chromium-driver" in asked[-1]) is (code == 0)
    assert ("could not install" in done.stderr) is (code != 0)


def test_ci_fails_when_the_tests_do(clone: Path) -> None:
    add_tool(clone, "make", "#!/bin/sh\nexit 2\n")
    assert run(clone, "bash", ".ci/run").returncode == 2


# --- shadowed packages -------------------------------------------------------------------------


CHECK = "from ep_neuro.cli.package_guard import check_packages; check_packages(); print('clear')"


def python(folder: Path, *arguments: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def shadow(folder: Path, kind: str) -> Path:
    """A foreign module of the same name as one of ours."""
    if kind == "file":
        path = folder / "compilers.py"
    else:
        path = folder / "targets" / "__init__.py"
        path.parent.mkdir()
    path.write_text("raise SystemExit('the foreign module was run')\n")
    return path


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_shadowing_module_is_named_and_not_run(tmp_path: Path, kind: str) -> None:
    path = shadow(tmp_path, kind)
    done = python(tmp_path, "-c", CHECK)
    last = done.stderr.splitlines()[-1]
    assert f"{path} shadows ep-neuro's own" in last
    assert "the foreign module was run" not in done.stderr


def test_a_shadow_on_pythonpath_is_named_too(tmp_path: Path) -> None:
    path = shadow(tmp_path, "file")
    done = python(
        ROOT.parent, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {CHECK}", path=tmp_path
    )
    assert f"{path} shadows" in done.stderr.splitlines()[-1]


def test_a_folder_that_holds_no_package_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    assert python(tmp_path, "-c", CHECK).stdout.strip() == "clear"


def test_a_module_put_in_place_by_hand_is_a_shadow_too(tmp_path: Path) -> None:
    by_hand = "import sys, types; sys.modules['targets'] = types.ModuleType('targets'); "
    done = python(tmp_path, "-c", by_hand + CHECK)
    assert "<targets in sys.modules> shadows" in done.stderr.splitlines()[-1]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="package 'compilers': it is missing from"):
        check_packages()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_command_line_names_the_shadow_in_one_line(tmp_path: Path, kind: str) -> None:
    path = shadow(tmp_path, kind)
    done = python(tmp_path, "-m", "ep_neuro", "targets")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{path} shadows" in line

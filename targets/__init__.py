"""Targets, found by discovery: a module or package in here that holds ``BACKEND`` is one.

One that makes several, as from a folder of hardware files, holds them in ``BACKENDS``. What one
does with targets (`targets.experiments`) loads on first use, so that finding them stays quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from compilers.passes.make_plastic import check_plasticity
from ep_neuro.errors import TargetError, nearest
from targets.interface.protocols import Backend, Feature
from targets.interface.session import Session
from targets.interface.unavailable import UnavailableBackend

if TYPE_CHECKING:
    from compilers.program import Program
    from targets.experiments.certificate.learning_check import LearningCheck, check_learning
    from targets.experiments.comparison.choices import Choice
    from targets.experiments.comparison.compare import Compared, compare
    from targets.experiments.comparison.sweep import Sweep
    from targets.experiments.onchip.changes import StorySetting
    from targets.experiments.onchip.faults import Damaged, damage, drift
    from targets.experiments.onchip.learning import Learnt, learn
    from targets.experiments.onchip.plastic import plastic
    from targets.experiments.onchip.recovery import Recovery, recover
    from targets.experiments.onchip.schedule import Plan
    from targets.experiments.onchip.stories import Told, tell_story
    from targets.experiments.onchip.to_network import network_of, write_model

_PUBLIC = {
    "comparison.choices": ("Choice",),
    "comparison.compare": ("Compared", "compare"),
    "comparison.sweep": ("Sweep",),
    "onchip.changes": ("StorySetting",),
    "certificate.learning_check": ("LearningCheck", "check_learning"),
    "onchip.faults": ("Damaged", "damage", "drift"),
    "onchip.learning": ("Learnt", "learn"),
    "onchip.plastic": ("plastic",),
    "onchip.recovery": ("Recovery", "recover"),
    "onchip.schedule": ("Plan",),
    "onchip.stories": ("Told", "tell_story"),
    "onchip.to_network": ("network_of", "write_model"),
}
"""Names that load on first use, by their module."""

_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

_OWN = (
    *("backends", "get", "learner", "names", "open", "or_reference", "register"),
    *("require_learning", "unregister"),
)

__all__ = sorted((*_HOMES, *_OWN))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.experiments.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@cache
def _discover() -> dict[str, Backend]:
    return discover(__name__, __path__)


def discover(package: str, path: list[str]) -> dict[str, Backend]:
    """Every backend in the folders `path` of `package`, by name.

    A module that cannot be imported becomes an `UnavailableBackend` that says why, so that one
    broken target neither hides nor takes the others with it.
    """
    found: dict[str, Backend] = {}
    for module in sorted(pkgutil.iter_modules(path), key=lambda m: m.name):
        for backend in _backends_in(f"{package}.{module.name}", module.name):
            if backend.name in found:
                problem = f"module '{module.name}' holds a second target called '{backend.name}'"
                backend = UnavailableBackend(module.name, problem, "rename one of them")
            found[backend.name] = backend
    return found


def _backends_in(path: str, name: str) -> tuple[Backend, ...]:
    # Whatever a third party's module raises on import is that target's reason, not our end.
    try:
        module = importlib.import_module(path)
    except Exception as error:
        problem = f"importing {path} failed ({type(error).__name__}: {error})"
        return (UnavailableBackend(name, problem, "correct the module, or remove it"),)
    held = (getattr(module, "BACKEND", None), *getattr(module, "BACKENDS", ()))
    return tuple(_conforming(one, path, name) for one in held if one is not None)


def _conforming(backend: object, path: str, name: str) -> Backend:
    if isinstance(backend, Backend):
        return backend
    problem = f"{path}.BACKEND is a {type(backend).__name__} without the methods of Backend"
    return UnavailableBackend(name, problem, "inherit from targets.interface.protocols.Backend")


def register(backend: Backend) -> None:
    """Let a backend of one's own be found by its name, in this process.

    Raises
    ------
    TargetError
        If another one has that name.
    """
    if _discover().setdefault(backend.name, backend) is not backend:
        problem = "there is one of this name already"
        raise TargetError(f"target '{backend.name}'", problem, "choose another name")


def unregister(name: str) -> None:
    """Forget the backend called `name`, if there is one."""
    _discover().pop(name, None)


def backends() -> tuple[Backend, ...]:
    """All backends, available or not, ordered by name."""
    found = _discover()
    return tuple(found[name] for name in sorted(found))


def names() -> tuple[str, ...]:
    """Names of all backends, ordered."""
    return tuple(sorted(_discover()))


def get(name: str | Program) -> Backend:
    """The backend called `name`, or that of the chip which a hardware file ``NAME.yaml`` describes.

    Of a program, the backend that it was compiled for: such a file goes along with it.

    Raises
    ------
    TargetError
        With the nearest name, if there is none.
    ConfigError
        If the file cannot be read, or says of a number not where it is from.
    """
    if not isinstance(name, str):
        return _of_files().backend_in(name) or get(name.target)
    found = _discover()
    if name in found:
        return found[name]
    if name.endswith((".yaml", ".yml")):
        return _of_files().backend_from(name)
    raise TargetError(f"target '{name}'", "there is none of this name", nearest(name, names()))


def _of_files() -> Any:
    return importlib.import_module(f"{__name__}.hardware.backend")


def or_reference(name: str, log: Callable[[str], None]) -> str:
    """`name`, or the name of the reference if that target cannot run here; `log` is told why."""
    state = get(name).available()
    if not state.available:
        log(f"on the reference target alone: {state.reason}")
    return name if state.available else "reference"


def open(program: Program) -> Session:
    """Load `program` on the target that it was compiled for.

    Raises
    ------
    TargetError
        If that target is unknown, cannot run here, or lacks a feature the program needs.
    """
    backend = get(program)
    state = backend.available()
    if not state.available:
        raise TargetError(
            f"target '{backend.name}'",
            f"it cannot run here: {state.reason}",
            "install what is missing, or compile for another target",
        )
    return backend.open(program)


def learner(program: Program) -> Session:
    """Load `program` in order to learn.

    Raises
    ------
    TargetError
        If its target cannot run here or cannot learn.
    GraphError
        If nothing in the program learns.
    """
    require_learning(get(program))
    check_plasticity(program.graph, required=True)
    return open(program)


def require_learning(backend: Backend) -> None:
    """Raise `TargetError` with the reason, and who can, if `backend` cannot learn."""
    if Feature.LEARNING in backend.unsupported:
        reason = backend.unsupported[Feature.LEARNING]
        able = [b.name for b in backends() if Feature.LEARNING not in b.unsupported]
        remedy = f"compile for {' or '.join(able)}"
        raise TargetError(f"target '{backend.name}'", f"it cannot learn: {reason}", remedy)

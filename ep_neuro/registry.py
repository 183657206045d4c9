"""Models that a configuration names by their ``kind``: ours, and those of plugins."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import BaseModel, Field, TypeAdapter

from ep_neuro.errors import ConfigError

T = TypeVar("T", bound=BaseModel)


class Registry:
    """The subclasses of one model that may stand for it, each by its ``kind``.

    Parameters
    ----------
    what : str
        What they are, for errors.
    base : type
        The model that each of them derives from.
    """

    def __init__(self, what: str, base: type[BaseModel]) -> None:
        self.what, self.base = what, base
        self._models: dict[str, type[BaseModel]] = {}

    @property
    def kinds(self) -> list[str]:
        """The known kinds, in the order of the alphabet."""
        return sorted(self._models)

    def register(self, kind: str) -> Callable[[type[T]], type[T]]:
        """A decorator that makes a model known by `kind`.

        A notebook's cell may run twice: a class of the same name in the same module replaces the
        one before.

        Raises
        ------
        ConfigError
            If the class does not derive from the base, does not have this `kind`, or another one
            has it.
        """

        def known(model: type[T]) -> type[T]:
            self._check(kind, model)
            self._models[kind] = model
            return model

        return known

    def _check(self, kind: str, model: type[BaseModel]) -> None:
        subject = f"{self.what} '{kind}'"
        if not issubclass(model, self.base):
            problem = f"{model.__name__} does not derive from {self.base.__name__}"
            raise ConfigError(
                subject, problem, f"write class {model.__name__}(ep.{self.base.__name__})"
            )
        own = model.model_fields["kind"]
        if get_args(own.annotation) != (kind,) or own.default != kind:
            problem = f"{model.__name__} is not of this kind alone"
            raise ConfigError(subject, problem, f'give it kind: Literal["{kind}"] = "{kind}"')
        old = self._models.get(kind, model)
        if (old.__module__, old.__qualname__) != (model.__module__, model.__qualname__):
            problem = f"{old.__module__}.{old.__qualname__} is called so already"
            raise ConfigError(subject, problem, f"choose another kind for {model.__qualname__}")

    def chosen(self, value: Any) -> Any:
        """The model that the mapping `value` describes, by its ``kind``; anything else as it is.

        For a field with a pydantic ``BeforeValidator``.

        Raises
        ------
        ConfigError
            If there is none of this kind.
        ValidationError
            If it does not take one of the keys or values.
        """
        if not isinstance(value, Mapping):
            return value
        kind, known = value.get("kind"), ", ".join(f"'{kind}'" for kind in self.kinds)
        if kind is None:
            raise ConfigError(self.what, "its kind is missing", f"choose from {known}")
        if kind not in self.kinds:
            near = difflib.get_close_matches(str(kind), self.kinds, n=1)
            other = "name the module that registers it under plugins"
            raise ConfigError(
                f"{self.what} '{kind}'",
                f"there is none of this kind, only {known}",
                f"did you mean '{near[0]}'?" if near else f"choose one of these, or {other}",
            )
        # A union, so that the place of an error tells by its tag which of the models was meant.
        models: Any = Union[tuple(self._models.values())]  # noqa: UP007
        return TypeAdapter(Annotated[models, Field(discriminator="kind")]).validate_python(value)


def load_plugins(names: Sequence[str]) -> None:
    """Import the modules `names`, which register what they bring: ``my_module`` or ``my/file.py``.

    Raises
    ------
    ConfigError
        If one is not found, or fails.
    """
    for name in names:
        try:
            _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        except ConfigError:
            raise
        except Exception as error:  # Whatever a stranger's module raises is its own reason.
            raise ConfigError(
                f"plugin '{name}'",
                f"cannot be imported ({type(error).__name__}: {error})",
                "correct it, put its folder on PYTHONPATH, or give the path of its .py file",
            ) from error


def _import_file(path: Path) -> None:
    """Import the file `path` as a module that bears its path as its name, once."""
    name = str(path.resolve())
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs: pydantic looks names of annotations up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise

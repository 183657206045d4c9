"""The training configuration: YAML, overrides from the command line, and bundled recipes."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from ep_neuro.data import datasets
from ep_neuro.data.augmentation import AUGMENTATIONS, Augmentation
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, EPNeuroError
from ep_neuro.estimators import (
    ESTIMATORS,
    Centered,
    Deployed,
    Estimator,
    FrozenMean,
    Holomorphic,
)
from ep_neuro.estimators.baselines import Backprop
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import Model, load_model
from ep_neuro.network.network import Network
from ep_neuro.network.settling import PUBLISHED_FREE, PUBLISHED_NUDGED, Schedule
from ep_neuro.registry import load_plugins
from ep_neuro.storage.yaml_io import dump_yaml, first_problem, load_yaml, parse_value
from ep_neuro.training.gradient_monitor import Truth
from ep_neuro.training.optimizer import Optimiser
from ep_neuro.training.start import refuse_another, spec_of

RECIPES = Path(__file__).parent / "recipes"
"""Bundled configurations, each named after its network."""


def _as_weights(value: Any) -> Any:
    """Weights of classes, whose names, numbers for instance, become texts."""
    if isinstance(value, dict):
        value = {str(k): v for k, v in value.items()}
    numbers = [*value.values()] if isinstance(value, dict) else value
    listed = isinstance(numbers, list | tuple) and bool(numbers)
    if value in (None, "balanced") or (
        listed and all(isinstance(n, int | float) and 0 < n < math.inf for n in numbers)
    ):
        return value
    raise ConfigError(
        f"class_weights: {value}",
        "neither balanced, nor positive numbers",
        "list one for each class, give some by name, or write balanced",
    )


AnyEstimator = Annotated[SerializeAsAny[Estimator], BeforeValidator(ESTIMATORS.chosen)]
Weights = Annotated[
    Literal["balanced"] | tuple[float, ...] | dict[str, float] | None, BeforeValidator(_as_weights)
]
Side = Annotated[int, Field(ge=1)]
Step = Annotated[SerializeAsAny[Augmentation], BeforeValidator(AUGMENTATIONS.chosen)]
"""What may stand under ``estimator`` and ``augment``: what is registered, chosen by ``kind``."""


class TrainConfig(BaseModel):
    """Everything that a training run depends on.

    Attributes
    ----------
    network : str or mapping, optional
        ``zoo:NAME``, the path of a spec in YAML, or a spec written in place; that of `start` if
        left out.
    start : str, optional
        A model directory, a run directory for its best model, or ``hub:NAME``, whose weights
        training begins with; fresh weights if left out.
    data : str
        Name of a data set (`ep_neuro.data.datasets.load`).
    data_root : str, optional
        Where its files lie.
    resize : (height, width), optional
        To what the images of a folder are brought for a network whose input is flat; one that takes
        images gets them in its own size.
    plugins : sequence of str
        Modules to import first, by name (``my_module``) or as files (``my/module.py``, from the
        working directory), which register estimators (`register_estimator`) or augmentations
        (`register_augmentation`) of their own.
    estimator : Estimator
        Chosen by ``kind``; ``backprop`` trains the feed-forward twin.
    schedule : {"own", "published"}
        ``own`` takes the phases as they are written. ``published`` replaces them by the 120 free
        and twice 50 nudged even/odd sweeps of the published code (arXiv:2509.26003), and
        frozen-mean by centered, so that one file runs both. Its gradient is that of the published
        code, too, if ``optimiser.clip_norm`` is 1.
    truth : Truth, optional
        How true the gradient of the estimator ``frozen-mean`` has to be: its sweeps are then as few
        as keep it so. With null, it does the sweeps that it says. Other estimators, and networks
        with untied couplings, are not watched.
    optimiser : Optimiser
    epochs, batch : int
        Passes over the training split, samples a step.
    average : float
        Decay of the running average of the parameters that is validated and saved; 0 for none.
    evaluation : Schedule
        Settling at validation and test.
    seed : int
        Seed of the weights and of the order of samples.
    threads : int
        Torch threads while it trains.
    augment : sequence of Augmentation
        Steps that training images go through, in order, each chosen by ``kind``: ``flip``,
        ``crop``, ``cutout``, ``affine``, ``randaugment``.
    label_smoothing : float
        Share of the target that is spread evenly over all classes.
    class_weights : "balanced", sequence or mapping, optional
        Factor of the cost of each sample by its class (`ep_neuro.training.class_weights`): one for
        each class, some by name, or such that each class has the same share of the cost.
    validate_every : int
        Epochs from one validation to the next; the last epoch is always validated.
    weight_noise : float
        Standard deviation of what is added to each weight while a gradient is taken, in largest
        weights of its row, drawn anew for every step; the weights themselves take the step without
        it. So a network learns to bear what devices of a crossbar do.
    carry_states : bool
        Start each free phase at the free equilibrium of the batch before, not at rest.
    on_unsettled : {"continue", "more-sweeps", "stop"}
        What to do with a batch of which more than `unsettled_limit` of the samples end the free
        phase above the tolerance: use it, estimate again with twice and then four times the
        sweeps, or save and stop. The share is in the metrics in any case.
    unsettled_limit : float
        Share of a batch.
    save_minutes : float
        Save within an epoch after this many minutes; 0 saves at the end of epochs alone.
    device : {"auto", "cpu", "cuda"}
        Where to compute; ``auto`` takes a GPU if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str | dict[str, Any] | None = None
    start: str | None = None
    data: str = "digits"
    data_root: str | None = None
    resize: tuple[Side, Side] | None = None
    plugins: tuple[str, ...] = ()
    estimator: AnyEstimator = Centered()
    schedule: Literal["own", "published"] = "own"
    truth: Truth | None = Truth()
    optimiser: Optimiser = Optimiser()
    epochs: Annotated[int, Field(ge=1)] = 20
    batch: Annotated[int, Field(ge=1)] = 64
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    evaluation: Schedule = Schedule(sweeps=200)
    seed: int = 0
    threads: Annotated[int, Field(ge=1)] = 1
    augment: tuple[Step, ...] = ()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Weights = None
    validate_every: Annotated[int, Field(ge=1)] = 1
    weight_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    carry_states: bool = False
    on_unsettled: Literal["continue", "more-sweeps", "stop"] = "continue"
    unsettled_limit: Annotated[float, Field(ge=0, le=1)] = 0.5
    save_minutes: Annotated[float, Field(ge=0)] = 10.0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _published_phases_replace_the_written_ones(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("schedule") != "published":
            return data
        written = data.get("estimator", {})
        written = dict(written) if isinstance(written, dict) else written.model_dump()
        kind = written.get("kind", "centered")
        if kind not in ("centered", "frozen-mean"):
            raise ConfigError(
                "schedule: published",
                f"its phases are those of centered EP, not of estimator '{kind}'",
                "set estimator.kind: centered, or schedule: own",
            )
        beta = {"beta": written["beta"]} if "beta" in written else {}
        phases = {"free": PUBLISHED_FREE, "nudged": PUBLISHED_NUDGED}
        estimator = {"kind": "centered", **beta, **phases}
        return {**data, "estimator": estimator, "evaluation": PUBLISHED_FREE}

    @model_validator(mode="before")
    @classmethod
    def _plugins_come_first(cls, data: Any) -> Any:
        names = data.get("plugins") if isinstance(data, dict) else None
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            load_plugins(names)
        return data

    @field_validator("estimator", mode="before")
    @classmethod
    def _estimator_is_centered_unless_it_says_otherwise(cls, value: Any) -> Any:
        return {"kind": "centered", **value} if isinstance(value, dict) else value

    def spec(self) -> NetworkSpec:
        """The network to train; raises `SpecError` or `ConfigError`."""
        if self.network is None:
            return self._started_from()
        if isinstance(self.network, dict):
            return NetworkSpec.from_dict(self.network, where="network")
        if self.network.startswith("zoo:"):
            return zoo(self.network[4:])
        return NetworkSpec.from_yaml(self.network)

    def check(self, spec: NetworkSpec) -> None:
        """Raise `ConfigError` if an option asks for what network or estimator cannot do."""
        if self.start is not None:
            refuse_another(self.start, self._started_from(), spec)
        if isinstance(self.estimator, Deployed):
            self._check_deployed(spec)
        self._check_resize(spec)
        nudges_alone = isinstance(self.estimator, Holomorphic) or (
            isinstance(self.estimator, Deployed) and self.estimator.response == "encoded"
        )
        if self.class_weights is not None and nudges_alone:
            raise ConfigError(
                "class_weights",
                f"estimator '{self.estimator.kind}' nudges every sample alike",
                "leave class_weights out, or take estimator.kind: centered",
            )
        if self.augment and len(spec.input.shape) != 3:
            raise ConfigError(
                "augment",
                f"network '{spec.name}' takes {list(spec.input.shape)}, not images",
                "give its input the shape [channels, height, width], or augment: []",
            )
        if (
            self.truth
            and isinstance(self.estimator, FrozenMean)
            and self.on_unsettled != "continue"
        ):
            raise ConfigError(
                f"on_unsettled: {self.on_unsettled}",
                "under truth, phases are as short as keep the gradient true, settled or not",
                "set truth: null, or on_unsettled: continue",
            )
        if self.carry_states and isinstance(self.estimator, Backprop):
            raise ConfigError(
                "carry_states: true",
                "estimator 'backprop' has no free phase",
                "set carry_states: false, or take estimator.kind: centered",
            )

    def _check_resize(self, spec: NetworkSpec) -> None:
        if self.resize is None:
            return
        subject, takes = f"resize: {list(self.resize)}", spec.input.shape
        if not self.data.startswith("folder:"):
            problem = f"data '{self.data}' is no folder of images"
            raise ConfigError(subject, problem, "leave resize out, or set data: folder:PATH")
        if len(takes) == 3 and takes[1:] != self.resize:
            raise ConfigError(
                subject,
                f"network '{spec.name}' takes {list(takes)}, and images are brought to that",
                "leave resize out, or give the input of the network this height and width",
            )

    def _check_deployed(self, spec: NetworkSpec) -> None:
        assert isinstance(self.estimator, Deployed)
        self.estimator.check_spec(spec)
        if self.weight_noise:
            raise ConfigError(
                f"weight_noise: {self.weight_noise:g}",
                "estimator 'deployed' computes with the weights of its chip as they are",
                "set weight_noise: 0, or take another estimator, frozen-mean for instance",
            )
        if self.carry_states:
            raise ConfigError(
                "carry_states: true",
                "a chip starts every sample at rest",
                "set carry_states: false, or take another estimator than deployed",
            )
        if self.on_unsettled == "more-sweeps":
            raise ConfigError(
                "on_unsettled: more-sweeps",
                f"a deployed free phase has {self.estimator.steps} steps, settled or not",
                "set on_unsettled: continue, or give estimator.steps more",
            )

    def begin(self) -> Model:
        """The model that training begins with; raises `ModelError`, `SpecError`, `ConfigError`."""
        if self.start is None:
            return Model(Network(self.spec(), self.seed))
        found = load_model(self.start)
        refuse_another(self.start, found.network.spec, self.spec())
        network = Network(self.spec())
        network.load_state_dict(found.network.state_dict())
        return Model(network, {"start.sha256": found.digest})

    def _started_from(self) -> NetworkSpec:
        if self.start is None:
            raise ConfigError(
                "network", "is missing", "name it, zoo:digits_dense for instance, or give start"
            )
        return spec_of(self.start)

    def to_yaml(self) -> str:
        """The resolved configuration, defaults included."""
        return dump_yaml(self.model_dump(mode="json"))


def located(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration with every path absolute: they mean the same anywhere."""

    def full(path: str) -> str:
        return path if path.startswith(("zoo:", "hub:", "~")) else os.path.abspath(path)

    found = {**values, "data": datasets.located(values["data"])}
    for key in ("network", "start", "data_root"):
        if isinstance(found.get(key), str):
            found[key] = full(found[key])
    if "plugins" in found:
        found["plugins"] = [full(n) if n.endswith(".py") else n for n in found["plugins"]]
    return found


def read_config(name: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration and apply ``a.b=value`` overrides.

    Parameters
    ----------
    name : str or path
        A YAML file, or ``zoo:NAME`` for the bundled recipe of a zoo network.
    overrides : sequence of str
        In YAML syntax on the right, e.g. ``optimiser.lr=0.01``.

    Raises
    ------
    ConfigError
        For an unknown key, a wrong value or a missing file.
    """
    name = str(name)
    data = load_yaml(_recipe(name[4:]) if name.startswith("zoo:") else name)
    for override in overrides:
        _apply(data, override)
    return build_config(data, where=name)


def build_config(data: Mapping[str, Any], where: str = "config") -> TrainConfig:
    """A configuration from plain data; `where` names its origin in errors."""
    try:
        config = TrainConfig.model_validate(data)
        spec = config.spec()
        config.optimiser.check_names(spec)
        config.check(spec)
        return config
    except ValidationError as error:
        raise ConfigError(where, *first_problem(error, TrainConfig)) from None
    except EPNeuroError as error:
        raise type(error)(f"{where}: {error.subject}", error.problem, error.remedy) from None


def recipes() -> list[str]:
    """Names of the bundled recipes."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml"))


def _recipe(name: str) -> Path:
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, recipes(), n=1)
        hint = f"did you mean 'zoo:{near[0]}'?" if near else f"there are {', '.join(recipes())}"
        raise ConfigError(f"recipe 'zoo:{name}'", "there is none of this name", hint)
    return path


def _apply(data: dict[str, Any], override: str) -> None:
    keys, equals, value = override.partition("=")
    if not equals or not all(keys.split(".")):
        raise ConfigError(f"--set {override}", "is not KEY=VALUE", "write --set optimiser.lr=0.01")
    *path, last = keys.split(".")
    here = data
    for key in path:
        here = here.setdefault(key, {})
        if not isinstance(here, dict):
            raise ConfigError(
                f"--set {override}",
                f"'{key}' holds a single value, not keys",
                f"set '{key}' as a whole, or write its keys in the file",
            )
    here[last] = parse_value(value)

"""Claims about training configurations: recipes, overrides, and errors with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ep_neuro.errors import ConfigError, EPNeuroError, SpecError
from ep_neuro.estimators import Centered
from ep_neuro.estimators.baselines import Backprop
from ep_neuro.network.settling import PUBLISHED_FREE, PUBLISHED_NUDGED
from ep_neuro.storage.yaml_io import parse_yaml
from ep_neuro.training.config import TrainConfig, build_config, read_config, recipes
from tests.helpers.graphs import digits_like_dense

PLAIN: dict[str, Any] = {"network": "zoo:digits_dense"}
IMAGES = {
    "name": "images",
    "input": {"shape": [1, 6, 6]},
    "populations": [{"name": "output", "shape": [3]}],
    "couplings": [{"pre": "input", "post": "output"}],
}


@pytest.mark.parametrize("name", recipes())
def test_each_recipe_trains_the_network_of_its_name(name: str) -> None:
    config = read_config(f"zoo:{name}")
    assert config.spec().name == name
    assert isinstance(config.network, dict) or config.network == f"zoo:{name}"


@pytest.mark.parametrize("name", recipes())
def test_a_resolved_configuration_reads_back_the_same(name: str) -> None:
    config = read_config(f"zoo:{name}")
    assert build_config(parse_yaml(config.to_yaml(), "text")) == config


@pytest.mark.parametrize("kind", ["centered", "frozen-mean"])
def test_one_key_runs_a_file_by_the_published_schedule(kind: str) -> None:
    data = {**PLAIN, "estimator": {"kind": kind, "beta": 0.3}, "schedule": "published"}
    config = build_config(data)
    published = Centered(beta=0.3, free=PUBLISHED_FREE, nudged=PUBLISHED_NUDGED)
    assert config.estimator == published
    assert config.evaluation == PUBLISHED_FREE
    assert build_config(parse_yaml(config.to_yaml(), "text")) == config


def test_the_published_schedule_is_refused_where_there_are_no_such_phases() -> None:
    data = {**PLAIN, "estimator": {"kind": "backprop"}, "schedule": "published"}
    with pytest.raises(ConfigError, match=r"not of estimator 'backprop'; set estimator\.kind"):
        build_config(data)


def test_overrides_reach_any_depth_and_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("network: zoo:digits_dense\nepochs: 5\noptimiser: {lr: 0.1}\n")
    overrides = ["epochs=7", "optimiser.kind=sgd", "estimator.free.sweeps=3", "data_root=null"]
    config = read_config(str(path), overrides)
    assert config.epochs == 7
    assert (config.optimiser.kind, config.optimiser.lr) == ("sgd", 0.1)
    assert isinstance(config.estimator, Centered)
    assert config.estimator.free.sweeps == 3
    assert config.data_root is None


def test_the_last_of_two_overrides_counts() -> None:
    assert read_config("zoo:digits_dense", ["seed=1", "seed=2"]).seed == 2


def test_estimators_are_chosen_by_kind_and_centered_by_default() -> None:
    assert isinstance(
        build_config({**PLAIN, "estimator": {"kind": "backprop"}}).estimator, Backprop
    )
    assert build_config({**PLAIN, "estimator": {"beta": 0.5}}).estimator == Centered(beta=0.5)


def test_a_network_is_a_zoo_name_a_file_or_written_in_place(tmp_path: Path) -> None:
    spec = digits_like_dense()
    path = tmp_path / "net.yaml"
    path.write_text(spec.to_yaml())
    assert build_config({"network": str(path)}).spec() == spec
    assert build_config({"network": spec.to_dict()}).spec() == spec


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"epoch": 3}, ["unknown key 'epoch'", "did you mean 'epochs'?"]),
        ({"optimiser": {"lrr": 1}}, ["unknown key 'optimiser.lrr'", "did you mean 'lr'?"]),
        ({"estimator": {"bta": 1}}, ["unknown key 'estimator.bta'", "did you mean 'beta'?"]),
        (
            {"estimator": {"kind": "backprop", "beta": 1}},
            ["unknown key 'estimator.beta'", "known keys: kind, batch_norm"],
        ),
        (
            {"estimator": {"kind": "magic"}},
            ["estimator", "'magic'", "only 'backprop', 'bptt', 'centered'"],
        ),
        ({"epochs": 0}, ["epochs = 0", "greater than or equal to 1"]),
        ({"average": 1}, ["average = 1", "less than 1"]),
        ({"optimiser": {"lr": "fast"}}, ["optimiser.lr = fast", "valid number"]),
        ({"network": 5}, ["network = 5"]),
        ({"network": "zoo:digits_dens"}, ["'digits_dens'", "did you mean 'digits_dense'?"]),
        ({"network": "/none.yaml"}, ["/none.yaml", "No such file"]),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_line(
    change: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({**PLAIN, **change}, where="c.yaml")
    text = str(caught.value)
    assert text.startswith("c.yaml: ")
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_a_wrong_network_in_place_is_a_spec_error_that_names_the_coupling() -> None:
    data = digits_like_dense().to_dict()
    data["couplings"][0]["stride"] = 2
    with pytest.raises(SpecError, match=r"c\.yaml: network: coupling 'input->h1'"):
        build_config({"network": data}, where="c.yaml")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("epochs", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("optimiser..lr=3", "is not KEY=VALUE"),
        ("epochs.x=3", "'epochs' holds a single value, not keys; set 'epochs' as a whole"),
        ("optimiser.rate=3", "unknown key 'optimiser.rate'"),
    ],
)
def test_a_wrong_override_is_refused_and_named(override: str, part: str) -> None:
    with pytest.raises(EPNeuroError) as caught:
        read_config("zoo:digits_dense", [override])
    assert part in str(caught.value)


def test_an_unknown_recipe_brings_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'zoo:digits_dense'"):
        read_config("zoo:digits_dens")
    with pytest.raises(ConfigError, match="there are cifar10_resnet, digits_dense"):
        read_config("zoo:xyz")


def test_a_configuration_cannot_be_changed() -> None:
    config = TrainConfig.model_validate(PLAIN)
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3  # type: ignore[misc]


# --- resize ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "data 'digits' is no folder of images; leave resize out, or set data: folder:PATH"),
        ({"data": "folder:f", "network": IMAGES}, "takes [1, 6, 6], and images are brought to"),
        ({"data": "folder:f", "resize": [4]}, "resize"),
        ({"data": "folder:f", "resize": [4, 0]}, "resize"),
    ],
)
def test_a_resize_that_changes_nothing_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({**PLAIN, "resize": [4, 5], **change})
    assert says in str(caught.value)
    same = {"data": "folder:f", "network": IMAGES, "resize": [6, 6]}
    assert build_config(same).resize == (6, 6)

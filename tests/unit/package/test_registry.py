"""Claims about plugins: what a user registers stands in a configuration beside what is ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel

from ep_neuro.data.augmentation import AUGMENTATIONS, Flip, augment, draws
from ep_neuro.errors import ConfigError
from ep_neuro.estimators import ESTIMATORS, Centered, Estimator, register_estimator
from ep_neuro.storage.yaml_io import dump_yaml
from ep_neuro.training.config import build_config, read_config
from ep_neuro.training.loop import train
from tests.unit.training.test_loop import NETWORK, clusters, learned

MINE = '''
"""Centered EP, but twice as steep."""
from __future__ import annotations
from dataclasses import replace
from typing import Literal
import ep_neuro as ep

@ep.register_estimator("{kind}")
class Mine(ep.Estimator):
    kind: Literal["{kind}"] = "{kind}"
    factor: float = 2.0
    free: ep.Schedule = ep.Schedule()

    def __call__(self, network, x, y, start=None):
        found = ep.Centered(free=self.free)(network, x, y, start)
        steep = {{k: self.factor * g for k, g in found.gradient.items()}}
        return replace(found, gradient=steep)
'''

NEGATIVE = """
from typing import Literal
import ep_neuro as ep

@ep.register_augmentation("negative")
class Negative(ep.Augmentation):
    kind: Literal["negative"] = "negative"

    @property
    def draws(self):
        return 0

    def __call__(self, images, u):
        return 1 - images
"""


@pytest.fixture(autouse=True)
def _what_a_test_registers_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what is ours alone, as a fresh process has it."""
    for registry in (ESTIMATORS, AUGMENTATIONS):
        ours = {k: m for k, m in registry._models.items() if m.__module__.startswith("ep_neuro.")}
        monkeypatch.setattr(registry, "_models", ours)


def written(folder: Path, kind: str = "mine") -> str:
    path = folder / f"my_{kind}.py"
    path.write_text(MINE.format(kind=kind), encoding="utf-8")
    return str(path)


def config(folder: Path, plugin: str, **estimator: Any) -> str:
    data = {"network": NETWORK, "estimator": estimator, "plugins": [plugin], "epochs": 2}
    (folder / "config.yaml").write_text(dump_yaml(data), encoding="utf-8")
    return str(folder / "config.yaml")


def test_a_file_of_ones_own_brings_an_estimator(tmp_path: Path) -> None:
    plugin = written(tmp_path)
    found = read_config(
        config(tmp_path, plugin, kind="mine", factor=3), ["estimator.free.sweeps=7"]
    )
    assert found.estimator.kind == "mine"
    assert found.estimator.factor == 3  # type: ignore[attr-defined]
    assert found.model_dump(mode="json")["estimator"]["free"]["sweeps"] == 7
    assert found.plugins == (plugin,)


def test_so_does_a_module_that_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "other")
    monkeypatch.syspath_prepend(tmp_path)
    found = read_config(config(tmp_path, "my_other", kind="other"))
    assert type(found.estimator).__module__ == "my_other"


def test_a_run_with_it_resumes_from_its_own_configuration_in_a_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, run = written(tmp_path), tmp_path / "run"
    chosen = read_config(config(tmp_path, plugin, kind="mine", factor=0.5), ["epochs=1"])
    begun = train(chosen, run, dataset=clusters())
    forget(monkeypatch)
    monkeypatch.delitem(sys.modules, str(Path(plugin).resolve()))
    again = read_config(str(run / "config.yaml"), ["epochs=2"])
    resumed = train(again, run, dataset=clusters(), resume=True)
    assert resumed.model.metadata["estimator"] == "mine"
    assert learned(resumed)[:1] == learned(begun)
    assert len(resumed.history) == 2


def test_a_plugin_may_bring_an_augmentation(tmp_path: Path) -> None:
    path = tmp_path / "negative.py"
    path.write_text(NEGATIVE, encoding="utf-8")
    data = {"network": "zoo:digits_residual", "plugins": [str(path)]}
    found = build_config({**data, "augment": [{"kind": "flip"}, {"kind": "negative"}]})
    assert build_config(found.model_dump(mode="json")) == found
    images = torch.rand(2, 1, 8, 8)
    u = draws(found.augment, 2, 0)
    assert torch.equal(augment(images, found.augment, u), 1 - Flip()(images, u))
    with pytest.raises(ConfigError, match=r"augmentation: its kind is missing; choose from 'affi"):
        build_config({**data, "augment": [{"p": 1}]})
    with pytest.raises(ConfigError, match=r"augmentation 'negativ'.*did you mean 'negative'"):
        build_config({**data, "augment": [{"kind": "negativ"}]})


def test_an_unknown_kind_brings_the_nearest_or_all(tmp_path: Path) -> None:
    plugin = written(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_config(config(tmp_path, plugin, kind="centred"))
    assert str(caught.value).endswith(
        "config.yaml: estimator 'centred': there is none of this kind, only 'backprop', "
        "'bptt', 'centered', 'deployed', 'frozen-mean', 'holomorphic', 'implicit', 'mine', "
        "'one-sided', 'random-sign'; "
        "did you mean 'centered'?"
    )
    with pytest.raises(
        ConfigError, match=r"choose one of these, or name the module that registers"
    ):
        build_config({"network": NETWORK, "estimator": {"kind": "xyz"}})


def test_a_wrong_key_of_it_is_refused_as_ours_are(tmp_path: Path) -> None:
    plugin = written(tmp_path)
    with pytest.raises(ConfigError, match=r"unknown key 'estimator.fctor'; did you mean 'factor'"):
        read_config(config(tmp_path, plugin, kind="mine", fctor=3))
    with pytest.raises(ConfigError, match=r"estimator.free.sweeps = 0: .* greater than"):
        read_config(config(tmp_path, plugin, kind="mine", free={"sweeps": 0}))


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        ("no_such_module", "'no_such_module': cannot be imported .*No module named"),
        ("none.py", r"'none.py': cannot be imported \(FileNotFoundError: "),
        (
            "broken.py",
            r"'broken.py': cannot be imported \(ZeroDivisionError: .*\); correct it, put",
        ),
    ],
)
def test_a_plugin_that_fails_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str, says: str
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"c.yaml: plugin {says}"):
        build_config({"network": NETWORK, "plugins": [plugin]}, where="c.yaml")


def test_plugins_are_a_list_of_names() -> None:
    with pytest.raises(ConfigError, match=r"plugins = my_module: Input should be a valid tuple"):
        build_config({"network": NETWORK, "plugins": "my_module"})


# --- what may be registered --------------------------------------------------------------------


def test_a_cell_that_runs_twice_replaces_its_estimator() -> None:
    for factor in (1.0, 2.0):

        @register_estimator("twice")
        class Twice(Estimator):
            kind: Literal["twice"] = "twice"
            steepness: float = factor

    found = build_config({"network": NETWORK, "estimator": {"kind": "twice"}}).estimator
    assert found.steepness == 2  # type: ignore[attr-defined]


def test_a_kind_has_one_owner() -> None:
    class Other(Estimator):
        kind: Literal["centered"] = "centered"

    with pytest.raises(
        ConfigError, match=r"'centered': ep_neuro\.\S*Centered is called so already"
    ):
        register_estimator("centered")(Other)
    assert build_config({"network": NETWORK}).estimator == Centered()


def test_an_estimator_is_of_its_kind_and_of_our_base() -> None:
    class NoKind(Estimator):
        pass

    class Stranger(BaseModel):
        kind: Literal["mine"] = "mine"

    with pytest.raises(
        ConfigError, match=r'NoKind is not .* give it kind: Literal\["mine"\] = "mi'
    ):
        register_estimator("mine")(NoKind)
    with pytest.raises(ConfigError, match=r"write class Stranger\(ep\.Estimator\)"):
        register_estimator("mine")(Stranger)

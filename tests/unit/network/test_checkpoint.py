"""Claims about models and training states on disk: exact, whole, and refused when damaged."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ep_neuro.errors import ConfigError, EPNeuroError, ModelError
from ep_neuro.network import checkpoint
from ep_neuro.network.checkpoint import (
    METADATA,
    SPEC,
    STATE,
    STATE_TENSORS,
    WEIGHTS,
    Model,
    ModelWarning,
    load_model,
    load_state,
    open_model,
    save_model,
)
from ep_neuro.network.network import Network, parameter_names
from tests.helpers.graphs import digits_like_dense, random_residual_spec


def model(seed: int = 0) -> Model:
    return Model(Network(digits_like_dense(), seed), {"seed": seed, "data": "digits"})


def same_parameters(a: Network, b: Network) -> bool:
    mine, theirs = parameter_names(a), parameter_names(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


# --- models ------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_a_model_reads_back_exactly(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    saved = Model(Network(random_residual_spec(seed), seed), {"note": "é", "accuracy": 0.5})
    path = save_model(saved, tmp_path_factory.mktemp("models") / "model")
    found = load_model(path)
    assert found.network.spec == saved.network.spec
    assert same_parameters(found.network, saved.network)
    assert found.digest == saved.digest
    assert found.metadata == {**saved.metadata, "sha256": saved.digest}


def test_a_model_is_three_files_that_other_tools_can_read(tmp_path: Path) -> None:
    path = save_model(model(), tmp_path / "model")
    assert sorted(os.listdir(path)) == sorted([SPEC, WEIGHTS, METADATA])
    assert json.loads((path / METADATA).read_text())["data"] == "digits"
    shapes = {name: tuple(t.shape) for name, t in load_file(path / WEIGHTS).items()}
    assert shapes["weight/h1->out"] == (10, 128)
    assert shapes["bias/h1"] == (128,)


def test_the_digest_tells_any_change_of_a_weight() -> None:
    changed = model()
    with torch.no_grad():
        changed.network.biases["h1"][5] += 1e-6
    assert changed.digest != model().digest == model().digest
    assert model(1).digest != model(0).digest


def test_saving_replaces_an_older_model_and_its_state_as_a_whole(tmp_path: Path) -> None:
    save_model(model(0), tmp_path / "model", state={"epoch": 1})
    save_model(model(1), tmp_path / "model")
    assert same_parameters(load_model(tmp_path / "model").network, model(1).network)
    assert not (tmp_path / "model" / STATE).exists()
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError) as caught:
        save_model(model(), tmp_path)
    assert f"{tmp_path}: is a directory with other content" in str(caught.value)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def resized(path: Path) -> None:
    tensors = load_file(path / WEIGHTS)
    tensors["weight/h1->out"] = tensors["weight/h1->out"][:9].contiguous()
    save_file(tensors, path / WEIGHTS)


def renamed(path: Path) -> None:
    tensors = load_file(path / WEIGHTS)
    tensors["weight/h9->out"] = tensors.pop("weight/h1->out")
    save_file(tensors, path / WEIGHTS)


def with_one_more(path: Path) -> None:
    save_file({**load_file(path / WEIGHTS), "weight/x": torch.zeros(1)}, path / WEIGHTS)


def truncated(path: Path) -> None:
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[: len(data) // 2])


def folder_in_place(path: Path) -> None:
    (path / WEIGHTS).unlink()
    (path / WEIGHTS).mkdir()


def spoilt(values: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """A damage: one weight with `values` of what it was."""

    def damage(path: Path) -> None:
        tensors = load_file(path / WEIGHTS)
        tensors["weight/h1->out"] = values(tensors["weight/h1->out"])
        save_file(tensors, path / WEIGHTS)

    return damage


DAMAGES: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda p: (p / WEIGHTS).unlink(), [WEIGHTS, "the file is missing", "train again"]),
    (truncated, [WEIGHTS, "truncated or damaged", "train again"]),
    (lambda p: (p / WEIGHTS).write_bytes(b""), [WEIGHTS, "truncated or damaged"]),
    (folder_in_place, [WEIGHTS, "truncated or damaged"]),
    (resized, [WEIGHTS, "'weight/h1->out' is [9, 128], the spec says [10, 128]", "restore"]),
    (renamed, [WEIGHTS, "'weight/h1->out' is missing", "restore"]),
    (with_one_more, [WEIGHTS, "'weight/x' is not in the spec", "restore"]),
    (spoilt(lambda w: w * float("nan")), ["'weight/h1->out' holds NaN or infinity", "rate"]),
    (spoilt(lambda w: w / 0), ["'weight/h1->out' holds NaN or infinity", "learning rate"]),
    (spoilt(lambda w: w.double().fill_(1e39)), ["holds 1e+39, beyond float32"]),
    (spoilt(lambda w: (100 * w).to(torch.int8)), ["is int8, not floating point", "float32"]),
    (spoilt(lambda w: w > 0), ["'weight/h1->out' is bool, not floating point", "float32"]),
    (lambda p: (p / SPEC).unlink(), [f"there is no {SPEC}", "ep-neuro train"]),
    (lambda p: (p / METADATA).unlink(), [METADATA, "cannot be read"]),
    (lambda p: (p / METADATA).write_text("{"), [METADATA, "cannot be read"]),
    (lambda p: (p / METADATA).write_text("[]"), [METADATA, "it holds no object"]),
]


@pytest.mark.parametrize(("damage", "parts"), DAMAGES)
def test_a_damaged_model_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, damage: Callable[[Path], object], parts: list[str]
) -> None:
    path = save_model(model(), tmp_path / "model")
    damage(path)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_type_are_taken(tmp_path: Path, kind: torch.dtype) -> None:
    path = save_model(Model(model().network), tmp_path / "model")
    (path / METADATA).write_text("{}")
    spoilt(lambda w: w.to(kind))(path)
    found = load_model(path).network.weights["h1->out"]
    assert torch.equal(found, model().network.weights["h1->out"].to(kind).float())


def test_a_model_that_was_changed_is_read_with_a_warning(tmp_path: Path) -> None:
    path = save_model(model(), tmp_path / "model")
    spoilt(lambda w: w + 0.05)(path)
    with pytest.warns(ModelWarning, match="do not fit the sha256 in metadata.json"):
        changed = load_model(path)
    save_model(changed, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(path)


def test_a_spec_in_the_words_of_another_version_still_fits_its_digest(tmp_path: Path) -> None:
    path = save_model(model(), tmp_path / "model")
    text = (path / SPEC).read_text().replace("name: out", "name: 'out'")
    (path / SPEC).write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(path)  # the same network as its digest says, in other words
        noted = json.loads((path / METADATA).read_text())
        noted["sha256"] = checkpoint._digest(text, model().network)
        (path / METADATA).write_text(json.dumps(noted))
        load_model(path)


def test_a_model_opens_by_directory_by_spec_and_by_zoo_name(tmp_path: Path) -> None:
    saved = model(3)
    path = save_model(saved, tmp_path / "model")
    assert same_parameters(open_model(path).network, saved.network)
    assert same_parameters(open_model(str(path / SPEC), seed=3).network, saved.network)
    assert open_model("zoo:digits_dense", seed=1).metadata == {"seed": 1}


def test_a_run_directory_is_its_best_model(tmp_path: Path) -> None:
    save_model(model(3), tmp_path / "run" / "best")
    for found in (load_model(tmp_path / "run"), open_model(tmp_path / "run")):
        assert found.digest == model(3).digest


def test_a_model_that_is_not_there_is_refused_with_what_could_be_given(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a model directory, a spec in YAML, hub:NAME or zoo:NAME"):
        open_model(tmp_path / "none")
    with pytest.raises(ModelError, match=f"there is no {SPEC}"):
        open_model(str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean 'digits_dense'"):
        open_model("zoo:digits_dens")


# --- training states ---------------------------------------------------------------------------

# An alphabet of its own: the whole of Unicode takes a second to tabulate on a busy machine.
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text('a/ "\\\n\0é\u2028🜁', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.integers(0, 9) | st.text("a/tensoritems", max_size=6), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(tree=st.dictionaries(st.text("a/", max_size=3), TREES, max_size=3))
@settings(max_examples=25)
def test_a_state_of_plain_values_reads_back_the_same(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = save_model(model(), tmp_path_factory.mktemp("states") / "model", tree)
    assert load_state(path) == tree


def test_tensors_of_a_state_keep_value_type_and_place(tmp_path: Path) -> None:
    tree = {
        "a/b": torch.tensor([1.0, float("nan")]),
        "a": {"b": torch.tensor(3, dtype=torch.int64), 7: torch.zeros(0)},
        "list": [torch.ones(2, 2).T, {"tensor": torch.tensor(True)}],
    }
    found = load_state(save_model(model(), tmp_path / "model", tree))
    torch.testing.assert_close(found["a/b"], tree["a/b"], equal_nan=True)
    assert found["a"]["b"] == 3
    assert found["a"]["b"].dtype == torch.int64
    assert found["a"][7].shape == (0,)
    assert found["list"][0].shape == (2, 2)
    assert found["list"][1]["tensor"].dtype == torch.bool


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_goes_on_from_its_state_as_if_never_stopped(
    tmp_path: Path, kind: type[torch.optim.Optimizer]
) -> None:
    options: dict[str, Any] = {"lr": 0.1}
    if kind is torch.optim.SGD:
        options["momentum"] = 0.9

    def step(network: Network, optimiser: torch.optim.Optimizer) -> None:
        for name, p in parameter_names(network).items():
            p.grad = torch.full_like(p, len(name) / 10) + p.detach()
        optimiser.step()

    first = model().network
    optimiser = kind(first.parameters(), **options)
    for _ in range(3):
        step(first, optimiser)
    path = save_model(Model(first), tmp_path / "model", {"optimiser": optimiser.state_dict()})
    second = load_model(path).network
    resumed = kind(second.parameters(), **options)
    resumed.load_state_dict(load_state(path)["optimiser"])
    for _ in range(3):
        step(first, optimiser)
        step(second, resumed)
    assert same_parameters(first, second)


def test_a_state_with_a_live_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EPNeuroError, match="training state /a/1: is a function"):
        save_model(model(), tmp_path / "model", {"a": [0, lambda: 0]})
    assert os.listdir(tmp_path) == []


def flip(path: Path) -> None:
    """Change one bit of the last value."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_state_that_an_earlier_version_wrote_is_read_without_a_digest(tmp_path: Path) -> None:
    path = save_model(model(), tmp_path / "model", {"a": torch.ones(2)})
    tree = json.loads((path / STATE).read_text())
    del tree["sha256"]
    (path / STATE).write_text(json.dumps(tree))
    assert load_state(path)["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda p: (p / STATE).unlink(), "cannot be read"),
        (lambda p: (p / STATE).write_text("{}"), "does not fit"),
        (lambda p: (p / STATE).write_text('{"items": [["a", {"tensor": "b"}]]}'), "does not fit"),
        (lambda p: (p / STATE).write_text('{"items": 5}'), "does not fit"),
        (lambda p: (p / STATE_TENSORS).unlink(), "the file is missing"),
        (lambda p: (p / STATE_TENSORS).write_bytes(b"x"), "truncated or damaged"),
        (lambda p: flip(p / STATE_TENSORS), "their sha256 is another one"),
        (lambda p: edit(p / STATE, '"c", 1', '"c", 2'), "their sha256 is another one"),
    ],
)
def test_a_damaged_state_is_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], object], part: str
) -> None:
    path = save_model(model(), tmp_path / "model", {"a": torch.ones(2), "b": {"c": 1}})
    damage(path)
    with pytest.raises(ModelError, match=part) as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)

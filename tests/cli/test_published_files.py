"""Claims about checkpoints of published code on the command line: in and out, or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ep_neuro.network.checkpoint import load_model
from tests.cli.conftest import Cli

SHAPES = ((4,), (10,), (4, 1, 3, 3), (4, 8, 8, 10))
SPEC = """
name: small
input: {shape: [1, 8, 8]}
populations:
  - {name: h1, shape: [4, 8, 8], box: [0, 1]}
  - {name: output, shape: [10], box: null}
couplings:
  - {pre: input, post: h1, kind: conv, kernel: 3, padding: 1}
  - {pre: h1, post: output}
"""


@pytest.fixture(autouse=True)
def _written(cli: Cli) -> None:
    """A file as published code saves it, and the network that it belongs to."""
    generator = torch.Generator().manual_seed(0)
    torch.save([0.1 * torch.randn(s, generator=generator) for s in SHAPES], "model.pt")
    Path("small.yaml").write_text(SPEC)


IMPORT = ("import", "model.pt", "--like", "small.yaml", "--out", "model")


def test_a_checkpoint_comes_in_and_goes_out_in_every_byte(cli: Cli) -> None:
    answer = cli(*IMPORT, "--json").answer
    assert answer == {"model": "model", "network": "small", "parameters": 2610}
    assert cli("evaluate", "model", "--limit", 3, "--json").answer["samples"] == 3
    words = ("export", "model", "--out", "back/model.pt", "--as", "published", "--json")
    assert cli(*words).answer == {"file": "back/model.pt", "parameters": 2610}
    assert Path("back/model.pt").read_bytes() == Path("model.pt").read_bytes()


def test_a_model_of_float64_is_what_its_digest_says(cli: Cli) -> None:
    torch.save([t.double() / 3 for t in torch.load("model.pt")], "model.pt")
    assert cli(*IMPORT).err == ""
    noted = json.loads(Path("model/metadata.json").read_text())
    assert noted["imported_from"] == "model.pt"
    assert load_model("model").digest == noted["sha256"]


@pytest.mark.parametrize("like", ["digits_dense", "zoo:digits_dense", "config.yaml", "trained"])
def test_like_is_a_name_of_the_zoo_a_configuration_or_a_model(like: str, cli: Cli) -> None:
    Path("config.yaml").write_text("network: zoo:digits_dense\ndata: digits\n")
    assert cli("export", "zoo:digits_dense", "--seed", 3, "--out", "dense.pt").code == 0
    words = ("import", "dense.pt", "--like")
    assert cli(*words, "digits_dense", "--out", "trained").code == 0
    assert cli(*words, like, "--out", "again").code == 0
    assert load_model("again").digest == load_model("trained").digest


def test_a_state_dict_is_taken_with_a_word_on_its_slope(cli: Cli) -> None:
    biases_first = torch.load("model.pt")
    layers = (biases_first[2], biases_first[0], biases_first[3].reshape(256, 10).T, biases_first[1])
    names = [f"synapses.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")]
    torch.save(dict(zip(names, layers, strict=True)), "theirs.tar")
    words = ("import", "theirs.tar", "--like", "small.yaml", "--out")
    told = cli(*words, "theirs").err
    assert told.startswith("warning: theirs.tar: taken for one of --act hard_sigmoid")
    assert told.count("\n") == 1
    assert cli(*words, "half", "--slope", 0.5).err == ""
    assert cli(*IMPORT).code == 0
    assert load_model("theirs").digest == load_model("model").digest
    halves, wholes = load_model("half").network.weights, load_model("model").network.weights
    assert torch.equal(2 * halves["h1->output"], wholes["h1->output"])


def test_bad_files_are_refused_in_one_line_and_nothing_is_written(cli: Cli) -> None:
    whole, tensors = Path("model.pt").read_bytes(), torch.load("model.pt")
    made = {
        "cut.pt": "is no whole file of torch.save",
        "order.pt": "tensor 0 (bias/h1): is [4, 1, 3, 3], expected [4]",
        "turned.pt": "tensor 3 (weight/h1->output): is [10, 4, 8, 8], expected [4, 8, 8, 10]",
        "nan.pt": "tensor 2 (weight/input->h1): holds NaN or infinity",
        "whole.pt": "tensor 2 (weight/input->h1): is int64, not floating point",
        "class.pt": "is a pickle of classes ('torch.nn.modules.linear.Linear')",
        "full.pt": "tensor 0 (bias/h1): is [4, 8, 8], one value a neuron",
        "none.pt": "No such file",
        "empty.pt": "tensor 'synapses.0.weight' (weight/input->h1): is missing, expected "
        "[4, 1, 3, 3]; give the network that was saved",
    }
    Path("cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save([*tensors[2:], *tensors[:2]], "order.pt")
    torch.save([*tensors[:3], tensors[3].permute(3, 0, 1, 2)], "turned.pt")
    torch.save([*tensors[:2], tensors[2] / 0, tensors[3]], "nan.pt")
    torch.save([*tensors[:2], tensors[2].long(), tensors[3]], "whole.pt")
    torch.save(torch.nn.Linear(2, 2), "class.pt")
    torch.save([torch.zeros(4, 8, 8), *tensors[1:]], "full.pt")
    torch.save({}, "empty.pt")
    before = sorted(os.listdir())
    for file, says in made.items():
        done = cli("import", file, "--like", "small.yaml", "--out", "model")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error: {file}: {says}"), done.err
        assert done.err.count("\n") == 1
    assert sorted(os.listdir()) == before
    assert (
        cli("import", "full.pt", "--like", "small.yaml", "--out", "m", "--average-biases").code == 0
    )


def test_neither_a_model_nor_a_file_is_replaced_unasked(cli: Cli) -> None:
    assert cli(*IMPORT).code == 0
    before = load_model("model").digest
    torch.save([2 * t for t in torch.load("model.pt")], "model.pt")
    done = cli(*IMPORT)
    assert (done.code, load_model("model").digest) == (2, before)
    assert "--out model: holds a model already; choose another place, or replace it" in done.err
    assert cli(*IMPORT, "--force").code == 0
    assert load_model("model").digest != before
    assert "error: model.pt: exists" in cli("export", "model", "--out", "model.pt").err
    assert cli("export", "model", "--out", "model.pt", "--force").code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*IMPORT[:3], "vgg6", *IMPORT[4:]), "model 'vgg6': no such directory or file"),
        ((*IMPORT[:3], "vgg5", *IMPORT[4:]), "tensor 0 (bias/h1): is [4], expected [128]"),
        ((*IMPORT, "--slope", "0"), "--slope 0: is no finite number above 0"),
        ((*IMPORT, "--slope", "nan"), "--slope nan: is no finite number above 0"),
        ((*IMPORT, "--slope", "1e45"), "--slope 1e+45: leaves inf of 'bias/h1', out of float32"),
        ((*IMPORT, "--slope", "1e-50"), "--slope 1e-50: leaves 0 of 'bias/h1', out of float32"),
        (
            ("export", "small.yaml", "--out", "x.pt", "--slope", "1e-45"),
            "--slope 1e-45: leaves inf of 'weight/input->h1', out of float32",
        ),
        (("import", "model.pt", "--out", "model"), "--like"),
        (("import", "model.pt", "--like", "small.yaml"), "--out"),
        (("export", "small.yaml"), "--out"),
        (("export", "small.yaml", "--out", "x.pt", "--as", "jax"), "--as jax: is no published"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    words: tuple[object, ...], says: str, cli: Cli
) -> None:
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert done.err.count("\n") == 1
    assert sorted(os.listdir()) == ["model.pt", "small.yaml"]


@pytest.mark.parametrize("command", ["evaluate", "check", "inspect"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_where_a_model_belongs_is_told_of_import(
    cli: Cli, tmp_path: Path, command: str, zipped: bool
) -> None:
    torch.save([torch.zeros(2)], tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    found = cli(command, "model.pt")
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "`ep-neuro import model.pt --like NETWORK --out DIR`" in found.err

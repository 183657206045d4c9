"""Claims about checkpoints of published code: read by shape, written back the same, or refused.

The order of the tensors is written out here as the public code builds its networks, not as ours
derives it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import ep_neuro as ep
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec, ReadoutSpec
from ep_neuro.errors import ConfigError, ModelError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import Model, ModelWarning, load_model, save_model
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.network.published_files import export_published, import_published
from ep_neuro.network.settling import Schedule
from ep_neuro.storage import value_checks
from tests.helpers.graphs import random_residual_spec
from tests.unit.network.test_published import CLOSE, narrow, published_figures

RESNET13 = (
    *("input->h1", "h1->h2", "input->h2", "h2->h3", "h2->h4", "h3->h4", "h4->h5", "h4->h6"),
    *("h5->h6", "h6->h7", "h6->h8", "h7->h8", "h8->output"),
)
"""Edges of Hopfield-Resnet13 as the code of arXiv:2509.26003 lists them."""


def narrow_file(path: Path, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The weights of the figures at `path`, as the public code saves them."""
    figures = published_figures()
    biases = [figures[f"bias/h{i}"] for i in range(1, 9)] + [figures["bias/output"]]
    weights = [figures[f"weight/{name}"] for name in RESNET13]
    weights[-1] = weights[-1].T.reshape(8, 2, 2, 10)
    tensors = [t.to(dtype).contiguous() for t in (*biases, *weights)]
    torch.save(tensors, path)
    return tensors


def random_file(path: Path, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    torch.save(tensors, path)
    return tensors


def small_vgg(readout: bool = False) -> NetworkSpec:
    """Two pooled convolutions and a dense head, as P_CNN of Laborieux builds them."""
    populations = [
        PopulationSpec(name="h1", shape=(4, 4, 4)),
        PopulationSpec(name="h2", shape=(5,)),
    ]
    couplings = [
        CouplingSpec(pre="input", post="h1", kind="conv", kernel=3, padding=1, pool="max"),
        CouplingSpec(pre="h1", post="h2"),
    ]
    if not readout:
        populations.append(PopulationSpec(name="output", shape=(3,)))
        couplings.append(CouplingSpec(pre="h2", post="output"))
    return NetworkSpec(
        name="small_vgg",
        input=InputSpec(shape=(2, 8, 8)),
        populations=tuple(populations),
        couplings=tuple(couplings),
        readout=ReadoutSpec(classes=3) if readout else None,
    )


def synapses() -> nn.Module:
    """Torch's layers of `small_vgg`, under the name that they have in the code of Laborieux."""
    torch.manual_seed(0)
    model = nn.Module()
    model.synapses = nn.ModuleList(
        [nn.Conv2d(2, 4, 3, padding=1), nn.Linear(64, 5), nn.Linear(5, 3)]
    )
    return model


# --- what is read ------------------------------------------------------------------------------


def test_a_published_file_settles_to_the_published_states(tmp_path: Path) -> None:
    narrow_file(tmp_path / "model.pt", torch.float64)
    network = ep.import_published(tmp_path / "model.pt", narrow()).network
    figures = published_figures()
    published = Schedule(method="even-odd", sweeps=120, relaxation=1.0, tolerance=0.0)
    settled = network.settle(figures["x"], published)
    assert settled.sweeps == 120
    for name, value in settled.state.items():
        torch.testing.assert_close(value, figures[f"free/{name}"], **CLOSE)


def test_a_file_comes_back_in_every_byte(tmp_path: Path) -> None:
    file, back = tmp_path / "model.pt", tmp_path / "back" / "model.pt"
    tensors = narrow_file(file)
    save_model(import_published(file, narrow()), tmp_path / "model")
    export_published(load_model(tmp_path / "model"), back)
    found = torch.load(back, weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(found, tensors, strict=True))
    assert back.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("name", "side"), [("hopfield_vgg5", 2), ("vgg5", 1)])
def test_vgg5_is_read_and_written_by_the_shapes_of_its_code(
    name: str, side: int, tmp_path: Path
) -> None:
    widths = (3, 128, 256, 512, 512)
    shapes: list[tuple[int, ...]] = [(n,) for n in (*widths[1:], 10)]
    shapes += [(post, pre, 3, 3) for pre, post in itertools.pairwise(widths)]
    tensors = random_file(tmp_path / "model.pt", [*shapes, (512, side, side, 10)])
    model = import_published(tmp_path / "model.pt", zoo(name))
    export_published(model, tmp_path / "back.pt")
    found = torch.load(tmp_path / "back.pt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(found, tensors, strict=True))
    z = torch.randn(2, 512, side, side).double()
    head = model.network.weights["h4->output"].double()
    torch.testing.assert_close(z.flatten(1) @ head.T, torch.tensordot(z, tensors[-1].double(), 3))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_export_and_import_are_inverse(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = Model(Network(random_residual_spec(seed), seed))
    file = export_published(model, tmp_path_factory.mktemp("files") / "model.pt")
    found = parameter_names(import_published(file, model.network.spec).network)
    for name, value in parameter_names(model.network).items():
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("kept", ["bare", "checkpoint.tar", "old format"])
def test_a_state_dict_of_laborieux_settles_to_what_its_layers_compute(
    kept: str, tmp_path: Path
) -> None:
    model, file = synapses(), tmp_path / "checkpoint.tar"
    state: Any = model.state_dict()
    if kept == "checkpoint.tar":
        groups = [{"lr": 0.1, "momentum": 0.9, "nesterov": False, "params": [0]}]
        optimiser = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": groups}
        state = {"model_state_dict": state, "opt": optimiser, "test_acc": [0.9], "scheduler": None}
    torch.save(state, file, _use_new_zipfile_serialization=kept != "old format")
    network = import_published(file, small_vgg(), slope=1.0).network
    x = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    z = network.settle(x, Schedule(sweeps=400, tolerance=1e-7)).state
    first, second, last = model.synapses
    # At rest each state is its activation of the derivative of Phi, as P_CNN has it.
    state = {name: value.clone().requires_grad_() for name, value in z.items()}
    phi = (nn.functional.max_pool2d(first(x), 2) * state["h1"]).sum()
    phi = phi + (second(state["h1"].flatten(1)) * state["h2"]).sum()
    phi = phi + (last(state["h2"]) * state["output"]).sum()
    for name, drive in zip(z, torch.autograd.grad(phi, list(state.values())), strict=True):
        torch.testing.assert_close(z[name], drive.clamp(0, 1), rtol=0, atol=1e-5)


def test_a_slope_of_a_half_is_my_hard_sig(tmp_path: Path) -> None:
    torch.save(synapses().state_dict(), tmp_path / "file.pt")
    steep = parameter_names(import_published(tmp_path / "file.pt", small_vgg(), slope=1).network)
    model = import_published(tmp_path / "file.pt", small_vgg(), slope=0.5)
    for name, value in parameter_names(model.network).items():
        assert torch.equal(value, steep[name] / 2)
    export_published(model, tmp_path / "back.pt", layout="laborieux", slope=0.5)
    found = torch.load(tmp_path / "back.pt", weights_only=True)
    assert list(found) == list(synapses().state_dict())
    assert all(torch.equal(found[k], v) for k, v in synapses().state_dict().items())


def test_a_softmax_readout_is_the_last_layer_and_has_no_slope(tmp_path: Path) -> None:
    torch.save(synapses().state_dict(), tmp_path / "file.pt")
    network = import_published(tmp_path / "file.pt", small_vgg(readout=True), slope=0.5).network
    assert network.readout is not None
    assert torch.equal(network.readout.weight, synapses().synapses[2].weight)
    assert torch.equal(network.weights["h1->h2"], synapses().synapses[1].weight / 2)


def test_a_state_dict_without_a_slope_is_taken_with_a_warning(tmp_path: Path) -> None:
    torch.save(synapses().state_dict(), tmp_path / "file.pt")
    with pytest.warns(ModelWarning, match="--slope 0.5"):
        import_published(tmp_path / "file.pt", small_vgg())


def test_full_biases_are_averaged_on_request_only(tmp_path: Path) -> None:
    tensors = narrow_file(tmp_path / "model.pt")
    full = torch.arange(4 * 32 * 32.0).reshape(4, 32, 32)
    torch.save([full, *tensors[1:]], tmp_path / "model.pt")
    with pytest.raises(
        ModelError, match=r"tensor 0 \(bias/h1\): is \[4, 32, 32\], one value a neu"
    ):
        import_published(tmp_path / "model.pt", narrow())
    model = import_published(tmp_path / "model.pt", narrow(), average_biases=True)
    torch.testing.assert_close(model.network.biases["h1"].data, full.mean((1, 2)))


def test_a_bias_of_one_pixel_a_channel_is_no_average(tmp_path: Path) -> None:
    spec = NetworkSpec(
        name="one_pixel",
        input=InputSpec(shape=(2, 2, 2)),
        populations=(PopulationSpec(name="h1", shape=(4, 1, 1)),),
        couplings=(CouplingSpec(pre="input", post="h1", kind="conv", kernel=2),),
    )
    bias, weight = torch.rand(4, 1, 1), torch.rand(4, 2, 2, 2)
    torch.save([bias, weight], tmp_path / "model.pt")
    found = import_published(tmp_path / "model.pt", spec).network
    assert torch.equal(found.biases["h1"], bias.flatten())


def test_what_is_standardised_is_written_as_the_dynamics_sees_it(tmp_path: Path) -> None:
    spec = zoo("digits_dense")
    flagged = tuple(c.model_copy(update={"standardise": True}) for c in spec.couplings)
    model = Model(Network(spec.model_copy(update={"couplings": flagged})))
    file = export_published(model, tmp_path / "model.pt")
    found = import_published(file, spec).network
    for name, weight in model.network.effective().items():
        assert torch.equal(found.weights[name], weight)
    with pytest.raises(ModelError, match="'gain/h1->output' has no place"):
        import_published(file, model.network.spec)


# --- what is refused ---------------------------------------------------------------------------

Tensors = list[Any]


def swapped(tensors: Tensors) -> Tensors:
    """The weights in our order: what is skipped before the skip."""
    tensors[13], tensors[14] = tensors[14], tensors[13]
    return tensors


def put(place: int, change: Callable[[Tensor], Any]) -> Callable[[Tensors], Tensors]:
    """`tensors` with one of them changed."""

    def changed(tensors: Tensors) -> Tensors:
        return [change(t) if i == place else t for i, t in enumerate(tensors)]

    return changed


class Energy:
    """What a pickle of classes holds."""

    ran = False

    def __setstate__(self, state: Any) -> None:
        Energy.ran = True

    def __init__(self) -> None:
        self.states = [torch.zeros(2)]


CONTENTS: list[tuple[Callable[[Tensors], Any], str]] = [
    (
        swapped,
        r"tensor 13 (weight/h2->h4): is [6, 6, 3, 3], expected [6, 4, 1, 1]; give the network",
    ),
    (lambda t: t[9:] + t[:9], "tensor 0 (bias/h1): is [4, 3, 3, 3], expected [4]; "),
    (lambda t: t[:-1], "tensor 21 (weight/h8->output): is missing, expected [8, 2, 2, 10]; "),
    (lambda t: [*t, t[0]], "tensor 22: has no place among the 22 tensors"),
    (lambda t: [], "tensor 0 (bias/h1): is missing"),
    (put(21, lambda w: w.permute(3, 0, 1, 2)), "is [10, 8, 2, 2], expected [8, 2, 2, 10]; "),
    (put(21, lambda w: w.reshape(32, 10)), "is [32, 10], expected [8, 2, 2, 10]; "),
    (put(10, lambda w: torch.tensor(1.0)), "tensor 10 (weight/h1->h2): is [], expected"),
    (put(0, lambda b: torch.tensor(1.0)), "tensor 0 (bias/h1): is [], expected [4]"),
    (put(9, lambda w: w * float("nan")), "tensor 9 (weight/input->h1): holds NaN or infinity; sa"),
    (put(9, lambda w: w / 0), "holds NaN or infinity"),
    (put(9, lambda w: w.double() + 1e39), "holds 1e+39, beyond float32"),
    (put(9, lambda w: (9 * w).int()), "is int32, not floating point; save real"),
    (put(9, lambda w: w.to(torch.complex64)), "is complex64, not floating point"),
    (put(9, lambda w: w.to_sparse()), "is a Tensor, no plain tensor; let the code that trained it"),
    (put(9, lambda w: w.to("meta")), "is a Tensor, no plain tensor"),
    (put(9, lambda w: w.tolist()), "is a list, no plain tensor"),
    (put(9, lambda w: None), "is missing"),
    (put(9, lambda w: w[:1, :1, :1, :1].expand(10**6, 10**6, 3, 3)), "is [1000000, 1000000, 3, 3]"),
    (lambda t: t[0], "holds a Tensor, no list of tensors or state dict"),
    (lambda t: {"synapses.0.weight": t[9]}, "'bias/h1' has no place in a file of layout 'laborieu"),
    (
        lambda t: Energy(),
        "is a pickle of classes ('tests.unit.network.test_published_files.Energy'",
    ),
    (
        lambda t: [*t[:-1], Energy()],
        "which only running it could read; let the code that trained it",
    ),
    (lambda t: [np.float64(1)], "is a pickle of classes ('numpy."),
]


@pytest.mark.parametrize(("content", "says"), CONTENTS)
@pytest.mark.parametrize("archive", [True, False])
def test_a_file_of_other_content_is_refused_in_one_line(
    archive: bool, content: Callable[[Tensors], Any], says: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.pt"
    torch.save(content(narrow_file(file)), file, _use_new_zipfile_serialization=archive)
    with pytest.raises(ModelError) as caught:
        import_published(file, narrow())
    text = str(caught.value)
    assert text.startswith(f"{file}: ") or text.startswith("network 'narrow': ")
    assert says in text
    assert "\n" not in text
    assert not Energy.ran


def test_a_file_of_another_network_names_one_that_it_fits(tmp_path: Path) -> None:
    file = export_published(Model(Network(zoo("digits_dense"))), tmp_path / "model.pt")
    for like in (narrow(), small_vgg()):
        with pytest.raises(ModelError, match=r"give the network that it fits .zoo:digits_dense."):
            import_published(file, like)


def test_a_file_that_is_cut_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    narrow_file(file)
    whole = file.read_bytes()
    for length in (0, 1, 4, 100, 1000, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="is no whole file of"):
            import_published(file, narrow())


@pytest.mark.parametrize("archive", [True, False])
def test_a_file_with_bytes_changed_is_read_or_refused(archive: bool, tmp_path: Path) -> None:
    file, draw = tmp_path / "model.pt", random.Random(0)
    torch.save(narrow_file(file), file, _use_new_zipfile_serialization=archive)
    whole = file.read_bytes()
    for _ in range(60):
        spoilt = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            spoilt[draw.randrange(min(len(whole), 3000))] = draw.randrange(256)
        file.write_bytes(spoilt)
        with contextlib.suppress(ModelError):
            import_published(file, narrow())


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", pickle.dumps([1, 2]), pickle.dumps(Energy()), b"PK\x03\x04" + bytes(200)],
)
def test_what_is_no_file_of_torch_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match="tensors alone") as caught:
        import_published(tmp_path / "file", narrow())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    for place, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(ModelError, match=reason):
            import_published(place, narrow())


def test_an_archive_that_swells_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_checks, "FREE", 1 << 20)
    torch.save([torch.zeros(1 << 20)], tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ModelError, match=r"unpacks from 0.00\d+ MB to 4, over 100 times as much"):
        import_published(tmp_path / "bomb.pt", narrow())


@pytest.mark.parametrize("slope", [0.0, -1.0, float("nan"), float("inf")])
def test_a_slope_is_a_finite_number_above_0(slope: float, tmp_path: Path) -> None:
    narrow_file(tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="is no finite number above 0"):
        import_published(tmp_path / "model.pt", narrow(), slope=slope)


# --- what is written ---------------------------------------------------------------------------


def test_a_file_is_replaced_by_force_only_and_what_is_none_never(tmp_path: Path) -> None:
    model, file = Model(Network(zoo("digits_dense"))), tmp_path / "model.pt"
    export_published(model, file)
    before = file.read_bytes()
    with pytest.raises(ModelError, match=r"model.pt: exists; .*--force"):
        export_published(Model(Network(zoo("digits_dense"), 1)), file)
    assert file.read_bytes() == before
    export_published(Model(Network(zoo("digits_dense"), 1)), file, force=True)
    assert file.read_bytes() != before
    file.write_text("dear")
    for force in (False, True):
        with pytest.raises(ModelError, match="other content"):
            export_published(model, file, force=force)
    assert (file.read_text(), os.listdir(tmp_path)) == ("dear", ["model.pt"])


@pytest.mark.parametrize(
    ("name", "layout", "says"),
    [
        ("digits_residual", "laborieux", "'bias/h1' has no place in a file of layout 'laborieux'"),
        (
            "vgg5_softmax",
            "published",
            "'readout/bias' has no place in a file of layout 'published'",
        ),
    ],
)
def test_a_network_that_a_layout_cannot_hold_is_not_written(
    name: str, layout: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says):
        export_published(Model(Network(zoo(name))), tmp_path / "model.pt", layout=layout)
    assert os.listdir(tmp_path) == []


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'published'"):
        export_published(Model(Network(narrow())), tmp_path / "model.pt", layout="publish")


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(RuntimeError("no\nroom")))
    with pytest.raises(ModelError, match=r"cannot be packed in .* .no room.; make room") as caught:
        export_published(Model(Network(narrow())), tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


def test_the_metadata_says_where_a_model_comes_from(tmp_path: Path) -> None:
    narrow_file(tmp_path / "model.pt")
    assert import_published(tmp_path / "model.pt", narrow()).metadata == {
        "imported_from": "model.pt"
    }

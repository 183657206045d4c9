"""Claims about convolutions and pools that other tools wrote: they are linear maps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.errors import SpecError
from targets.nir.backend import BACKEND
from tests.helpers.settled import settled

nir = pytest.importorskip("nir", reason=BACKEND.available().reason)

h5py = pytest.importorskip("h5py")

from targets.nir.importer import import_nir, network_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning")


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 1, 1), ((3, 2), 2, 1)])
def test_pools_are_linear_maps(kernel: Any, stride: int, padding: int) -> None:
    x = np.random.default_rng(2).normal(size=(2, 6, 6)).astype(np.float32)
    mean = torch.nn.functional.avg_pool2d(torch.tensor(x), kernel, stride, padding)
    area = int(np.prod(np.broadcast_to(kernel, 2)))
    sides = {"stride": np.full(2, stride), "padding": np.full(2, padding)}
    for kind, expected in ((nir.AvgPool2d, mean), (nir.SumPool2d, area * mean)):
        size = expected.numel()
        net = nir.NIRGraph(
            {
                "input": nir.Input(np.array(x.shape)),
                "pool": kind(np.broadcast_to(kernel, 2).copy(), **sides),
                "flat": nir.Flatten(None, 0, -1),
                "v": nir.LI(np.ones(size), np.ones(size), np.zeros(size)),
                "output": nir.Output(np.array([size])),
            },
            [("input", "pool"), ("pool", "flat"), ("flat", "v"), ("v", "output")],
        )
        np.testing.assert_allclose(settled(network_of(net), x), expected.flatten(), atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(2, 3, 2, 2), ((2, 1), (0, 1), (1, 2), 1), (1, "same", 2, 1)],
)
def test_convolutions_of_all_kinds_are_linear_maps(
    stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    how = stride, padding, dilation, groups
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 6, 6)).astype(np.float32)
    kernel, bias = rng.normal(size=(4, 2 // groups, 3, 3)), rng.normal(size=4)
    layer = torch.nn.functional.conv2d
    expected = layer(torch.tensor(x[None]).double(), *map(torch.tensor, (kernel, bias)), *how)
    net = convolved(nir.Conv2d(None, kernel, *how, bias), expected.numel())
    np.testing.assert_allclose(settled(network_of(net), x), expected.flatten(), atol=1e-5)


def convolved(conv: Any, size: int) -> Any:
    """Images (2, 6, 6), `conv`, and as many integrators as `size`."""
    nodes = {
        "input": nir.Input(np.array([2, 6, 6])),
        "conv": conv,
        "flat": nir.Flatten(None, 0, -1),
        "v": nir.LI(np.ones(size), np.ones(size), np.zeros(size)),
        "output": nir.Output(np.array([size])),
    }
    return nir.NIRGraph(nodes, list(pairwise(nodes)))


@st.composite
def maps(draw: st.DrawFn) -> tuple[Any, tuple[int, ...], Callable[[torch.Tensor], torch.Tensor]]:
    """A convolution or pool of any hyperparameters, the shape that it reads, and torch's own."""
    number = st.integers(1, 3)
    sides = draw(st.integers(1, 2))
    several = st.tuples(*[number] * sides)
    shape = (2, *draw(st.tuples(*[st.integers(7, 9)] * sides)))
    kernel, stride = draw(several), draw(several)
    if sides == 2 and draw(st.booleans()):
        padding = tuple(min(1, k // 2) for k in kernel)
        kind = draw(st.sampled_from([nir.AvgPool2d, nir.SumPool2d]))
        scale = int(np.prod(kernel)) if kind is nir.SumPool2d else 1
        node = kind(*(np.array(n) for n in (kernel, stride, padding)))
        pool = torch.nn.functional.avg_pool2d
        return node, shape, lambda x: scale * pool(x, kernel, stride, padding)
    same = draw(st.booleans())
    stride, padding = ((1,) * sides, "same") if same else (stride, draw(several))
    dilation, groups = draw(several), draw(st.sampled_from([1, 2]))
    seed = draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(4, 2 // groups, *kernel)), rng.normal(size=4)
    how = stride, padding, dilation, groups
    if sides == 1:
        how = tuple(n[0] if isinstance(n, tuple) else n for n in how)
    kind, layer = ((nir.Conv1d, "conv1d"), (nir.Conv2d, "conv2d"))[sides - 1]
    of = getattr(torch.nn.functional, layer)
    node = kind(shape[1] if sides == 1 else shape[1:], weight, *how, bias)
    return node, shape, lambda x: of(x, torch.tensor(weight), torch.tensor(bias), *how)


@settings(max_examples=20, deadline=None)
@given(found=maps(), nested=st.booleans())
def test_a_convolution_or_pool_is_torchs_own_also_from_a_file_and_in_a_nested_graph(
    found: Any, nested: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node, shape, of = found
    x = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    image = of(torch.tensor(x[None]).double())
    expected, flat = image.flatten(), nir.Flatten({"input": np.array(image.shape[1:])}, 0, -1)
    nodes = {"input": nir.Input(np.array(shape)), "map": node, "flat": flat}
    edges = [("input", "map"), ("map", "flat")]
    if nested:
        inner = {"in": nodes["input"], **nodes, "out": nir.Output(np.array([len(expected)]))}
        del inner["input"]
        chain = [("in", "map"), ("map", "flat"), ("flat", "out")]
        part = nir.NIRGraph(inner, chain, type_check=False)
        nodes, edges = {"input": nodes["input"], "flat": part}, [("input", "flat")]
    size = len(expected)
    nodes |= {"v": nir.LI(np.ones(size), np.ones(size), np.zeros(size))}
    nodes |= {"output": nir.Output(np.array([size]))}
    edges += [("flat", "v"), ("v", "output")]
    path = tmp_path_factory.mktemp("maps") / "a.nir"
    nir.write(path, nir.NIRGraph(nodes, edges, type_check=False))
    np.testing.assert_allclose(settled(import_nir(path).network, x), expected, atol=1e-4)


def test_a_convolution_that_does_not_fit_is_told() -> None:
    """NIR takes the size of the input for that of the output whatever the stride."""
    conv = nir.Conv2d(None, np.ones((4, 2, 3, 3)), 2, "same", 1, 1, np.zeros(4))
    with pytest.raises(SpecError, match="node 'conv': this Conv2d is not supported") as caught:
        network_of(convolved(conv, 4 * 36))
    assert "\n" not in str(caught.value)

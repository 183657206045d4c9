"""Which arrays a graph needs, how large they are, and how many tiles and cells that makes."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from compilers.hardware.resources import CROSSBAR
from compilers.ir import graph as ir
from compilers.ir.operators import adjoint
from ep_neuro.errors import GraphError
from targets.crossbar.arrays.options import Options

TILES, CELLS = CROSSBAR
"""Notes that `map_to_tiles` leaves in the graph's provenance."""


@dataclass(frozen=True)
class ArrayMapping:
    """An array of a graph: the weight of one coupling, with its geometry."""

    weight: str
    """Id of the weight."""
    operator: ir.Dense | ir.Conv
    """Of the forward read."""
    pre: ir.Shape
    post: ir.Shape
    """Shapes that the forward read leads from and to."""
    kernel: ir.Shape
    """Shape of the weight."""
    conv: str = "shared"
    """How a convolution lies on it; see `Options`."""

    @property
    def lines(self) -> tuple[int, int]:
        """Output and input lines of the matrix."""
        if isinstance(self.operator, ir.Conv) and self.conv == "shared":
            return self.kernel[0], math.prod(self.kernel[1:])
        return math.prod(self.post), math.prod(self.pre)

    @property
    def reads(self) -> int:
        """Reads that one step of one direction takes, one after the other."""
        shared = isinstance(self.operator, ir.Conv) and self.conv == "shared"
        return math.prod(self.post[1:]) if shared else 1

    def grid(self, tile: int) -> tuple[int, int]:
        """Tiles above and beside each other, of at most `tile` lines a side."""
        outputs, inputs = self.lines
        return -(-outputs // tile), -(-inputs // tile)

    @property
    def cells(self) -> int:
        """Cross-points, each a pair of devices."""
        return math.prod(self.lines)


def is_forward(projection: ir.Projection) -> bool:
    """Whether it is read from the front; the others are transposed reads."""
    return isinstance(projection.operator, ir.Dense | ir.Conv)


def digital_projections(graph: ir.Graph, options: Options) -> list[ir.Projection]:
    """The projections of the input that are computed before the converters, by no array."""
    if graph.plasticity or options.digital == "none":
        return []
    with _reading(graph, ir.WHITENED):
        whitened = set(json.loads(graph.provenance.get(ir.WHITENED, "[]")))
    sources = {p.name for p in graph.sources}
    return [
        p
        for p in graph.projections
        if p.pre in sources and (options.digital == "input" or p.weight in whitened)
    ]


def array_mappings(graph: ir.Graph, options: Options) -> dict[ArrayMapping, list[ir.Projection]]:
    """Every array of `graph` with the projections that read it, in order of appearance."""
    found: dict[ArrayMapping, list[ir.Projection]] = {}
    digital = digital_projections(graph, options)
    for p in graph.projections:
        if p in digital:
            continue
        pre, post = (graph.population(name).shape for name in (p.pre, p.post))
        operator = p.operator
        if isinstance(operator, ir.DenseTranspose | ir.ConvTranspose):
            # A transposed read of the array of the coupling's other direction.
            pre, post, operator = post, pre, adjoint(operator)
        if not isinstance(operator, ir.Dense | ir.Conv):
            problem = "is split over the cores of another machine"
            raise GraphError(f"'{p.name}'", problem, "compile it for the crossbar")
        lies = "shared" if isinstance(operator, ir.Dense) else options.conv
        kernel = tuple(graph.arrays[p.weight].shape)
        mapping = ArrayMapping(p.weight, operator, pre, post, kernel, lies)
        found.setdefault(mapping, []).append(p)
    return found


def map_to_tiles(graph: ir.Graph, options: Options) -> ir.Graph:
    """Note in the provenance how many tiles and cells `graph` takes, and by which options."""
    arrays = array_mappings(graph, options)
    notes = {
        TILES: str(sum(math.prod(array.grid(options.tile)) for array in arrays)),
        CELLS: str(sum(array.cells for array in arrays)),
        "crossbar.tile": str(options.tile),
        "crossbar.conv": options.conv,
        "crossbar.digital": options.digital,
    }
    return replace(graph, provenance={**graph.provenance, **notes})


def noted(graph: ir.Graph) -> Options:
    """The options by which `graph` was mapped; the defaults where it was not."""
    notes = {f"crossbar.{key}": key for key in ("tile", "conv", "digital")}
    found = {key: graph.provenance[note] for note, key in notes.items() if note in graph.provenance}
    with _reading(graph, "crossbar.*"):
        return Options.model_validate_strings(found)


def input_mean(graph: ir.Graph) -> np.ndarray:
    """The mean by which the network normalises its raw input, of that shape; 0 if it has none."""
    (source,) = graph.sources
    with _reading(graph, ir.INPUT_MEAN):
        mean = np.asarray(json.loads(graph.provenance.get(ir.INPUT_MEAN, "0.0")), np.float64)
        if not np.isfinite(mean).all():
            raise ValueError(mean)
        return np.broadcast_to(mean.reshape(-1, *[1] * (len(source.shape) - 1)), source.shape)


@contextlib.contextmanager
def _reading(graph: ir.Graph, note: str) -> Iterator[None]:
    """Say in one line that `note`, which came with a file, is damaged."""
    try:
        yield
    except (TypeError, ValueError, RecursionError):
        problem = f"its note '{note}' is damaged"
        raise GraphError(f"graph '{graph.name}'", problem, "compile the model again") from None


def tile_list(graph: ir.Graph) -> str:
    """A line an array: lines, tiles, cells, reads a step, and what reads it in which direction."""
    options = noted(graph)
    lines = []
    for array, projections in array_mappings(graph, options).items():
        outputs, inputs = array.lines
        rows, columns = array.grid(options.tile)
        reads = ", ".join(f"{p.name} {'W' if is_forward(p) else 'W^T'}" for p in projections)
        lines.append(
            f"{array.weight}: {outputs} x {inputs} lines, {rows} x {columns} tiles, "
            f"{array.cells} cells, {array.reads} reads a step: {reads}"
        )
    return "\n".join(lines) + "\n"


def blocks(lines: int, most: int) -> list[slice]:
    """`lines` in as few even blocks of at most `most` as there can be."""
    count = -(-lines // most)
    edges = [lines * n // count for n in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]

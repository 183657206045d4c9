"""Which projections keep their kernel in NIR, and how large a matrix the others become."""

from __future__ import annotations

from compilers.ir.graph import Conv, Graph, Projection, Source


def stays_convolution(graph: Graph, p: Projection) -> bool:
    """Whether `p` becomes a ``Conv2d`` node; all others become matrices.

    NIR can flatten but not fold back. What feedback, a matrix, reaches is one-dimensional, so only
    the input keeps its plane. Its type inference knows square kernels only.
    """
    pre, kernel = graph.population(p.pre), graph.arrays[p.weight].shape[2:]
    return (
        isinstance(p.operator, Conv) and isinstance(pre.dynamics, Source) and len(set(kernel)) == 1
    )


def matrix_entries(graph: Graph, p: Projection) -> int:
    """Entries of the matrix that `p` becomes; 0 if it stays a convolution."""
    if stays_convolution(graph, p):
        return 0
    return graph.population(p.pre).size * graph.population(p.post).size

"""A graph without graphs in it, and the shapes of what flows between its nodes, as torch has them.

NIR 1.0.8 takes all kernels for square, and forgets groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import nir
import numpy as np
import torch

from ep_neuro.errors import SpecError
from targets.nir.linear_nodes import CONVOLVED, image_map

Edges = list[tuple[str, str]]


def inlined(net: nir.NIRGraph) -> nir.NIRGraph:
    """`net` with the nodes of each graph in it, ``outer.inner``, in place of that graph.

    Raises
    ------
    SpecError
        If an inner graph has more than one input or output, which edges do not tell apart.
    """
    nodes, edges = dict(net.nodes), list(net.edges)
    for name, graph in net.nodes.items():
        if not isinstance(graph, nir.NIRGraph):
            continue
        inner = inlined(graph)
        ends = {kind: _ends(name, inner, kind) for kind in (nir.Input, nir.Output)}
        del nodes[name]
        for key, node in inner.nodes.items():
            if f"{name}.{key}" in nodes:
                problem = f"the node '{key}' of the graph in it has the name of another"
                raise SpecError(f"node '{name}'", problem, f"rename the node '{name}.{key}'")
            nodes[f"{name}.{key}"] = node
        first, last = ends[nir.Input], ends[nir.Output]
        edges = [(last if a == name else a, first if b == name else b) for a, b in edges]
        edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner.edges]
        for end in (first, last):
            edges = _without(end, edges)
            del nodes[end]
    return nir.NIRGraph(nodes, edges, net.metadata, type_check=False)


def _ends(name: str, inner: nir.NIRGraph, kind: type[nir.NIRNode]) -> str:
    found = [key for key, node in inner.nodes.items() if isinstance(node, kind)]
    if len(found) != 1:
        problem = f"the graph in it has {len(found)} nodes of type {kind.__name__}, not 1"
        raise SpecError(f"node '{name}'", problem, "write its nodes into the outer graph")
    return f"{name}.{found[0]}"


def _without(node: str, edges: Edges) -> Edges:
    """`edges` that lead past `node`, which hands on what it gets."""
    before = [a for a, b in edges if b == node]
    after = [b for a, b in edges if a == node]
    return [e for e in edges if node not in e] + [(a, b) for a in before for b in after]


def shaped(net: nir.NIRGraph) -> nir.NIRGraph:
    """`net`, inlined, with the shapes that its nodes take and give, from the input on.

    Raises
    ------
    SpecError
        If a node cannot take what leads into it.
    """
    net = inlined(net)
    for name, node in net.nodes.items():
        if isinstance(node, (*CONVOLVED, nir.Flatten)):
            net.nodes[name] = node = copy(node)
            node.input_type, node.output_type = {"input": None}, {"output": None}
    _end(net, {post for _, post in net.edges}, nir.Input)
    waiting = [name for name, node in net.nodes.items() if _shape(node.output_type) is not None]
    after: dict[str, list[str]] = {}
    for pre, post in net.edges:
        after.setdefault(pre, []).append(post)
    while waiting:
        pre = waiting.pop()
        for post in after.get(pre, ()):
            node, given = net.nodes[post], _shape(net.nodes[pre].output_type)
            assert given is not None
            wanted = _shape(node.input_type)
            if wanted is None:
                node.input_type = {"input": np.array(given)}
                node.output_type = {"output": np.array(_shape_after(node, post, given))}
                waiting.append(post)
            elif wanted != given:
                problem = f"it takes the shape {wanted}, and '{pre}' gives {given}"
                raise SpecError(f"node '{post}'", problem, "let their shapes agree")
    _end(net, {pre for pre, _ in net.edges}, nir.Output)
    for name, node in net.nodes.items():
        for shape in (_shape(node.input_type), _shape(node.output_type)):
            if shape is not None and min(shape, default=1) < 1:
                problem = f"the shape {shape} holds no values"
                raise SpecError(f"node '{name}'", problem, "give it sizes of 1 or more")
    return net


def _end(net: nir.NIRGraph, joined: set[str], kind: type[nir.NIRNode]) -> None:
    """Put a node of `kind` where `net` starts or ends without one, at what is not `joined`."""
    for name in [name for name in net.nodes if name not in joined]:
        node = net.nodes[name]
        if isinstance(node, nir.Input | nir.Output):
            continue
        shape = _shape(node.input_type if kind is nir.Input else node.output_type)
        if shape is not None:
            end = f"{kind.__name__.lower()}_{name}"
            net.nodes[end] = kind(np.array(shape))
            net.edges.append((end, name) if kind is nir.Input else (name, end))


def _shape(types: Mapping[str, np.ndarray] | None) -> tuple[int, ...] | None:
    """The one shape in `types`; None if it is not known."""
    (shape,) = types.values() if types else (None,)
    return None if shape is None else tuple(int(n) for n in np.ravel(shape))


def _shape_after(node: nir.NIRNode, name: str, given: tuple[int, ...]) -> tuple[int, ...]:
    """What `node` makes of the shape `given`."""
    if isinstance(node, nir.Flatten):
        start, end = node.start_dim, node.end_dim % len(given)
        return (*given[:start], int(np.prod(given[start : end + 1])), *given[end + 1 :])
    if not isinstance(node, CONVOLVED):
        return given
    try:
        image = torch.zeros(1, *given, dtype=torch.float64, device="meta")
        return tuple(image_map(node, given, "meta")(image).shape[1:])
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        problem = f"this {type(node).__name__} is not supported of an input {given} ({reason})"
        raise SpecError(f"node '{name}'", problem, "change it, or write it as Affine") from None

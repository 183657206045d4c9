"""Specify a small residual network by hand and compile it, without any training.

    python examples/02_compile.py [DIRECTORY]

A spec lists populations and symmetric couplings, which together are the energy. The compiler turns
each coupling into a forward and a feedback projection of one tied weight, chooses a stable leak,
brings every box to [0, 1], and encodes and quantises. Writes spec and program to DIRECTORY
(runs/examples by default) and prints what each stage does to one population and its projections.
"""

from __future__ import annotations

import sys
from pathlib import Path

import compilers
import ep_neuro as ep
from compilers.hardware.resources import resources

SPEC = """\
name: by_hand
input: {shape: [1, 8, 8]}
populations:
- {name: a, shape: [4, 8, 8]}
- {name: b, shape: [8, 4, 4], box: [0, 2]}
- {name: output, shape: [10], box: [-0.5, 1.5]}
couplings:
- {pre: input, post: a, kind: conv, kernel: 3, padding: 1}
- {pre: a, post: b, kind: conv, kernel: 3, stride: 2, padding: 1, gain: 0.5}
- {pre: input, post: b, kind: conv, kernel: 1, stride: 2}   # the skip
- {pre: b, post: output, gain: 0.5}
"""
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")


def show(stage: str, graph: compilers.Graph) -> None:
    """Print the lines of population 'b' and of what joins it to 'output'."""
    print(f"after {stage}")
    for line in compilers.print_graph(graph, arrays=False).splitlines():
        if '("b"' in line or '("output", "b"' in line:
            print(f"    {line}")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "by_hand.yaml").write_text(SPEC)
    network = ep.Network(ep.NetworkSpec.from_yaml(OUT / "by_hand.yaml"), 0)  # seed of the weights
    program = compilers.compile(network, target="reference", code="spike", bits=8, observer=show)
    compilers.save_program(program, OUT / "by_hand.program")
    print(f"takes {resources(program.graph)}")
    print(f"program: {OUT / 'by_hand.program'}")


if __name__ == "__main__":
    main()

"""Neurons whose traces Lava's own learning engine takes; Lava's environment imports this, too."""

from __future__ import annotations

from compilers.ir.graph import FixedPoint, Graded, Population, Readout


def neurons(offset: float, frac: int = 8) -> Population:
    """Graded neurons whose real state is `offset` + ``2 z``."""
    return Population(
        "p",
        (4,),
        Graded(),
        (0.0, 1.0),
        readout=Readout(offset, 2.0),
        state=FixedPoint(24, 20),
        message=FixedPoint(frac + 4, frac),
    )

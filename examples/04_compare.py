"""Compare rate, graded, sigma-delta and spikes on one trained network, and write a page about it.

    python examples/04_compare.py [DIRECTORY]

Every encoding runs at three numbers of steps; the front holds what no other run beats in accuracy
and operations both. The reference target runs everywhere; the same choices with `lava` in place of
`reference` run the Lava process graph. Writes DIRECTORY/report.html (runs/examples by default).
"""

from __future__ import annotations

import sys
from pathlib import Path

import ep_neuro as ep
from ep_neuro.data import datasets
from targets import Choice, Compared, Sweep, compare
from targets.experiments.comparison.report_page import comparison_page

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
CHOICES = ("reference:graded", "reference:sigma-delta", "reference:spike:8")
SWEEP = Sweep.parse(["steps=8,16,64"])


def show(one: Compared) -> None:
    """Print a row as it comes."""
    row = one.row
    bits = "float" if row.bits is None else f"{row.bits} bit"
    sent = "" if row.events is None else f"{row.steps:4} steps {row.events:8.0f} events"
    print(f"{row.target:>10} {row.code:<12}{bits:>6} {row.accuracy:8.1%} {sent}")


def main() -> None:
    model = ep.load_model("hub:digits_resnet")
    test = datasets.load("digits").test.head(60)
    rows = compare(
        model.network,
        test,
        [Choice.parse(text) for text in CHOICES],
        schedule=ep.Schedule(sweeps=300),
        sweep=SWEEP,
        layerwise=True,
        on_row=show,
    )
    print("on the front:")
    for one in rows:
        if one.row.pareto:
            show(one)
    command = ["python examples/04_compare.py"]
    about = "digits, test split"
    page = comparison_page(model, test, about, rows, command, OUT, sweeps=SWEEP.axes)
    print(f"report: {page}")


if __name__ == "__main__":
    main()

"""Tell a story: the world or the chip changes, the network learns on, on Lava; write its page.

    python examples/stories.py damaged hub:digits_resnet --out runs/damaged
    python examples/stories.py rotated hub:mnist_residual --data mnist --code spike --samples 3000
    python examples/stories.py page runs/damaged runs/damaged_spike --out damaged.html

Writes story.json, what happened, story.html, drawn from it, and the learnt program, of which
`ep-neuro check` tells what limits it; `page` draws several records of one story. Without Lava the
reference learns, to the same weights. `--change` says how much changes: stuck=0.2 of the synapses
and dead=0.1 of the neurons, days=30 of drift, label=3 the new class.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import ep_neuro as ep
from ep_neuro.cli.ending import exit_code
from ep_neuro.data import datasets
from ep_neuro.errors import ConfigError
from ep_neuro.report.story import read_record, write_story
from targets import Plan, StorySetting, or_reference, tell_story
from targets.experiments.onchip import stories
from targets.experiments.onchip.changes import STORIES

PAGE = "page"


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("story", choices=[*STORIES, PAGE])
    add("names", nargs="+", metavar="MODEL", help="a model; of page, folders that runs wrote")
    add("--data", help="that of the model by default")
    add("--data-root", type=Path, metavar="DIR")
    add("--code", default="graded", choices=["graded", "sigma-delta", "spike"])
    add("--bits", type=int, default=8, metavar="B", help="of a weight; 0 for floating point")
    add("--steps", type=int, metavar="T", help="of the free phase; half of it under each nudge")
    add("--samples", type=int, default=3000, metavar="N", help="to learn")
    add("--images", type=int, metavar="N", help="different ones among them; all by default")
    add("--test", type=int, metavar="N", help="test the first N images only")
    add("--held-out", type=int, default=200, metavar="N", help="validation images a point")
    add("--batch", type=int, default=10, metavar="N")
    add("--points", type=int, default=10, metavar="N", help="of the curve")
    add(
        "--rate",
        type=float,
        metavar="R",
        help="in units; by default 4 over the squared length of what neurons hear",
    )
    add("--margin", type=float, metavar="M", help="learn only what is not right by as much")
    add("--rule", help="difference of graded messages, else that of the code")
    add("--change", action="append", default=[], metavar="KEY=VALUE")
    add("--target", default="lava")
    add("--seed", type=int, default=0)
    add("--out", type=Path, metavar="DIR", help="runs/stories/STORY by default")
    add("--resume", action="store_true")
    add("--force", action="store_true")
    args = parser.parse_args()
    if args.story != PAGE and len(args.names) > 1:
        parser.error(f"{len(args.names)} models ({', '.join(args.names)}): name one")
    return args


def number(text: str) -> tuple[str, float]:
    """Name and value of a --change."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        problem = f"'{value}' is no number"
        raise ConfigError(f"--change {text}", problem, "write stuck=0.1, for instance") from None


def show(done: int, total: int, accuracies: str) -> None:
    print(f"\r{done:6d} of {total}: {accuracies}", end="", file=sys.stderr, flush=True)


def main(args: argparse.Namespace) -> None:
    out = args.out or Path("runs/stories") / args.story
    if args.story == PAGE:
        records = [read_record(Path(name) / stories.RECORD) for name in args.names]
        print(write_story(records, out if out.suffix == ".html" else out / stories.PAGE))
        return
    (name,) = args.names
    model = ep.open_model(name)
    data = args.data or model.metadata.get("data") or "digits"
    told = tell_story(
        args.story,
        model,
        datasets.load_fitted(data, args.data_root, model.network.spec),
        Plan(
            args.samples,
            batch=args.batch,
            points=args.points,
            seed=args.seed,
            margin=args.margin,
        ),
        StorySetting(
            code=args.code,
            bits=args.bits or None,
            steps=args.steps,
            rule=args.rule,
            rate=args.rate,
            images=args.images,
            test=args.test,
            held_out=args.held_out,
        ),
        target=or_reference(args.target, print),
        change=dict(map(number, args.change)),
        seed=args.seed,
        out=out,
        resume=args.resume,
        force=args.force,
        monitor=show,
    )
    stories.write(told, out, f"python examples/stories.py {shlex.join(sys.argv[1:])}")
    print("\n".join(["", *told.recovery.in_words(), f"  page: {out / stories.PAGE}"]))


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(asked()), debug=False))

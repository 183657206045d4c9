"""Options that several commands share, and the data that they name."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ep_neuro.cli.console import log
from ep_neuro.errors import ConfigError, DataError

if TYPE_CHECKING:
    from compilers.ir.graph import Graph
    from ep_neuro.data.datasets import Dataset, Split, SplitName
    from ep_neuro.network.checkpoint import Model


def opt(metavar: str, help: str, *names: str, **limits: Any) -> Any:
    """An option of a command, called as its parameter is or by `names`."""
    return typer.Option(*names, metavar=metavar, help=help, **limits)


Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
Seed = Annotated[int, typer.Option(help="Seed of fresh weights (spec or zoo).")]
Data = Annotated[
    str | None,
    opt(
        "DATA[:SPLIT]",
        "digits, mnist, fashion-mnist, cifar10, cifar100, folder:PATH, npz:PATH, events-count:PATH "
        "or events-peak:PATH (recordings summed into frames), with :train, :val or :test; the test "
        "split of what the model was trained on by default, else digits.",
    ),
]
Root = Annotated[Path | None, opt("DIR", "Where data files lie.")]
Limit = Annotated[int | None, opt("N", "Use the first N samples only.", min=1)]
Steps = Annotated[
    int | None,
    opt(
        "T",
        "Length of the free phase in steps; of a program its own, of a model as it was fine-tuned, "
        "else 64.",
        min=1,
        max=1_000_000,
    ),
]
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="What `train` wrote, hub:NAME (`ep-neuro models`), a spec in YAML, zoo:NAME (these "
        "two: fresh weights), or a NIR file of another tool.",
    ),
]
Target = Annotated[str, opt("T", "Target (`ep-neuro targets`), or the YAML of a chip.")]
Code = Annotated[
    str | None,
    opt("graded|sigma-delta|spike", "What neurons send; as the model was fine-tuned, else graded."),
]
Bits = Annotated[
    int | None, opt("B", "Bits of a weight; as the model was fine-tuned, else floating point.")
]
NudgedSteps = Annotated[
    int | None,
    opt(
        "T",
        "Length of a nudged phase in steps; half of the free one by default.",
        min=1,
        max=1_000_000,
    ),
]
Beta = Annotated[
    float | None,
    opt("B", "Nudging factor of the phases that teach; 0.2 by default, 0.5 of spikes that learn."),
]
MessageFrac = Annotated[
    int | None,
    opt(
        "F",
        "Fractional bits of a graded message (with --bits), 8 by default, and as many more in a "
        "program that learns as the response to a nudge grows fainter.",
    ),
]
StateFrac = Annotated[
    int | None,
    opt(
        "F",
        "Fractional bits of a 24-bit membrane (with --bits), 16 by default; with 20 most "
        "projections are stock processes of Lava.",
    ),
]
Precision = Annotated[
    float | None,
    opt(
        "E",
        "Error of an output, in heights of its box, that the last thresholds of sigma-delta "
        "messages may cause: larger sends fewer. 0.02 by default where a softmax is taken of the "
        "output, 0.004 elsewhere.",
        min=1e-6,
    ),
]
Leak = Annotated[
    float | None, opt("A", "Largest leak, 0.8 (spikes: 0.5) by default; stability may need less.")
]
Sweep = Annotated[
    list[str] | None,
    opt("AXIS=A,B,..", "Run everything at each of steps=8,16,32 or bits=8,6,4,float; one of each."),
]
Layerwise = Annotated[
    bool,
    typer.Option("--layerwise", help="Also how far each population is from the float states."),
]
Option = Annotated[
    list[str] | None,
    opt("KEY=VALUE", "Option of the target, lowering=faithful for instance; repeatable."),
]
Jobs = Annotated[
    int | None,
    opt(
        "N",
        "Run so many jobs at a time, above 1 each in a process and on a thread of its own; 1 by "
        "default.",
    ),
]
Dask = Annotated[str | None, opt("ADDRESS", "Run the jobs on the Dask cluster of this scheduler.")]
Keep = Annotated[
    Path | None,
    opt("DIR", "Keep the result of each job there; what is there already does not run again."),
]
PrintAfter = Annotated[
    str | None, opt("PASS", "Print the graph after a pass, or 'all', on stderr.")
]


def precision_of(codes: Collection[str], precision: float) -> dict[str, float]:
    """``parameters`` of `compile_network`; `ConfigError` if none of `codes` is sigma-delta."""
    if "sigma-delta" not in codes:
        problem = f"{', '.join(sorted(set(codes)))} messages have no threshold"
        raise ConfigError(f"--precision {precision:g}", problem, "take sigma-delta, or drop it")
    return {"precision": precision}


def data_name(asked: str | None, notes: Mapping[str, Any]) -> str:
    """The data to use: what was asked for, else what the model was trained on, else digits."""
    if asked is None and "data" not in notes and "data.sha256" in notes:
        raise DataError("data", "the model was trained on data in memory", "name some with --data")
    if asked is None and "data" in notes:
        _check_noted(notes["data"])
    return asked or notes.get("data") or "digits"


def _check_noted(name: str) -> None:
    """Refuse a place on disk that only the notes of a model name, and that is not here."""
    from ep_neuro.data import datasets

    kind, _, path = datasets.parse(name)[0].partition(":")
    if kind in datasets.LOCAL and not Path(path).exists():
        problem = "the model was trained on them, and they are not here"
        place = "FILE" if kind == "npz" else "DIR"
        raise DataError(f"data '{name}'", problem, f"give --data {kind}:{place}")


def noted_data(notes: Mapping[str, Any]) -> dict[str, str]:
    """What a program is to know of the data of its model: digits, if nothing was noted."""
    found = {k: str(notes[k]) for k in ("data", "data.resize", "data.sha256") if k in notes}
    return found or {"data": "digits"}


def samples(data: str | None, root: Path | None, limit: int | None, of: "Model | Graph") -> "Split":
    """The split that is asked for, in the input shape of a model or of a program's graph."""
    dataset, part = dataset_of(data, root, of)
    return dataset.split(part).head(limit)


def dataset_of(
    data: str | None, root: Path | None, of: "Model | Graph"
) -> "tuple[Dataset, SplitName]":
    """All splits of what `data_name` says for `of`, and the one that is asked for: ``test``.

    Logs it if they are not what the notes of `of` say of the data of this name.
    """
    from ep_neuro.data import datasets
    from ep_neuro.network.checkpoint import Model

    notes: Mapping[str, Any] = of.metadata if isinstance(of, Model) else of.provenance
    name, part = datasets.parse(data_name(data, notes))
    resize = datasets.noted_resize(notes)
    if isinstance(of, Model):
        dataset = datasets.load_fitted(name, root, of.network.spec, resize)
    else:
        shape = datasets.image_shape(of.sources[0].shape)
        dataset = datasets.load(name, root, shape=shape, resize=resize)
    trained = {"data", "data.sha256"} <= notes.keys() and datasets.parse(notes["data"])[0]
    if trained == dataset.name and notes["data.sha256"] != dataset.digest:
        log(f"warning: data '{dataset.name}' are not what they were when the model was trained")
    return dataset, part or "test"

"""The command line: thin commands over the library; the only file that looks up, and lazily."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from ep_neuro._shadow import check_packages
from ep_neuro.console import emit, log, plain_warnings, progress, table
from ep_neuro.errors import CheckFailed, ConfigError, EPNeuroError

if TYPE_CHECKING:
    from ep_neuro.data import Dataset, Split
    from ep_neuro.spec import NetworkSpec

app = typer.Typer(
    name="ep-neuro",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Energy-based networks, from equilibrium propagation to neuromorphic hardware.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Seed = Annotated[int, typer.Option(help="Seed of fresh weights.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA[:SPLIT]",
        help="digits, mnist, fashion-mnist, cifar10, cifar100, folder:PATH or npz:PATH; "
        ":train, :val or :test picks a split (test by default).",
    ),
]
Root = Annotated[Path | None, typer.Option("--data-root", help="Where data files lie.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N samples only.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the free phase.")]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model directory, spec in YAML, or zoo:NAME.")
]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every command."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Directory of the results.")] = Path(
        "runs/demo"
    ),
    json_: Json = False,
) -> None:
    """Train on digits, compile, run on Lava, compare, and write report.html."""
    from targets.demo import run_demo

    done = run_demo(out, log=log, progress=progress)
    emit(done, json_, _rows_table(done["rows"]))
    log(f"{done['seconds']:.0f} s; open {done['report']}")


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or zoo:NAME.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="Override a key.")
    ] = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT/last.")] = False,
    data_root: Root = None,
    json_: Json = False,
) -> None:
    """Train a network by equilibrium propagation, or its twin by backprop."""
    from ep_neuro.config import read_config
    from ep_neuro.training import train as run

    overrides = [*(set_ or []), *([f"data_root={data_root}"] if data_root else [])]
    chosen = read_config(config, overrides)
    place = out or Path("runs") / f"{chosen.spec().name}-{chosen.seed}"
    with progress("training") as advance:

        def monitor(done: int, total: int, latest: dict[str, float]) -> None:
            advance(done, total, _health(latest))

        result = run(chosen, place, resume=resume, monitor=monitor)
    fields = {
        "model": str(place / "best"),
        "test_accuracy": result.test.accuracy,
        "val_accuracy": result.model.metadata["val_accuracy"],
        "epochs": len(result.history),
        "images_per_second": result.images_per_second,
    }
    emit(fields, json_, "\n".join(f"{k}: {v}" for k, v in fields.items()))


@app.command()
def evaluate(
    model: ModelName,
    data: Data = "digits",
    limit: Limit = None,
    data_root: Root = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Settle a network freely and report accuracy and residual."""
    from ep_neuro.checkpoint import open_model
    from ep_neuro.settle import Schedule
    from ep_neuro.training import evaluate as run

    opened = open_model(model, seed)
    split = _samples(data, data_root, limit, opened.network.spec)
    feedforward = opened.metadata.get("estimator") == "backprop"
    found = run(opened.network, split, Schedule(sweeps=300), feedforward=feedforward)
    if found.unsettled:
        log(
            f"warning: {found.unsettled:.1%} of the samples did not settle "
            f"(largest residual {found.residual:.2g})"
        )
    fields = {
        "accuracy": found.accuracy,
        "residual": found.residual,
        "sweeps": found.sweeps,
        "unsettled": found.unsettled,
        "samples": len(split),
    }
    emit(fields, json_, "\n".join(f"{k}: {v:.6g}" for k, v in fields.items()))


@app.command()
def check(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL_OR_CONFIG", help="Model, spec, zoo:NAME or a config."),
    ],
    batch: Annotated[int, typer.Option(min=1, help="Samples.")] = 2,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Compare the EP gradient with implicit differentiation; check that the energy falls."""
    import torch

    from ep_neuro.costs import one_hot
    from ep_neuro.verify import check_network

    network = _network_of(model, seed)
    spec = network.spec
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((batch, *spec.input.shape), generator=generator)
    labels = torch.randint(spec.classes, (batch,), generator=generator)
    found = check_network(network, x, one_hot(labels, spec.shapes[spec.output], torch.float64))
    fields = {k: v for k, v in vars(found).items()} | {"holds": found.holds}
    emit(fields, json_, "\n".join(f"{k}: {v}" for k, v in fields.items()))
    if not found.holds:
        raise CheckFailed(
            f"network '{spec.name}'",
            f"{found.message}; gradient cosine {found.gradient_cosine:.6f} (limit 0.9999), "
            f"{found.energy_rises} energy rises (limit 0), curvature {found.curvature:.2g}",
            "scale the weights down until the network settles",
        )


@app.command()
def compile(  # noqa: A001 - the contract's name
    model: ModelName,
    target: Annotated[str, typer.Option(help="Name of a target; see `ep-neuro targets`.")],
    code: Annotated[
        str, typer.Option(metavar="graded|sigma-delta|spike", help="Encoding.")
    ] = "graded",
    bits: Annotated[int | None, typer.Option(help="Bits of a weight; float if left out.")] = None,
    steps: Steps = None,
    leak: Annotated[float | None, typer.Option(help="Largest leak.")] = None,
    out: Out = None,
    print_after: Annotated[
        str | None, typer.Option("--print-after", metavar="PASS", help="Print a stage, or 'all'.")
    ] = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Lower a network to a target and report what it takes."""
    from compilers import compile_network, save_program
    from compilers.resources import resources
    from ep_neuro.checkpoint import open_model

    backend = _backend(target)
    opened = open_model(model, seed)
    printer = _StagePrinter(print_after)
    program = compile_network(
        opened.network,
        backend,
        code=code,
        bits=bits,
        steps=steps,
        **({} if leak is None else {"leak": leak}),
        provenance={"model.sha256": opened.digest},
        observer=printer,
        check=False,
    )
    printer.finish()
    violations = backend.check(program.graph)
    place = out or Path("runs") / "programs" / f"{program.graph.name}-{target}-{code}"
    fields = {
        "program": None if violations else str(save_program(program, place)),
        **resources(program.graph),
        "violations": [str(v) for v in violations],
    }
    emit(fields, json_, "\n".join(f"{k}: {v}" for k, v in fields.items()))
    if violations:
        raise CheckFailed(
            f"target '{target}'", f"{len(violations)} limits are broken", "see the violations"
        )


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Spec, model, graph or program.")],
    json_: Json = False,
) -> None:
    """Print a spec, model, graph or program."""
    from compilers.artifact import MANIFEST, RECORDS, load_program
    from compilers.ir_text import print_graph
    from ep_neuro.checkpoint import open_model

    path = Path(file)
    if path.name in (RECORDS, "graph.txt"):
        path = path.parent
    if (path / MANIFEST).is_file():
        program = load_program(path)
        about = {
            "kind": "program",
            "target": program.target,
            "options": dict(program.options),
            "provenance": dict(program.provenance),
            "graph": print_graph(program.graph),
        }
        emit(about, json_, f"# program for target '{program.target}'\n{about['graph']}")
        return
    opened = open_model(file)
    spec = opened.network.spec
    about = {
        "kind": "model",
        "spec": spec.to_dict(),
        "parameters": spec.parameters,
        "metadata": dict(opened.metadata),
    }
    head = f"# {spec.name}: {spec.parameters:,} parameters\n"
    emit(about, json_, f"{head}{spec.to_yaml()}# {json.dumps(about['metadata'])}")


@app.command()
def run(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="Compiled program.")],
    data: Data = "digits",
    limit: Limit = None,
    steps: Steps = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write events and states by step to this .npz file.")
    ] = None,
    data_root: Root = None,
    json_: Json = False,
) -> None:
    """Settle inputs on the target of a program."""
    import targets
    from compilers import load_program
    from targets.compare import fit
    from targets.trace import TRACE_SAMPLES, write_trace

    loaded = load_program(program)
    split = fit(_samples(data, data_root, limit), loaded.graph)
    with targets.open(loaded) as session, progress("settling") as advance:
        result = session.settle(split.x, steps=steps, progress=advance)
        if trace is not None:
            first = split.head(TRACE_SAMPLES)
            write_trace(session, loaded.graph, first, trace, steps=steps)
    fields = {
        "accuracy": float((result.predictions == split.y).mean()),
        "events_per_sample": result.events_per_sample,
        "synops_per_sample": result.synops_per_sample,
        "ms_per_sample": result.seconds * 1e3 / len(split),
        "samples": len(split),
    }
    emit(fields, json_, "\n".join(f"{k}: {v:.6g}" for k, v in fields.items()))


@app.command()
def compare(
    model: ModelName,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="TARGET[:CODE[:BITS]]", help="What to run; repeatable."),
    ] = None,
    data: Data = "digits",
    limit: Limit = None,
    steps: Steps = None,
    out: Out = None,
    data_root: Root = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Rate against spike, side by side; with --out also a report.html."""
    from ep_neuro.checkpoint import open_model
    from ep_neuro.settle import Schedule
    from targets.compare import DEFAULT_CHOICES, Choice
    from targets.compare import compare as run_all
    from targets.pages import comparison_page

    choices = [Choice.parse(text) for text in with_ or DEFAULT_CHOICES]
    opened = open_model(model, seed)
    split = _samples(data, data_root, limit, opened.network.spec)
    with progress("comparing") as advance:
        rows = run_all(
            opened.network,
            split,
            choices,
            schedule=Schedule(sweeps=300),
            options={"steps": steps} if steps else {},
            on_row=_counter(advance, len(choices) + 1),
        )
    fields: dict[str, Any] = {"rows": [c.row.to_dict() for c in rows]}
    if out is not None:
        commands = [f"ep-neuro compare {model} --data {data}"]
        fields["report"] = str(comparison_page(opened, split, data, rows, commands, out))
    emit(fields, json_, _rows_table(fields["rows"]))


@app.command(name="targets")
def targets_(json_: Json = False) -> None:
    """What can run here, what is missing and how to get it."""
    import targets
    from targets.base import Feature

    found = []
    for backend in targets.backends():
        state = backend.available()
        features = [f.value for f in Feature if f not in backend.unsupported]
        found.append(
            {
                "name": backend.name,
                "available": state.available,
                "reason": state.reason,
                "features": features,
                "unsupported": {f.value: why for f, why in backend.unsupported.items()},
            }
        )
    rows = [
        (f["name"], "yes" if f["available"] else "no", f["reason"], ", ".join(f["features"]))
        for f in found
    ]
    emit({"targets": found}, json_, table(("target", "available", "reason", "features"), rows))


# --- shared by commands ------------------------------------------------------------------------


class _StagePrinter:
    """Prints the graph after one pass, or after every pass, as it comes by."""

    def __init__(self, wanted: str | None) -> None:
        self.wanted, self.seen = wanted, list[str]()

    def __call__(self, name: str, graph: Any) -> None:
        from compilers.ir_text import print_graph

        self.seen.append(name)
        if self.wanted in (name, "all"):
            log(f"# after {name}\n{print_graph(graph)}")

    def finish(self) -> None:
        if self.wanted not in (None, "all", *self.seen):
            raise ConfigError(
                f"--print-after {self.wanted}",
                "no pass of this name ran",
                f"choose from all, {', '.join(self.seen)}",
            )


def _samples(
    data: str, root: Path | None, limit: int | None, spec: "NetworkSpec | None" = None
) -> "Split":
    from ep_neuro import data as datasets

    name, part = datasets.parse(data)
    shape = None if spec is None else spec.input.shape
    dataset: Dataset = datasets.load(name, root, shape=shape if name.startswith("folder") else None)
    if spec is not None:
        dataset = datasets.fitted(dataset, spec)
    split = dataset.split(part or "test")
    return split if limit is None else split.head(limit)


def _network_of(name: str, seed: int) -> Any:
    """The network of a model, a spec or a training configuration."""
    from ep_neuro.checkpoint import open_model
    from ep_neuro.config import build_config
    from ep_neuro.network import Network
    from ep_neuro.yaml_io import load_yaml

    path = Path(name)
    if path.is_file():
        data = load_yaml(path)
        if "network" in data:
            return Network(build_config(data, str(path)).spec(), seed)
    return open_model(name, seed).network


def _backend(name: str) -> Any:
    import targets

    return targets.get(name)


def _health(latest: dict[str, float]) -> str:
    if "loss" not in latest:
        return f"epoch {latest.get('epoch', 1):.0f}"
    return (
        f"epoch {latest['epoch']:.0f}, loss {latest['loss']:.3g}, "
        f"validation {latest['val_accuracy']:.1%}, residual {latest['residual']:.1g}, "
        f"unsettled {latest['unsettled']:.1%}"
    )


def _counter(advance: Any, total: int) -> Any:
    started, done = time.perf_counter(), [0]

    def count(_: Any) -> None:
        done[0] += 1
        advance(done[0], total, f"{time.perf_counter() - started:.0f} s")

    return count


def _rows_table(rows: list[dict[str, Any]]) -> Any:
    columns = list(rows[0])
    return table(columns, [[row[c] for c in columns] for row in rows])


def main() -> None:
    """Run the command line; errors become one line on stderr and the exit code."""
    debug = "--debug" in sys.argv
    try:
        check_packages()
        with plain_warnings():
            code = app(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except EPNeuroError as error:
        if debug:
            raise
        log(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        log("error: interrupted; what was written so far is whole")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)

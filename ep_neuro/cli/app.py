"""The application that every command joins, and what commands share."""

import functools
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import ep_neuro
from ep_neuro.cli.console import own_stdout

app = typer.Typer(
    name="ep-neuro",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Energy-based networks, from equilibrium propagation to neuromorphic hardware.",
    epilog="Exit 0: done; 1: a check or a limit did not hold; 2: wrong usage, config or file.",
)


class _Command(TyperCommand):
    """A command whose answer is alone on stdout, whatever the libraries below print."""

    def invoke(self, ctx: Any) -> Any:
        with own_stdout():
            return super().invoke(ctx)


command = functools.partial(app.command, cls=_Command)

SWEEPS = 300
"""Most sweeps that `evaluate` and `compare` grant a batch; settled ones stop by themselves."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ep-neuro {ep_neuro.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; any command takes it.")
    ] = False,
) -> None:
    """Options of every command."""

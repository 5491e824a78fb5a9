"""The command line ``engine``: options in, one call out. Heavy imports wait until a command runs."""

from __future__ import annotations

import typer

from engine.cli.added import CommandWithAdded
from engine.cli.bench import bench
from engine.cli.compare import compare
from engine.cli.ensemble import ensemble
from engine.cli.evaluate import evaluate
from engine.cli.inspect import inspect
from engine.cli.options import Version
from engine.cli.report import report
from engine.cli.select import select
from engine.cli.serve import serve
from engine.utils import console

app = typer.Typer(
    name="engine",
    help="Fuse the masks of several segmentation nets (ONNX), fast and exactly.\n\n"
    "Without arguments, [bold]engine ensemble[/bold] shows the whole job on generated Mars scenes with the sample nets "
    "that are included. Results go to stdout, messages about the run to stderr. Exit code 2 means that the input or an "
    "option was refused and that nothing was written.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for _command in (ensemble, evaluate, select, compare, report, bench, inspect, serve):
    app.command(cls=CommandWithAdded)(_command)


@app.callback()
def root(version: Version = False) -> None:
    """Take the options that belong to no command."""


def main() -> None:
    """Run the command line."""
    console.run(app)

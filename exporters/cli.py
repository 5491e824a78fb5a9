"""The command line of the exporters."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.options import Version
from engine.errors import OutputError, PlanError
from engine.utils import console
from exporters import cli_files, cli_page

if TYPE_CHECKING:
    from engine.models.contract import Activation
    from exporters.keras_to_onnx import Export
    from exporters.promise import ContractOptions

app = typer.Typer(
    name="exporters",
    help="Turn trained Keras nets and foreign ONNX files into self-describing ONNX files, make them smaller and "
    "faster, and pack a whole ensemble into one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_CONTRACT = "Contract (overrides the archive's own)"
_PROOF = "Parity"
_UNCUT = 1000


@app.callback()
def root(version: Version = False) -> None:
    """Take the options that belong to no command."""


@app.command()
def onnx(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.keras", help="Keras archives to export.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="An .onnx file for one model, or a folder (created if missing) for any number."
        ),
    ],
    tiles: Annotated[
        Path | None,
        typer.Option(
            help="An .npz file with real tiles for the comparison (key test_set, images or training_set).",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0, help="Largest allowed difference of an output, for outputs up to 1.", rich_help_panel=_PROOF
        ),
    ] = 1e-4,
    agreement: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Smallest allowed share of pixels with equal labels.", rich_help_panel=_PROOF
        ),
    ] = 0.9999,
    opset: Annotated[int, typer.Option(min=13, max=18, help="Version of the ONNX operator set.")] = 17,
    any_size: cli_files.AnySize = False,
    overwrite: cli_files.Overwrite = False,
    class_names: Annotated[
        str | None,
        typer.Option(help="Class names in label order, separated by commas.", rich_help_panel=_CONTRACT),
    ] = None,
    ignored_class: Annotated[
        int | None, typer.Option(help="Label of the class excluded from the score.", rich_help_panel=_CONTRACT)
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Factor on the raw pixel values, applied first.", rich_help_panel=_CONTRACT),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Subtracted after scaling: one number, or one per channel, separated by commas.",
            rich_help_panel=_CONTRACT,
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            help="Divided by last: one number, or one per channel, separated by commas.", rich_help_panel=_CONTRACT
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Output of the net: logits or probabilities.", rich_help_panel=_CONTRACT)
    ] = None,
    class_id: Annotated[
        int | None, typer.Option(help="The class of a one-map net (a specialist).", rich_help_panel=_CONTRACT)
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Name shared by the specialists of one set.", rich_help_panel=_CONTRACT)
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Name of the architecture, for information.", rich_help_panel=_CONTRACT)
    ] = None,
) -> None:
    """Export Keras nets to NCHW ONNX files and verify that they compute the same.

    Each file has its contract (classes, scaling, layout) in its metadata. The graph is compared with the Keras net
    on real and random tiles; a file that misses the tolerance is not written. With --any-size it is compared at several
    sizes and timed against the file of the trained size; if it is slower, both are written (NAME.onnx, NAME_any.onnx).
    """
    from exporters.promise import ContractOptions

    options = ContractOptions(
        classes=None if class_names is None else tuple(name.strip() for name in class_names.split(",")),
        ignored_class=ignored_class,
        scale=scale,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        activation=_activation(activation),
        class_id=class_id,
        group=group,
        architecture=architecture,
    )
    targets = _targets(models, out, overwrite, any_size)
    done = _export_all(targets, tiles, options, opset, (tolerance, agreement), overwrite, any_size)
    _table(done)
    cli_files.say_engine(done[0].path if len(done) == 1 else out)


for command in (cli_files.adopt, cli_files.specialists, cli_files.quantize, cli_files.pack, cli_page.page):
    app.command()(command)


def main() -> None:
    """Run the command line; an EngineError becomes one line and exit code 2."""
    console.run(app)


def _export_all(
    targets: dict[Path, Path],
    tiles: Path | None,
    options: ContractOptions,
    opset: int,
    limits: tuple[float, float],
    overwrite: bool,
    any_size: bool,
) -> list[Export]:
    from exporters.archive import read_contract
    from exporters.backend import load_keras, quiet
    from exporters.parity import Tolerance, load_tiles

    # Cheap checks first: TensorFlow takes seconds to load.
    for source in targets:
        read_contract(source)
    real = None if tiles is None else load_tiles(tiles)
    with quiet():
        load_keras()
    from exporters.any_size import AnySize, export_any_size
    from exporters.keras_to_onnx import export_onnx

    done: list[Export] = []
    for source, target in targets.items():
        lines: list[str] = []
        with quiet():
            written = (export_any_size if any_size else export_onnx)(
                source,
                target,
                options=options,
                tiles=real,
                opset=opset,
                tolerance=Tolerance(*limits),
                overwrite=overwrite,
                report=lines.append,
            )
        for line in lines:
            console.say(f"{source}: {line}")
        if isinstance(written, AnySize):
            console.say(f"{source}: {written}")
        files = written.files if isinstance(written, AnySize) else [written]
        for file in files:
            console.say(f"wrote {file.path}")
        done.extend(files)
    return done


def _targets(models: list[Path], out: Path, overwrite: bool, any_size: bool) -> dict[Path, Path]:
    from exporters.files import check_free

    as_file = out.suffix == ".onnx" and not out.is_dir()
    if as_file and len(models) > 1:
        raise PlanError(f"{len(models)} models and one file {out}; give a folder as --out")
    if as_file:
        check_free(out, overwrite)
        return {models[0]: out}
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: not an .onnx file; give a folder or a name that ends in .onnx")
    targets = {model: out / f"{model.stem}.onnx" for model in models}
    names = sorted(model.stem + ending for model in models for ending in ("", "_any")[: 1 + any_size])
    twins = [name for name, after in pairwise(names) if name == after]
    if twins:
        raise PlanError(f"several models would be written to {twins[0]}.onnx; export them to different folders")
    for target in targets.values():
        check_free(target, overwrite)
    return targets


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise PlanError(f"{option} {text!r}; numbers separated by commas are required, such as 0.485,0.456") from None


def _activation(text: str | None) -> Activation | None:
    if text is None or text == "logits" or text == "probabilities":
        return text  # type: ignore[return-value]
    raise PlanError(f"--activation {text!r}; allowed are logits and probabilities")


def _table(exports: list[Export]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    for name in ("size", "nodes", "transposes", "difference", "agreement", "tiles"):
        table.add_column(name, justify="right")
    for item in exports:
        row: tuple[Any, ...] = (
            item.path.name,
            f"{item.size / 1e6:.2f} MB",
            item.nodes,
            item.transposes,
            f"{item.parity.max_difference:.1e}",
            f"{item.parity.agreement:.6f}",
            item.parity.tiles,
        )
        table.add_row(*map(str, row))
    out = console.stdout()
    if not out.is_terminal:
        out.width = _UNCUT  # a program reads it: one line a file
    out.print(table)


if __name__ == "__main__":
    main()

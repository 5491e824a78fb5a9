"""The command line ``trainers``: options in, one call out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.options import Version
from engine.errors import PlanError
from engine.utils import console
from trainers import cli_data, cli_distil
from trainers.checks import KNOWN, Arch, check_early, summary
from trainers.cli_options import Overwrite, config_of, repeated, run_options
from trainers.quiet import import_backend

if TYPE_CHECKING:
    from trainers.config import FitConfig

app = typer.Typer(
    name="trainers",
    help="Train segmentation networks with Keras 3 and write self-describing .keras files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(version: Version = False) -> None:
    """Take the options that belong to no command."""


app.command()(cli_data.clean)
app.command()(cli_data.stitch)
app.command()(cli_data.show_augment)
app.command()(cli_data.pseudo_label)
app.command()(cli_distil.distil)


@app.command()
@run_options
def fit(
    context: typer.Context,
    options: dict[str, Any],
    arch: Arch = "",
    out: Annotated[
        Path | None, typer.Option(help="The network to write (.keras); its records are written next to it.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Repeat the run of this run.toml; options on the command line override its own.")
    ] = None,
    class_id: Annotated[int | None, typer.Option(min=0, help="Class of a specialist (one_class).")] = None,
    stage: Annotated[str, typer.Option(help="Part of a double_unet to train: whole, first or second.")] = "whole",
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Start from the weights of this network; required by --stage second.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a killed run after its last epoch.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train one network and write it with its record, history and validation tiles."""
    if config is not None:
        mine = {"arch": arch, "out": out, "class_id": class_id, "stage": stage, "start_from": start_from}
        run = repeated(config, {name: value for name, value in {**options, **mine}.items() if _given(context, name)})
    elif not arch:
        raise PlanError(f"architecture: none given; give one of {KNOWN}, or a run.toml with --config")
    elif out is None:
        raise PlanError("out: none given; give the network to write with --out NAME.keras")
    else:
        run = config_of(options, arch, out, class_id, stage, start_from)
    check_early(run, overwrite, resume)
    import_backend()
    from trainers.fit import fit as fit_network
    from trainers.fit import is_finished, prepared

    if resume and is_finished(prepared(run)):
        console.say(f"{run.out}: already finished (run {prepared(run).hash}), skipped")
        return
    typer.echo(summary(fit_network(run, overwrite=overwrite, resume=resume)))
    console.say_next("exporters", "onnx", run.out, "--out", Path(run.out).with_suffix(".onnx"))


@app.command()
@run_options
def fit_specialists(
    options: dict[str, Any],
    out: Annotated[Path, typer.Option(help="Folder for k0.keras, k1.keras and so on.")],
    overwrite: Overwrite = False,
) -> None:
    """Train one specialist per class into a folder.

    The command is resumable: a finished network of the same options and data is never retrained,
    and an unfinished one continues after its last epoch.
    """
    run = config_of(options, "one_class", out / "k0.keras", class_id=0)
    check_early(run, overwrite, resume=True)
    import_backend()
    from trainers.specialists import fit_specialists as fit_all

    for result in fit_all(run, out, overwrite=overwrite):
        typer.echo(summary(result))
    console.say(f"next: exporters specialists {shlex.quote(str(out))}/k*.keras --out {shlex.quote(f'{out}.onnx')}")


@app.command()
@run_options
def fit_folds(
    context: typer.Context,
    options: dict[str, Any],
    arch: Arch,
    out: Annotated[Path, typer.Option(help="Folder for ARCH-fold0.keras, ARCH-fold1.keras and so on.")],
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="Start from the weights of this network, as in round1/pan-fold{fold}.keras."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train one network per fold into a folder: together they are one member of an ensemble.

    Each network states which tiles it was not trained on, so that engine select predicts every labelled tile by the
    one that did not see it. The command is resumable: a finished network of the same options and data is never
    retrained, and an unfinished one continues after its last epoch.

    In --extra, --soft and --from the word {fold} stands for the number of the fold, from 0: so each network gets a file
    of its own, such as soft targets of a teacher that did not see its fold either.
    """
    fixed = [name for name in ("fold", "train_all") if _given(context, name)]
    if fixed:
        named = fixed[0].replace("_", "-")
        raise PlanError(f"{named}: every fold is held out once; omit --{named}")
    run = config_of(options, arch, out / f"{arch}-fold0.keras", start_from=start_from)
    for fold in range(run.folds):
        check_early(run.of_fold(out, fold), overwrite, resume=True)
    import_backend()
    from trainers.cross_fit import fit_folds as fit_each

    for result in fit_each(run, out, overwrite=overwrite):
        typer.echo(summary(result))
    place = shlex.quote(str(out / f"{arch}-fold"))
    console.say(
        f"next: for k in $(seq 0 {run.folds - 1}); do exporters onnx {place}$k.keras --out {place}$k.onnx; done"
    )


@app.command()
@run_options
def cross_validate(
    context: typer.Context,
    options: dict[str, Any],
    arch: Arch,
    out: Annotated[Path, typer.Option(help="Folder for the study and its table; a study that exists is continued.")],
    search: Annotated[str, typer.Option(help="What to search for: losses, the mix of dice, boundary and focal.")] = (
        "losses"
    ),
    trials: Annotated[int, typer.Option(min=1, help="Candidates to try.")] = 20,
    class_id: Annotated[int | None, typer.Option(min=0, help="Class of a specialist (one_class).")] = None,
    threshold: Annotated[float, typer.Option(help="Stop a candidate if its first fold scores below this.")] = 0.0,
) -> None:
    """Search for the best mix of losses by cross-validation.

    Every fold's score is saved at once: after Ctrl-C or a crash the same command continues where it stopped. The
    table of all candidates goes to stdout at the end, and on Ctrl-C.
    """
    fixed = [name for name in ("loss", "fold", "train_all") if _given(context, name)]
    if fixed:
        raise PlanError(f"{', '.join(fixed)}: set by the cross-validation itself; omit --{fixed[0]}")
    run: FitConfig = config_of(options, arch, out / "candidate.keras", class_id)
    check_early(run, overwrite=True, resume=True)
    import_backend()
    from trainers.cross_validate import CrossValidation, table

    study = CrossValidation(run, out, search, trials, threshold)
    try:
        study.run()
    finally:
        typer.echo(table(study.candidates(), run.folds))
    best = next((one.loss for one in study.candidates() if one.state == "complete"), "LOSS")
    console.say_next("trainers", "fit-folds", arch, "--data", run.data, "--loss", best, "--out", "FOLDER")


def main() -> None:
    """Run the command line."""
    console.run(app)


def _given(context: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


if __name__ == "__main__":
    main()

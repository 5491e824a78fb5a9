"""The command that trains a student of an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.utils import console
from trainers.checks import Arch, check_early, summary
from trainers.cli_options import Overwrite, config_of, run_options
from trainers.quiet import import_backend


@run_options
def distil(
    options: dict[str, Any],
    arch: Arch,
    teacher: Annotated[Path, typer.Option(help="The ensemble to learn from: an ensemble.toml.")],
    out: Annotated[Path, typer.Option(help="The network to write (.keras); its records are written next to it.")],
    unlabelled: Annotated[
        str, typer.Option(help="More images to learn from, without labels: .npz, .npz:KEY, .npy or a folder.")
    ] = "",
    targets: Annotated[
        Path | None,
        typer.Option(help="Folder for the teacher's probabilities, for several students. Default: NAME.teacher."),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Start from the weights of this network of the same architecture.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a killed run after its last epoch.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train one network on the probabilities of an ensemble and on the labels of the training tiles.

    The engine predicts all tiles once and keeps the probabilities; training tiles are predicted out of fold where the
    teacher's members have folds. --temperature and --soft-weight state how they enter the loss.

    Example:
      trainers distil unet --teacher ensemble.toml --data cleaned.npz --unlabelled more.npz --out student.keras
    """
    run = config_of(options, arch, out, start_from=start_from)
    check_early(run, overwrite, resume)
    from trainers.distil import taught

    run = taught(run, teacher, unlabelled, targets, overwrite)
    import_backend()
    from trainers.fit import fit, is_finished, prepared

    if resume and is_finished(prepared(run)):
        console.say(f"{run.out}: already finished (run {prepared(run).hash}), skipped")
        return
    typer.echo(summary(fit(run, overwrite=overwrite, resume=resume)))
    console.say_next("exporters", "onnx", run.out, "--out", Path(run.out).with_suffix(".onnx"))

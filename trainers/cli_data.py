"""The data commands: cleaning, previews of augmentation, labels from an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import PlanError
from engine.utils import console
from trainers.cli_options import Groups, Overwrite

TrainingFile = Annotated[Path, typer.Option(help="Training file: training_set (N,2,H,W), or images and labels (npz).")]


def clean(
    data: TrainingFile,
    out: Annotated[Path, typer.Option(help="The cleaned file to write (npz).")],
    groups: Groups = "",
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet of what was removed (png).")] = None,
    min_count: Annotated[
        int, typer.Option(min=2, help="Least number of images with one identical mask that makes them outliers.")
    ] = 3,
    overwrite: Overwrite = False,
) -> None:
    """Remove images whose mask is identical to that of other images.

    Planted or mislabelled images show up as many images with one mask. Masks of a single class do not count:
    flat ground is labelled the same everywhere, so those images are kept.
    """
    from trainers.outliers import clean as clean_file

    result = clean_file(data, out, groups=groups or None, sheet=sheet, min_count=min_count, overwrite=overwrite)
    console.line(f"removed {result.removed}, kept {result.kept}: {out}")
    console.say_next("trainers", "fit", "unet", "--data", out, "--out", "unet.keras")


def stitch(
    data: Annotated[str, typer.Option(help="Training file, or images without labels (.npz, .npz:KEY, .npy, folder).")],
    out: Annotated[Path, typer.Option(help="The windows to write (npz): images, groups and, where known, labels.")],
    window: Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="Size of the windows.")] = "128x256",
    overlap: Annotated[float, typer.Option(help="Overlap of adjacent windows as a share of a window.")] = 0.5,
    groups: Groups = "",
    overwrite: Overwrite = False,
) -> None:
    """Put overlapping tiles back together and cut the pictures they make into larger windows.

    Overlaps are found by equal pixels, so nothing about the tiles' order has to be known. A net trained on windows
    sees the surroundings of each pixel; each picture becomes a group, so no fold shares pixels with another.
    Predict tiles with it as --tile HEIGHTxWIDTH --stitch, or with [input] stitch = true in a plan.
    """
    from engine.inference.tiles.grid import Tiling, parse_tile
    from trainers.windows import stitch as stitch_tiles

    found = stitch_tiles(data, out, Tiling(parse_tile(window, "--window"), overlap), groups or None, overwrite)
    console.line(
        f"{out}: {found.windows} windows of {window} from {found.tiles} tiles, put together to {found.pictures} "
        f"pictures ({found.alone} of a single tile)"
    )
    console.say_next("trainers", "fit", "unet", "--data", out, "--out", "unet.keras")


def show_augment(
    data: TrainingFile,
    out: Annotated[Path, typer.Option(help="The contact sheet to write (png).")],
    policy: Annotated[str, typer.Option(help="The policy, as --augment of fit.")] = "custom",
    paste: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a rare class is pasted into a tile.")
    ] = 0.0,
    ignored_class: Annotated[int, typer.Option(help="Class of pixels from outside a tile; -1: mirror instead.")] = 0,
    tiles: Annotated[int, typer.Option(min=1, max=16, help="Tiles to show, one row each.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed for tiles and draws.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw examples of an augmentation policy: one row per tile, the original first, then draws, with masks below."""
    from trainers.sheets import show_policy

    show_policy(data, out, policy, paste, None if ignored_class < 0 else ignored_class, tiles, seed, overwrite)
    typer.echo(str(out))
    console.say_next("trainers", "fit", "unet", "--data", data, "--augment", policy, "--out", "unet.keras")


def pseudo_label(
    images: Annotated[str, typer.Option(help="Unlabelled images: .npz, .npz:KEY, .npy or a folder.")],
    out: Annotated[Path, typer.Option(help="The file to write (npz), for fit --extra.")],
    models: Annotated[
        list[str] | None, typer.Option(help="An .onnx file, a folder or a glob; repeatable. Specialists are grouped.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="An ensemble.toml instead of --models.")] = None,
    confidence: Annotated[
        float, typer.Option(help="Least mean probability of the chosen class; below it a pixel is ignored.")
    ] = 0.9,
    min_share: Annotated[
        float, typer.Option(help="Least share of confident pixels; images below it are left out.")
    ] = 0.05,
    soft: Annotated[
        bool, typer.Option("--soft", help="Write the probabilities of all pixels as soft targets; needs --plan.")
    ] = False,
    fold: Annotated[
        int | None,
        typer.Option(
            min=0, help="With --soft: of members with folds take the nets of this fold, which never saw its labels."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Label images with an exported ensemble where it is confident, for training on them.

    The members' probabilities are averaged. A pixel whose best class is below the confidence gets the ignored
    class, which training excludes. With --soft the probabilities themselves are what is learned.
    """
    if soft:
        _soft_targets(images, out, models, plan, fold, overwrite)
        return
    if fold is not None:
        raise PlanError("fold: goes with --soft, and a plan whose members have folds; omit it")
    from trainers.pseudo import pseudo_label as label

    result = label(images, out, models or [], plan, confidence, min_share, overwrite)
    console.line(
        f"{out}: {result.kept} of {result.images} images, {result.confident:.1%} of their pixels confident ("
        + ", ".join(f"{name} {share:.1%}" for name, share in result.shares.items())
        + ")"
    )
    console.say_next("trainers", "fit", "unet", "--data", "DATA.npz", "--extra", out, "--out", "unet.keras")


def _soft_targets(
    images: str, out: Path, models: list[str] | None, plan: Path | None, fold: int | None, overwrite: bool
) -> None:
    if models or plan is None:
        raise PlanError("soft: the teacher is a plan; give --plan ensemble.toml, without --models")
    if out.suffix != ".npz":
        raise PlanError(f"out: {out}; soft targets are an .npz file")
    from trainers.soft_targets import write_soft_targets

    digest, count = write_soft_targets(plan, images, out, overwrite=overwrite, fold=fold)
    console.line(f"{out}: soft targets of {count} images, by teacher {digest[:12]}")
    console.say_next("trainers", "fit", "unet", "--data", "DATA.npz", "--extra", out, "--out", "unet.keras")

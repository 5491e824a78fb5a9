"""The command line ``trainers``: options in, one call out."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import console
from engine.errors import PlanError

if TYPE_CHECKING:
    from trainers.config import FitConfig
    from trainers.fit import FitResult

app = typer.Typer(
    name="trainers",
    help="Train segmentation networks with Keras 3 and write self-describing .keras files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Watch(StrEnum):
    """The validation score that chooses the best epoch."""

    suppressed = "suppressed"
    raw = "raw"


Data = Annotated[Path, typer.Option(help="Training file: training_set (N,2,H,W), or images and labels (npz).")]
Groups = Annotated[Path | None, typer.Option(help="npz with one array: the group (panorama) of each tile.")]
Preset = Annotated[str, typer.Option(help="Size of the network: tiny, small, base or large.")]
Epochs = Annotated[int, typer.Option(min=1, help="Most epochs to train.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Tiles a step.")]
LearningRate = Annotated[float, typer.Option(help="Peak learning rate of the warm-up and cosine schedule.")]
WeightDecay = Annotated[float, typer.Option(help="Decoupled weight decay of AdamW.")]
Warmup = Annotated[float, typer.Option(help="Epochs of linear warm-up; fractions are allowed.")]
Patience = Annotated[int, typer.Option(min=0, help="Stop after so many epochs without a better score; 0: never.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, order, folds and augmentation.")]
Loss = Annotated[str, typer.Option(help="Name of the loss.")]
Background = Annotated[
    bool | None,
    typer.Option(
        "--ignore-background/--keep-background",
        help="Leave pixels of the ignored class out of the loss. Default: left out for networks of all classes when an "
        "ignored class is declared, since the score never counts them and a network that learns to predict it loses a "
        "whole class of the mean; kept, as negatives, for specialists.",
        show_default=False,
    ),
]
Augment = Annotated[str, typer.Option(help="none, mirror, flips, jitter, mirror-jitter or flips-jitter.")]
Flips = Annotated[bool, typer.Option("--flips/--no-flips", help="With --no-flips the policy turns no tile.")]
Dropout = Annotated[float, typer.Option(help="Share of maps dropped inside each block.")]
ClassNames = Annotated[str, typer.Option(help="Names in label order, separated by commas. Default: those of the data.")]
IgnoredClass = Annotated[str, typer.Option(help="Class that the score leaves out and decoding suppresses, or 'none'.")]
Folds = Annotated[int, typer.Option(min=2, help="Number of folds; groups stay together.")]
Fold = Annotated[int, typer.Option(min=0, help="The fold held out for validation.")]
TrainAll = Annotated[bool, typer.Option("--train-all", help="Train on every tile and hold none out (final networks).")]
MaxTiles = Annotated[int, typer.Option(min=0, help="Use so many tiles at most, for a quick try; 0: all.")]
Monitor = Annotated[Watch, typer.Option(help="Validation score that chooses the best epoch.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")]


@app.command()
def clean(
    data: Data,
    out: Annotated[Path, typer.Option(help="The cleaned file to write (npz).")],
    groups: Groups = None,
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet of what was removed (png).")] = None,
    min_count: Annotated[int, typer.Option(min=2, help="Images that must share one mask to be outliers.")] = 3,
    overwrite: Overwrite = False,
) -> None:
    """Remove images that share one exactly equal mask with others.

    A planted or mislabelled figure shows as many images under one mask. Masks of a single class are no sign of that:
    flat ground is labelled alike everywhere, so those images stay.
    """
    from trainers.outliers import clean as clean_file

    result = clean_file(data, out, groups=groups, sheet=sheet, min_count=min_count, overwrite=overwrite)
    typer.echo(f"removed {result.removed}, kept {result.kept}: {out}")


@app.command()
def fit(
    arch: Annotated[str, typer.Argument(help="Architecture: unet, unet_plus_plus or one_class.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="The network to write (.keras); its records are written beside it.")],
    groups: Groups = None,
    preset: Preset = "base",
    epochs: Epochs = 40,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-3,
    weight_decay: WeightDecay = 1e-3,
    warmup_epochs: Warmup = 1.0,
    patience: Patience = 10,
    seed: Seed = 0,
    loss: Loss = "cross-entropy",
    ignore_background: Background = None,
    augment: Augment = "flips-jitter",
    flips: Flips = True,
    dropout: Dropout = 0.0,
    class_id: Annotated[int | None, typer.Option(min=0, help="Class of a specialist (one_class).")] = None,
    class_names: ClassNames = "",
    ignored_class: IgnoredClass = "0",
    folds: Folds = 5,
    fold: Fold = 0,
    train_all: TrainAll = False,
    max_tiles: MaxTiles = 0,
    monitor: Monitor = Watch.suppressed,
    overwrite: Overwrite = False,
) -> None:
    """Train one network and write it with its record, history and held-out tiles."""
    options = dict(locals())
    config = _config(options, out, class_id)
    _import_backend()
    from trainers.fit import fit as fit_network

    typer.echo(_summary(fit_network(config, overwrite=overwrite)))


@app.command()
def fit_specialists(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for k0.keras, k1.keras and so on.")],
    groups: Groups = None,
    preset: Preset = "base",
    epochs: Epochs = 40,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-3,
    weight_decay: WeightDecay = 1e-3,
    warmup_epochs: Warmup = 1.0,
    patience: Patience = 10,
    seed: Seed = 0,
    loss: Loss = "cross-entropy",
    ignore_background: Background = None,
    augment: Augment = "flips-jitter",
    flips: Flips = True,
    dropout: Dropout = 0.0,
    class_names: ClassNames = "",
    ignored_class: IgnoredClass = "0",
    folds: Folds = 5,
    fold: Fold = 0,
    train_all: TrainAll = False,
    max_tiles: MaxTiles = 0,
    monitor: Monitor = Watch.suppressed,
    overwrite: Overwrite = False,
) -> None:
    """Train one specialist for every class into a folder.

    Started again it goes on where it stopped: a finished network of the same options and data is never trained again.
    """
    options = dict(locals())
    config = _config({**options, "arch": "one_class"}, out / "k0.keras", 0)
    _import_backend()
    from trainers.specialists import fit_specialists as fit_all

    for result in fit_all(config, out, overwrite=overwrite):
        typer.echo(_summary(result))


def main() -> None:
    """Run the command line."""
    console.run(app)


def _import_backend() -> None:
    """Import Keras with TensorFlow's start-up notes kept off the terminal, unless the user asked for them.

    Some of them are written to the file descriptor before any log level is read, so that is turned away meanwhile; an
    import that fails still raises.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # One process trains several specialists; TensorFlow would warn that it traces a graph for each.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a device, not a path of the user's)
            os.dup2(nowhere.fileno(), 2)
        importlib.import_module("keras")
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _config(options: dict[str, object], out: Path, class_id: int | None) -> FitConfig:
    """Turn the options of a command into the run they describe."""
    from trainers.augment import without_flips
    from trainers.config import FitConfig

    taken = {key: options[key] for key in _SAME}
    ignored = _ignored(str(options["ignored_class"]))
    keep = options["ignore_background"]
    names = str(options["class_names"])
    policy = str(options["augment"])
    return FitConfig(
        out=str(out),
        data=str(options["data"]),
        groups=str(options["groups"] or ""),
        augment=policy if options["flips"] else without_flips(policy),
        class_names=tuple(name.strip() for name in names.split(",")) if names else (),
        ignored_class=ignored,
        ignore_background=(ignored is not None and class_id is None) if keep is None else bool(keep),
        class_id=class_id,
        monitor="raw" if options["monitor"] == Watch.raw else "suppressed",
        **taken,  # type: ignore[arg-type]
    )


#: Options whose names and values are those of the configuration.
_SAME = (
    *("arch", "preset", "epochs", "batch_size", "learning_rate", "weight_decay", "warmup_epochs", "patience", "seed"),
    *("loss", "dropout", "folds", "fold", "train_all", "max_tiles"),
)


def _ignored(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit():
        raise PlanError(f"ignored-class: {text!r}; give a class number or 'none'")
    return int(text)


def _summary(result: FitResult) -> str:
    """Return the line of one finished network."""
    if result.raw != result.raw:  # NaN: nothing was held out
        return f"{result.path}: trained on all tiles, {result.seconds:.0f} s"
    return (
        f"{result.path}: raw {result.raw:.4f}, suppressed {result.suppressed:.4f} "
        f"at epoch {result.best_epoch}, {result.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()

"""The options shared by the training commands, and the run they describe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import PlanError
from engine.utils.console import with_options

if TYPE_CHECKING:
    from trainers.config import FitConfig


class Watch(StrEnum):
    """The validation score that chooses the best epoch."""

    suppressed = "suppressed"
    raw = "raw"


NETWORK, DATA, TRAINING, AUGMENTING = "Network", "Data and validation", "Training", "Augmentation and sampling"


def _option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Data = Annotated[
    Path | None,
    _option(help="Training file: training_set (N,2,H,W), or images and labels (npz). Required.", panel=DATA),
]
Groups = Annotated[
    str,
    typer.Option(
        help="The group (panorama) of each tile: .npz, .npz:KEY or .npy, one value per tile. Folds never split a group."
    ),
]
Background = Annotated[
    bool | None,
    _option(
        "--ignore-background/--keep-background",
        help="Exclude pixels of the ignored class from the loss. Default: left out for networks of all classes when an "
        "ignored class is declared, since the score never counts them and a network that learns to predict it loses a "
        "whole class of the mean; kept, as negatives, for specialists.",
        panel=TRAINING,
        show_default=False,
    ),
]


def _run(
    data: Data = None,
    groups: Groups = "",
    extra: Annotated[
        Path | None,
        _option(
            help="More tiles (npz), for example from pseudo-label: used for training, never for scoring.", panel=DATA
        ),
    ] = None,
    soft: Annotated[
        Path | None,
        _option(help="Soft targets of the training tiles (npz), as distil writes them: a teacher's.", panel=DATA),
    ] = None,
    class_names: Annotated[
        str, _option(help="Class names in label order, separated by commas. Default: those of the data.", panel=DATA)
    ] = "",
    ignored_class: Annotated[
        str, _option(help="Class excluded from the score and suppressed in decoding, or 'none'.", panel=DATA)
    ] = "0",
    folds: Annotated[int, _option(help="Number of folds; groups stay together.", panel=DATA, min=2)] = 5,
    fold: Annotated[int, _option(help="The fold used for validation.", panel=DATA, min=0)] = 0,
    train_all: Annotated[
        bool, _option("--train-all", help="Train on every tile, without validation (final networks).", panel=DATA)
    ] = False,
    max_tiles: Annotated[
        int, _option(help="Use at most this many tiles, for a quick trial; 0: all.", panel=DATA, min=0)
    ] = 0,
    preset: Annotated[str, _option(help="Size of the network: tiny, small, base or large.", panel=NETWORK)] = "base",
    dropout: Annotated[float, _option(help="Dropout rate inside each block.", panel=NETWORK)] = 0.0,
    option: Annotated[
        list[str] | None,
        _option(help="NAME=VALUE: an option of the architecture, such as squeeze=false; repeatable.", panel=NETWORK),
    ] = None,
    deep_supervision: Annotated[
        bool, _option("--deep-supervision", help="Train heads on inner nodes too (unet_plus_plus).", panel=NETWORK)
    ] = False,
    epochs: Annotated[int, _option(help="Maximum number of epochs.", panel=TRAINING, min=1)] = 40,
    batch_size: Annotated[int, _option(help="Tiles a step.", panel=TRAINING, min=1)] = 16,
    learning_rate: Annotated[
        float, _option(help="Peak learning rate of the warm-up and cosine schedule.", panel=TRAINING)
    ] = 1e-3,
    weight_decay: Annotated[float, _option(help="Decoupled weight decay of AdamW.", panel=TRAINING)] = 1e-3,
    warmup_epochs: Annotated[
        float, _option(help="Epochs of linear warm-up; fractions are allowed.", panel=TRAINING)
    ] = 1.0,
    patience: Annotated[
        int, _option(help="Stop after this many epochs without improvement; 0: never.", panel=TRAINING, min=0)
    ] = 10,
    validate_every: Annotated[
        int, _option(help="Validate every n-th epoch, and the last; only those can be the best.", panel=TRAINING, min=1)
    ] = 1,
    seed: Annotated[int, _option(help="Seed for weights, order, folds and augmentation.", panel=TRAINING, min=0)] = 0,
    loss: Annotated[
        str,
        _option(
            help="cross-entropy, weighted-cross-entropy, dice, focal, boundary, or a sum such as dice+0.5*focal.",
            panel=TRAINING,
        ),
    ] = "cross-entropy",
    soft_weight: Annotated[
        float,
        _option(help="Share of soft targets in the loss, where there are any; hard labels the rest.", panel=TRAINING),
    ] = 0.5,
    temperature: Annotated[
        float, _option(help="Temperature of soft targets: above 1, small probabilities count more.", panel=TRAINING)
    ] = 1.0,
    ignore_background: Background = None,
    monitor: Annotated[
        Watch, _option(help="Validation score that chooses the best epoch.", panel=TRAINING)
    ] = Watch.suppressed,
    precision: Annotated[
        str, _option(help="float32, mixed_bfloat16 or mixed_float16; the saved network is float32.", panel=TRAINING)
    ] = "float32",
    ema: Annotated[
        float,
        _option(help="Decay of a moving average of the weights per step, such as 0.99; 0: no average.", panel=TRAINING),
    ] = 0.0,
    swa: Annotated[
        int,
        _option(
            help="Average the weights of this many last epochs, at a constant rate; all epochs run. 0: no average.",
            panel=TRAINING,
            min=0,
        ),
    ] = 0,
    augment: Annotated[
        str,
        _option(
            help="none, flips, flips-jitter, custom, generic, or a sum such as mirror+translate+negative.",
            panel=AUGMENTING,
        ),
    ] = "flips-jitter",
    flips: Annotated[
        bool, _option("--flips/--no-flips", help="With --no-flips the policy flips no tile.", panel=AUGMENTING)
    ] = True,
    repeat: Annotated[
        int, _option(help="How often an epoch shows each tile; identical copies are dropped.", panel=AUGMENTING, min=1)
    ] = 1,
    oversample: Annotated[
        float,
        _option(help="Repeat tiles with classes that occur in less than this share of the tiles.", panel=AUGMENTING),
    ] = 0.0,
    balance: Annotated[
        str,
        _option(
            help="tiles: an epoch shows each once; groups: it draws a class, a group (panorama) with it and a tile.",
            panel=AUGMENTING,
        ),
    ] = "tiles",
    paste: Annotated[
        float, _option(help="Probability that pixels of a rare class are pasted into a tile.", panel=AUGMENTING)
    ] = 0.0,
) -> dict[str, Any]:
    """Declare names, types, defaults and help of the options of a run; return what was given."""
    return locals()


RUN_OPTIONS = tuple(inspect.signature(_run).parameters)
#: Add the options of a run to a command, after its own; it receives them as one dictionary ``options``.
run_options = with_options(_run, "options")


def config_of(
    options: Mapping[str, Any],
    arch: str,
    out: Path,
    class_id: int | None = None,
    stage: str = "whole",
    start_from: Path | None = None,
) -> FitConfig:
    """Return the run that the options describe.

    Raises:
        PlanError: an option is missing or impossible.
    """
    from trainers.augment import without_flips
    from trainers.config import FitConfig

    if options["data"] is None:
        raise PlanError("data: none given; give the training file with --data")
    ignored = _ignored(str(options["ignored_class"]))
    keep = options["ignore_background"]
    names = options["class_names"]
    same = {name: options[name] for name in _SAME}
    return FitConfig(
        arch=arch,
        out=str(out),
        class_id=class_id,
        stage=stage,
        data=str(options["data"]),
        groups=options["groups"],
        extra=str(options["extra"] or ""),
        soft=str(options["soft"] or ""),
        start_from=str(start_from or ""),
        augment=options["augment"] if options["flips"] else without_flips(options["augment"]),
        options=tuple(options["option"] or ()),
        class_names=tuple(name.strip() for name in names.split(",")) if isinstance(names, str) and names else (),
        ignored_class=ignored,
        ignore_background=(ignored is not None and class_id is None) if keep is None else bool(keep),
        monitor="raw" if options["monitor"] == Watch.raw else "suppressed",
        **same,
    )


#: Options whose names and values are those of the configuration.
_SAME = (
    *("preset", "epochs", "batch_size", "learning_rate", "weight_decay", "warmup_epochs", "patience", "seed", "loss"),
    *("dropout", "folds", "fold", "train_all", "max_tiles", "deep_supervision", "precision", "ema", "repeat"),
    *("oversample", "paste", "soft_weight", "temperature", "swa", "balance", "validate_every"),
)


def repeated(path: Path, given: Mapping[str, Any]) -> FitConfig:
    """Return the run of a ``run.toml``, with the options given on the command line in place of its own.

    Args:
        path: the file.
        given: the options stated, by the names of the command line.

    Raises:
        EngineError: the file cannot be read, or the run is impossible.
    """
    from dataclasses import replace

    from engine.errors import InputError
    from trainers.augment import without_flips
    from trainers.config import FitConfig

    try:
        config = FitConfig.from_toml(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give the run.toml of a run") from None
    changed: dict[str, Any] = {name: value for name, value in given.items() if name in _SAME or name in _MORE}
    for name in ("data", "groups", "extra", "soft"):
        if name in given:
            changed |= {name: str(given[name]), f"{name}_sha256": ""}
    if "extra" in given or "soft" in given:
        changed["teacher"] = ""
    if "start_from" in given:
        changed |= {"start_from": str(given["start_from"]), "start_sha256": ""}
    if "out" in given:
        changed["out"] = str(given["out"])
    if "monitor" in given:
        changed["monitor"] = str(given["monitor"].value)
    if "option" in given:
        changed["options"] = tuple(given["option"])
    if "class_names" in given:
        changed["class_names"] = tuple(name.strip() for name in given["class_names"].split(","))
    if "ignored_class" in given:
        changed["ignored_class"] = _ignored(given["ignored_class"])
    if given.get("flips") is False:
        changed["augment"] = without_flips(changed.get("augment", config.augment))
    return replace(config, **changed)


#: Further options whose names and values are those of the configuration.
_MORE = ("arch", "class_id", "stage", "augment", "ignore_background")


def _ignored(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit():
        raise PlanError(f"ignored-class: {text!r}; give a class number or 'none'")
    return int(text)

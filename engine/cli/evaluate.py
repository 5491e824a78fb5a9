"""``engine evaluate``: score existing masks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.options import AsJson, Groups, Memory, Rle, truth_fields
from engine.errors import PlanError
from engine.utils import console
from engine.utils.console import with_options

BORDERS = "Scores of borders"


@with_options(truth_fields, "truth")
def evaluate(
    predicted: Annotated[
        str, typer.Argument(metavar="PRED", help="Masks: .csv, run lengths .csv or .json, .npz, .npy or a folder.")
    ],
    labels: Annotated[str, typer.Option(help="True masks, in any of those formats.")],
    classes: Annotated[
        str, typer.Option(help="Class names, or their number. Default: those of the masks' record.")
    ] = "",
    ignored_class: Annotated[
        str, typer.Option(help="Class excluded from the score, or none. Default: that of the masks' record, else 0.")
    ] = "",
    groups: Groups = "",
    rle: Rle = "",
    memory: Memory = "",
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="Warp true GeoTIFFs onto the masks where they have another CRS, transform or extent (nearest pixel; "
            "outside of them nothing is scored).",
        ),
    ] = False,
    as_library: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="LIBRARY",
            help="Also print the mean IoU that a library gives: keras, torchmetrics, torchmetrics-segmentation, smp, "
            "smp-imagewise, monai, sklearn or simpleitk.",
        ),
    ] = "",
    surfaces: Annotated[
        bool,
        typer.Option(
            "--surfaces",
            help="Also score borders: Dice, boundary IoU, HD95 and surface Dice per class.",
            rich_help_panel=BORDERS,
        ),
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Pixels that two surfaces may differ by for surface Dice.", rich_help_panel=BORDERS)
    ] = 2.0,
    boundary: Annotated[
        float,
        typer.Option(help="Width for boundary IoU, as a share of the image's diagonal.", rich_help_panel=BORDERS),
    ] = 0.02,
    missing: Annotated[
        str,
        typer.Option(
            help="HD95 of a class that only one of two maps has: diagonal (of the image) or infinite.",
            rich_help_panel=BORDERS,
        ),
    ] = "diagonal",
    as_json: AsJson = False,
    *,
    truth: Any,
) -> None:
    """Score masks under all MIoU conventions and report what predictions of the ignored class cost."""
    from engine.cli.printing import print_class_scores, print_evaluation
    from engine.evaluate import evaluate as score_masks
    from engine.evaluate import evaluate_multilabel
    from engine.scores.libraries import named_library
    from engine.scores.surfaces import SurfaceRules

    rules = SurfaceRules(tolerance, boundary, missing)
    if not surfaces and rules != SurfaceRules():
        raise PlanError("--tolerance, --boundary and --missing go with --surfaces: add it, or leave them out")
    if as_library:
        named_library(as_library)
    several = evaluate_multilabel(predicted, labels, classes)
    if several is not None:
        if surfaces or as_library:
            raise PlanError("--surfaces and --as do not take masks of several labels a pixel: leave them out")
        print_class_scores(several, as_json)
    else:
        asked, by_image = rules if surfaces else None, bool(as_library)
        done = score_masks(predicted, labels, classes, ignored_class, groups, truth, rle, align, asked, by_image)
        print_evaluation(done, as_json, as_library)
    names = ("--models", "MODELS", "--input", "IMAGES", "--labels", "TRUE_MASKS")
    console.say_next("engine", "compare", *names, "--out", "run.npz")

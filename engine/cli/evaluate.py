"""``engine evaluate``: score existing masks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.options import AsJson, Groups, Memory, Rle, truth_fields
from engine.utils import console
from engine.utils.console import with_options


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
    as_json: AsJson = False,
    *,
    truth: Any,
) -> None:
    """Score masks under all MIoU conventions and report what predictions of the ignored class cost."""
    from engine.cli.printing import print_class_scores, print_evaluation
    from engine.evaluate import evaluate as score_masks
    from engine.evaluate import evaluate_multilabel

    several = evaluate_multilabel(predicted, labels, classes)
    if several is not None:
        print_class_scores(several, as_json)
    else:
        found = score_masks(predicted, labels, classes, ignored_class, groups, truth, rle, align)
        print_evaluation(found, as_json)
    names = ("--models", "MODELS", "--input", "IMAGES", "--labels", "TRUE_MASKS")
    console.say_next("engine", "compare", *names, "--out", "run.npz")

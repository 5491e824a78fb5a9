"""``engine evaluate``: score existing masks."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import AsJson, Groups, Rle


def evaluate(
    predicted: Annotated[
        str, typer.Argument(metavar="PRED", help="Masks: .csv, run lengths .csv or .json, .npz, .npy or a folder.")
    ],
    labels: Annotated[str, typer.Option(help="True masks, in any of those formats.")],
    classes: Annotated[str, typer.Option(help="Class names, or their number. Default: the classes in the masks.")] = "",
    ignored_class: Annotated[str, typer.Option(help="Class excluded from the score, or none.")] = "0",
    groups: Groups = "",
    rle: Rle = "",
    as_json: AsJson = False,
) -> None:
    """Score masks under all MIoU conventions and report what class 0 costs."""
    from engine.cli.printing import print_class_scores, print_evaluation
    from engine.evaluate import evaluate as score_masks
    from engine.evaluate import evaluate_multilabel

    several = evaluate_multilabel(predicted, labels, classes)
    if several is not None:
        print_class_scores(several, as_json)
        return
    print_evaluation(score_masks(predicted, labels, classes, ignored_class, groups, rle), as_json)

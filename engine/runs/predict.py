"""One run of ``engine ensemble``: predict a source, score it where labels are given, write masks and a preview."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from engine.inference.ensemble import Ensemble
from engine.inference.prediction import BadImages, Predicted, Predictions, Variant
from engine.outputs.open import MaskWriter
from engine.runs.outcome import Outcome
from engine.sources.base import Source
from engine.utils.threads import Behind, available_cores

Elsewhere = Callable[[Ensemble, Source, Source | None, Sequence[Variant]], Predictions]


def run(
    ensemble: Ensemble,
    images: Source,
    writer: MaskWriter | None = None,
    labels: Source | None = None,
    variants: Sequence[Variant] = (),
    batch_size: int = 4,
    workers: int = 0,
    advance: Callable[[int], object] = lambda count: None,
    record: Callable[[Predicted], object] = lambda part: None,
    bad: BadImages | None = None,
    elsewhere: Elsewhere | None = None,
) -> Outcome:
    """Predict every image once, in order.

    Args:
        ensemble: the members and how to fuse them.
        images: what to predict.
        writer: takes the masks; None for none.
        labels: true label maps; None for no scores.
        variants: further variants to score beside the ensemble's own.
        batch_size: images a worker takes at a time.
        workers: threads; 0 for one a core.
        advance: called with the number of images each time a batch is done.
        record: called with each batch before its masks are written.
        bad: where images that cannot be predicted are noted, which are then left out; None when they are an error.
        elsewhere: returns the predictions, as from a cluster; None predicts in this process.

    Raises:
        EngineError: images, labels or members fail; the writer then leaves nothing behind.
    """
    outcome = Outcome.empty(ensemble, workers or available_cores())
    began = perf_counter()
    variants = variants if labels is not None else ()
    stream: Predictions
    if elsewhere is not None:
        stream = elsewhere(ensemble, images, labels, variants)
    else:
        stream = ensemble.stream(images, labels, variants, batch_size, workers)
    stream.bad = bad

    def finish(part: Predicted) -> None:
        record(part)
        if writer is not None:
            writer.write(part.ids, part.labels)

    # The workers' results do not wait for the disk, nor the workers for either.
    with Behind(finish, outcome.workers) as later:
        for part in stream:
            later(part)
            outcome.count(part, ensemble)
            advance(len(part.ids) + len(part.skipped))
    outcome.read_seconds, outcome.write_seconds = stream.read_seconds, later.seconds
    outcome.seconds = perf_counter() - began
    return outcome


def early_exit_summary(outcome: Outcome, ensemble: Ensemble) -> str:
    """Say in one line what early exit saved and, where it is approximate, how well it agrees with all members."""
    most = outcome.images * len(ensemble.members)
    saved = most - sum(outcome.member_runs)
    told = f"early exit: {saved:,} of {most:,} runs of a member on an image saved ({saved / most:.1%})" if most else ""
    if outcome.compared:
        share = outcome.agreed / outcome.compared
        told += f"; {share:.3%} of the labels agree with all members ({outcome.compared:,} pixels compared)"
    return told


def as_dict(outcome: Outcome, ensemble: Ensemble) -> dict[str, Any]:
    """Return the outcome as plain JSON types."""
    from engine.metrics import CONVENTIONS, class_iou

    def clean(value: float) -> float | None:
        return None if np.isnan(value) else round(float(value), 6)

    rows = []
    for variant, score in outcome.scores.items():
        rows.append(
            {
                "name": ensemble.variant_name(variant),
                "suppressed": sorted(variant.decoding.suppress),
                "own": variant == ensemble.variant,
                "images_per_second": clean(outcome.rate(variant)),
                "miou": {name: clean(score.mean_iou(name)) for name in CONVENTIONS},
                "iou": [clean(value) for value in class_iou(score.confusion, "labelled", ensemble.ignored_class)],
            }
        )
    return {
        "images": outcome.images,
        "seconds": round(outcome.seconds, 3),
        "images_per_second": clean(outcome.images / outcome.seconds) if outcome.seconds else None,
        "workers": outcome.workers,
        "members": [{"name": v.name, "sha256": v.checksum} for v in ensemble.members],
        "strategy": "packed" if ensemble.is_packed else ensemble.variant.strategy,
        "suppress": sorted(ensemble.variant.decoding.suppress),
        "classes": list(ensemble.classes),
        "class_share": [clean(count / outcome.pixels) if outcome.pixels else None for count in outcome.class_pixels],
        "tie_rate": clean(outcome.ties / outcome.pixels) if outcome.pixels else None,
        "scores": rows,
    }

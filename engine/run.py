"""One run of ``engine ensemble``: predict a source, score it where labels are given, write masks and a preview."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.decode import Decoding
from engine.images import Batch, Source
from engine.labels import as_labels
from engine.masks import MaskWriter
from engine.metrics import Score
from engine.pipeline import Ensemble, available_cores
from engine.prediction import Predicted, Variant
from engine.preview import Tile
from engine.strategies import STRATEGIES

PREVIEW_TILES = 6


@dataclass
class Outcome:
    """What a run gave.

    Attributes:
        images: how many were predicted.
        seconds: wall time from the first image to the last mask.
        workers: worker threads.
        ties: pixels whose vote was tied.
        pixels: pixels predicted in all.
        scores: a score a variant; empty without labels.
        member_seconds: time inside each member's nets, summed over workers.
        variant_seconds: time inside each variant's fusion and decoding, summed over workers.
        member_runs: on how many images each member ran; fewer than all with early exit.
        compared: pixels predicted again by all members, to check an approximate early exit.
        agreed: how many of those got the same label.
        class_pixels: int64 (classes,): how often each class was predicted.
    """

    images: int = 0
    seconds: float = 0.0
    workers: int = 1
    ties: int = 0
    pixels: int = 0
    scores: dict[Variant, Score] = field(default_factory=dict)
    member_seconds: list[float] = field(default_factory=list)
    variant_seconds: dict[Variant, float] = field(default_factory=dict)
    member_runs: list[int] = field(default_factory=list)
    compared: int = 0
    agreed: int = 0
    class_pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def rate(self, variant: Variant) -> float:
        """Return the images/s a run of this variant alone would reach, from the measured time of its parts."""
        members = self.member_seconds if variant.member is None else [self.member_seconds[variant.member]]
        busy = sum(members) + self.variant_seconds[variant]
        return self.images * self.workers / busy if busy else float("nan")


def run(
    ensemble: Ensemble,
    images: Source,
    writer: MaskWriter | None = None,
    labels: Source | None = None,
    variants: Sequence[Variant] = (),
    batch_size: int = 4,
    workers: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> Outcome:
    """Predict every image once, in order.

    Args:
        ensemble: the members and how to fuse them.
        images: what to predict.
        writer: takes the masks; None to score alone.
        labels: true label maps; None for no scores.
        variants: further variants to score beside the ensemble's own.
        batch_size: images a worker takes at a time.
        workers: threads; 0 for one a core.
        advance: called with the number of images each time a batch is done.

    Raises:
        EngineError: images, labels or members fail; the writer then leaves nothing behind.
    """
    count = len(ensemble.classes)
    outcome = Outcome(
        workers=workers or available_cores(),
        member_seconds=[0.0] * len(ensemble.members),
        member_runs=[0] * len(ensemble.members),
        class_pixels=np.zeros(count, np.int64),
    )
    began = perf_counter()
    stream = ensemble.stream(images, labels, variants if labels is not None else (), batch_size, workers)
    for part in stream:
        if writer is not None:
            writer.write(part.ids, part.labels)
        _account(outcome, part, ensemble)
        advance(len(part.ids))
    outcome.seconds = perf_counter() - began
    return outcome


def _account(outcome: Outcome, part: Predicted, ensemble: Ensemble) -> None:
    outcome.images += len(part.ids)
    outcome.ties += part.ties
    outcome.pixels += part.labels.size
    outcome.class_pixels += np.bincount(part.labels.ravel(), minlength=len(ensemble.classes))
    outcome.member_seconds = [a + b for a, b in zip(outcome.member_seconds, part.member_seconds, strict=True)]
    outcome.member_runs = [a + b for a, b in zip(outcome.member_runs, part.member_runs, strict=True)]
    outcome.compared += part.compared
    outcome.agreed += part.agreed
    for variant, seconds in part.variant_seconds.items():
        outcome.variant_seconds[variant] = outcome.variant_seconds.get(variant, 0.0) + seconds
    for variant, matrices in part.confusion.items():
        score = outcome.scores.setdefault(variant, Score(len(ensemble.classes), ensemble.ignored_class))
        score.add(matrices)


def every_variant(ensemble: Ensemble) -> list[Variant]:
    """Return each member alone and each strategy, raw and (where a class is suppressed) suppressed.

    Of a packed ensemble there is its own variant alone.
    """
    if ensemble.is_packed:
        return [ensemble.variant]
    decodings = [Decoding()]
    if ensemble.variant.decoding.suppress:
        decodings.append(Decoding(ensemble.variant.decoding.suppress, vote_stage=ensemble.variant.decoding.vote_stage))
    members = [Variant("mean-logit", d, index) for index in range(len(ensemble.members)) for d in decodings]
    return [*members, *(Variant(name, decoding) for name in STRATEGIES for decoding in decodings)]


def preview_tiles(
    ensemble: Ensemble, images: Source, labels: Source | None = None, count: int = PREVIEW_TILES
) -> list[Tile]:
    """Predict a few images spread over the set again, and see where the members disagree.

    Returns:
        At most ``count`` tiles.
    """
    wanted = np.unique(np.linspace(0, len(images) - 1, count).astype(int)).tolist()
    pixels = list(_picked(images, wanted))
    truths = [as_labels(batch, len(ensemble.classes), "labels") for batch in _picked(labels, wanted)] if labels else []
    tiles = []
    for index, batch in enumerate(pixels):
        height, width = images.size
        logits, _ = ensemble.logits(batch)
        decoding = ensemble.variant.decoding
        alone = [
            ensemble.decode(logits, Variant("mean-logit", Decoding(decoding.suppress), member), images.size)[0][0]
            for member in range(len(ensemble.members))
        ]
        fused = ensemble.decode(logits, ensemble.variant, images.size)[0][0]
        disagreement = np.mean([own != fused for own in alone], axis=0)
        tiles.append(
            Tile(
                batch.ids[0],
                batch.pixels[0].copy(),
                truths[index].reshape(height, width) if truths else None,
                fused.reshape(height, width),
                disagreement.reshape(height, width),
            )
        )
    return tiles


def _picked(source: Source, wanted: Sequence[int]) -> Iterator[Batch]:
    """Yield the wanted images (ascending indices) as batches of one."""
    left = list(wanted)
    for batch in source.batches(64):
        while left and left[0] < batch.start + len(batch.ids):
            at = left.pop(0) - batch.start
            yield Batch(batch.start + at, [batch.ids[at]], batch.pixels[at : at + 1])
        if not left:
            return


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
                "name": variant_name(variant, ensemble),
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


def variant_name(variant: Variant, ensemble: Ensemble) -> str:
    """Return what tables call a variant: the member's name, or the strategy's."""
    return variant.strategy if variant.member is None else ensemble.members[variant.member].name

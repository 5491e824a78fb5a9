"""The most informative tiles: worst fused mask, most disagreement between members, rarest class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compare.disagree import Disagreement
from engine.compare.result import REASONS, Pictures, TileFacts
from engine.compare.study import Study
from engine.compare.tune import Bias, biased
from engine.fusion.evidence import Evidence
from engine.inference.prediction import Variant
from engine.metrics import mean_ious
from engine.sources.base import Source


def rarest_class(study: Study, found: Disagreement) -> int:
    """Return the class with the fewest pixels (at least one), except ignored and suppressed ones."""
    pixels = found.class_pixels.sum(axis=0).astype(np.float64)
    aside = {study.ensemble.ignored_class, *study.suppressed.suppress} - {None}
    if len(aside) < len(pixels):
        pixels[[index for index in aside if index is not None]] = 0
    pixels[pixels == 0] = np.inf
    return int(pixels.argmin())


def choose(
    study: Study, matrices: NDArray[np.int32], found: Disagreement, rarest: int, most: int
) -> list[tuple[int, list[str], float]]:
    """Choose the tiles.

    Args:
        study: members and truth.
        matrices: int32 (images, classes, classes) of the row shown; empty without labels.
        found: disagreement of the members.
        rarest: id of the rarest class.
        most: number of tiles per reason.

    Returns:
        Index, reasons and score of each tile, in the order of the images; the score is NaN without labels.
    """
    alone = np.full(study.store.images, np.nan)
    if len(matrices):
        alone = mean_ious(matrices, "labelled", study.ensemble.ignored_class)
    orders = {
        "worst": np.argsort(np.where(np.isnan(alone), np.inf, alone), kind="stable")[: (~np.isnan(alone)).sum()],
        "disputed": np.argsort(-found.disputed, kind="stable"),
        "rarest": np.argsort(-found.class_pixels[:, rarest], kind="stable")[
            : (found.class_pixels[:, rarest] > 0).sum()
        ],
    }
    reasons: dict[int, list[str]] = {}
    for reason in REASONS:
        for index in orders[reason][:most].tolist():
            reasons.setdefault(index, []).append(reason)
    return [(index, reasons[index], float(alone[index])) for index in sorted(reasons)]


def draw(
    study: Study,
    images: Source,
    chosen: list[tuple[int, list[str], float]],
    shown: Variant,
    fold_biases: tuple[Bias, ...],
    found: Disagreement,
    rarest: int,
) -> tuple[list[TileFacts], Pictures]:
    """Decode the chosen tiles once more.

    Args:
        study: members, logits, truth.
        images: source of the pixels.
        chosen: the result of :func:`choose`.
        shown: the variant whose masks are shown as fused.
        fold_biases: its biases if it is tuned, one per fold; otherwise empty.
        found: disagreement of the members.
        rarest: id of the rarest class.
    """
    ensemble = study.ensemble
    members = [study.alone(index) for index in range(len(ensemble.members))]
    facts, truth, fused, own, doubt = [], [], [], [], []
    for index, reasons, score in chosen:
        tile = np.array([index])
        logits, size = study.store.read(tile), study.store.size_of(tile)
        variant = shown
        if fold_biases and study.folds is not None:
            variant = biased(shown, fold_biases[study.folds[index]])
        labels = np.stack([ensemble.decode(logits.copy(), each, size)[0][0] for each in members])
        found_here = ensemble.explain(logits, variant, size, Evidence(doubt="votes" if study.voters else "entropy"))
        assert found_here.shown.doubt is not None
        shown_labels = found_here.labels[0]
        own.append(labels.reshape(-1, *size))
        fused.append(shown_labels.reshape(size))
        doubt.append(found_here.shown.doubt[0].reshape(size))
        if study.truth is not None:
            truth.append(study.truth[index].reshape(size))
        rare = found.class_pixels[index, rarest] / labels.shape[1]
        disputed = float((labels != shown_labels).mean())
        facts.append(TileFacts(str(images.ids[index]), index, reasons, score, disputed, float(rare), *size))
    largest = images.size
    if facts:
        largest = max(tile.height for tile in facts), max(tile.width for tile in facts)
    pictures = Pictures(
        _padded(_pixels(images, [index for index, _, _ in chosen]), largest, after=(images.channels,)),
        _padded(truth, largest),
        _padded(fused, largest),
        _padded(own, largest, before=(len(members),)),
        _padded(doubt, largest),
    )
    return facts, pictures


def _padded(
    maps: list[NDArray[np.uint8]], size: tuple[int, int], before: tuple[int, ...] = (), after: tuple[int, ...] = ()
) -> NDArray[np.uint8]:
    """Return maps (*before, height, width, *after) as one array of a size; what lies beyond a map is 0."""
    whole = np.zeros((len(maps), *before, *size, *after), np.uint8)
    for place, held in zip(whole, maps, strict=True):
        height, width = held.shape[len(before) :][:2]
        place[(*[slice(None)] * len(before), slice(height), slice(width))] = held
    return whole


def _pixels(images: Source, tiles: list[int]) -> list[NDArray[np.uint8]]:
    """Return uint8 (height, width, channels) images; values outside 0..255 are scaled to fit, image by image."""
    wanted, held = set(tiles), []
    for batch in images.batches(64):
        held += [shown(batch.pixels[i]) for i in range(len(batch.ids)) if batch.start + i in wanted]
        if len(held) == len(tiles):
            break
    return held


def shown(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image as uint8; values that do not fit, or that span no more than 0..1, are stretched to 0..255."""
    if image.dtype == np.uint8:
        return image
    pixels = np.nan_to_num(image.astype(np.float64), posinf=0, neginf=0)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 255 or high <= 1:
        pixels = (pixels - low) * (255 / max(high - low, 1e-9))
    return pixels.astype(np.uint8)

"""Where members disagree, and how well their confidence is calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.compare.result import Curve
from engine.compare.study import Study
from engine.inference.prediction import Variant
from engine.models.members import FLOOR

BINS = 15
# Softmax in NumPy is slow: this many images, spread evenly, are enough.
CURVE_IMAGES = 256
MEAN = "mean of all members"


@dataclass(frozen=True)
class Disagreement:
    """Disagreement of the members.

    Attributes:
        agreement: float64 (members, members), share of pixels with equal labels; members in the order given.
        disputed: float64 (images,), mean share of members whose label differs from that of the mean of all.
        by_class: float64 (classes,), the same over the pixels of each class of the truth (of the mean of all without
            labels); NaN where there are none.
        class_pixels: int64 (images, classes), pixels of each class of the same maps.
    """

    agreement: NDArray[np.float64]
    disputed: NDArray[np.float64]
    by_class: NDArray[np.float64]
    class_pixels: NDArray[np.int64]


def disagreement(study: Study) -> Disagreement:
    """Compare the members' suppressed labels with each other and with the mean of all."""
    members, classes = len(study.ensemble.members), study.classes
    variants = [Variant("mean-logit", study.suppressed, member) for member in range(members)]

    def work(tiles: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        logits = study.store.read(tiles)
        mean, _ = study.ensemble.decode(logits, study.reference, study.store.size)
        own = np.stack([study.ensemble.decode(logits, variant, study.store.size)[0] for variant in variants])
        same = np.array([[int((a == b).sum()) for b in own] for a in own])
        against = (own != mean).sum(axis=0)
        shown = mean if study.truth is None else study.truth[tiles]
        key = np.arange(len(tiles))[:, None] * classes + shown
        disputes = np.bincount(key.ravel(), against.ravel(), minlength=len(tiles) * classes)
        pixels = np.bincount(key.ravel(), minlength=len(tiles) * classes)
        return same, disputes.reshape(-1, classes).astype(np.int64), pixels.reshape(-1, classes)

    parts = list(study.in_batches(study.all_tiles, work))
    disputes, pixels = (np.concatenate([part[index] for part in parts]) for index in (1, 2))
    total = pixels.sum(axis=0)
    empty = np.full(classes, np.nan)
    return Disagreement(
        np.sum([part[0] for part in parts], axis=0) / pixels.sum(),
        disputes.sum(axis=1) / (pixels.sum(axis=1) * members),
        np.divide(disputes.sum(axis=0), total * members, out=empty, where=total > 0),
        pixels,
    )


def reliability(study: Study) -> tuple[list[Curve], int]:
    """Return the curve of each member and of the mean of their probabilities, and the number of images used.

    Confidence is the probability of the predicted class among the classes not suppressed; pixels of the ignored
    class are not counted.
    """
    assert study.truth is not None
    ensemble, truth = study.ensemble, study.truth
    members = [ensemble.members[index] for index in ensemble.fusion_order]
    tiles = np.unique(np.linspace(0, study.store.images - 1, min(CURVE_IMAGES, study.store.images)).astype(np.int64))
    allowed = [c for c in range(study.classes) if c not in study.suppressed.suppress]

    def work(part: NDArray[np.int64]) -> NDArray[np.float64]:
        true = truth[part]
        seen = np.ones(true.shape, bool) if ensemble.ignored_class is None else true != ensemble.ignored_class
        logits = study.store.read(part)
        for slot, member in enumerate(members):
            if member.is_set and study.suppressed.suppress:
                logits[slot][:, sorted(study.suppressed.suppress)] = FLOOR
        chances = np.exp(logits - logits.max(axis=2, keepdims=True))
        chances /= chances.sum(axis=2, keepdims=True)
        kept = [p[:, allowed] for p in (*chances, chances.mean(axis=0))]
        return np.stack([_binned(p / p.sum(axis=1, keepdims=True), true, seen, allowed) for p in kept])

    bins = np.sum(list(study.in_batches(tiles, work)), axis=0)
    slot = {member: place for place, member in enumerate(ensemble.fusion_order)}
    names = [(member.name, bins[slot[index]]) for index, member in enumerate(ensemble.members)]
    return [_curve(name, held) for name, held in [*names, (MEAN, bins[-1])]], len(tiles)


def _binned(
    chances: NDArray[np.float32], truth: NDArray[np.uint8], seen: NDArray[np.bool_], allowed: list[int]
) -> NDArray[np.float64]:
    """Return float64 (3, bins): pixels, sum of confidence, correct labels."""
    sure = chances.max(axis=1)[seen]
    right = np.array(allowed)[chances.argmax(axis=1)][seen] == truth[seen]
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    return np.stack([np.bincount(place, weights, minlength=BINS) for weights in (np.ones(len(sure)), sure, right)])


def _curve(name: str, bins: NDArray[np.float64]) -> Curve:
    pixels, sure, right = bins
    empty = np.full(BINS, np.nan)
    confidence = np.divide(sure, pixels, out=empty.copy(), where=pixels > 0)
    accuracy = np.divide(right, pixels, out=empty, where=pixels > 0)
    weight = pixels / max(pixels.sum(), 1)
    error = float(np.nansum(weight * np.abs(confidence - accuracy)))
    return Curve(name, confidence.tolist(), accuracy.tolist(), weight.tolist(), error)

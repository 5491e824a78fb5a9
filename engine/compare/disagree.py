"""Where members disagree, and how well their confidence is calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import ROUNDS, ends, whole_and_resampled
from engine.compare.result import Curve
from engine.compare.study import Study
from engine.fusion.calibration import BINS, Calibration, Quality, fit
from engine.models.members import FLOOR

# Softmax in NumPy is slow: this many images, spread evenly, are enough.
CURVE_IMAGES = 256
MEAN_OF_OTHERS = "mean of members with probabilities"
MEAN, CALIBRATED = "mean of all members", "the mean, calibrated"
# Every so many pixels calibrate the mean.
SPARSE = 16


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
    variants = [study.alone(member) for member in range(members)]

    def work(tiles: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        logits, size = study.store.read(tiles), study.store.size_of(tiles)
        mean, _ = study.ensemble.decode(logits, study.reference, size)
        own = np.stack([study.ensemble.decode(logits, variant, size)[0] for variant in variants])
        same = np.array([[int((a == b).sum()) for b in own] for a in own])
        against = (own != mean).sum(axis=0)
        shown = mean if study.truth is None else study.truth[tiles]
        # Void is a class of its own here, the last one.
        slots = classes + 1
        key = (np.arange(len(tiles))[:, None] * slots + np.minimum(shown, classes)).ravel()
        disputes = np.bincount(key, against.ravel(), minlength=len(tiles) * slots)
        pixels = np.bincount(key, minlength=len(tiles) * slots)
        return same, disputes.reshape(-1, slots).astype(np.int64), pixels.reshape(-1, slots)

    parts = list(study.in_batches(study.all_tiles, work))
    disputes, pixels = (np.concatenate([part[index] for part in parts]) for index in (1, 2))
    total = pixels[:, :classes].sum(axis=0)
    empty = np.full(classes, np.nan)
    return Disagreement(
        np.sum([part[0] for part in parts], axis=0) / pixels.sum(),
        disputes.sum(axis=1) / (pixels.sum(axis=1) * members),
        np.divide(disputes[:, :classes].sum(axis=0), total * members, out=empty, where=total > 0),
        pixels[:, :classes],
    )


def reliability(study: Study) -> tuple[list[Curve], int]:
    """Return the curve of each member and of the mean of their probabilities, and the number of images used.

    Confidence is the probability of the predicted class among the classes not suppressed; pixels of the ignored
    class are not counted. Members that output labels have none. With two folds or more a last curve follows, of the
    mean with a temperature and a bias per class that were fitted without the image's fold.
    """
    assert study.truth is not None
    if len(study.voters) == len(study.ensemble.members):
        return [], 0
    tiles = np.unique(np.linspace(0, study.store.images - 1, min(CURVE_IMAGES, study.store.images)).astype(np.int64))
    allowed = np.array([c for c in range(study.classes) if c not in study.suppressed.suppress])
    fits = _fitted(study, tiles, allowed)

    def work(part: NDArray[np.int64]) -> NDArray[np.float64]:
        kinds, true, seen = _shares(study, part, allowed)
        if fits:
            assert study.folds is not None
            kinds.append(np.stack([_calibrated(p, fits[study.folds[t]]) for p, t in zip(kinds[-1], part, strict=True)]))
        return np.stack([[_quality(p[at], true[at], seen[at], allowed) for p in kinds] for at in range(len(part))])

    sums = np.concatenate(list(study.in_batches(tiles, work)))
    index = np.arange(len(tiles)) if study.groups is None else np.unique(study.groups[tiles], return_inverse=True)[1]
    grouped = np.zeros((int(index.max()) + 1, *sums.shape[1:]))
    np.add.at(grouped, index, sums)
    draws = whole_and_resampled(len(grouped), ROUNDS, study.seed)
    shown = [index for index in study.ensemble.fusion_order if index not in study.voters]
    order = [(study.ensemble.members[index].name, shown.index(index)) for index in sorted(shown)]
    order += [(MEAN_OF_OTHERS if study.voters else MEAN, len(shown)), *([(CALIBRATED, len(shown) + 1)] if fits else [])]
    return [_curve(name, draws @ grouped[:, place]) for name, place in order], len(tiles)


def _shares(
    study: Study, part: NDArray[np.int64], allowed: NDArray[np.int64]
) -> tuple[list[NDArray[np.float32]], NDArray[np.uint8], NDArray[np.bool_]]:
    """Return probabilities among the allowed classes of each member and of their mean, the truth, and what counts.

    Members that output labels are left out.
    """
    assert study.truth is not None
    ensemble, true = study.ensemble, study.truth[part]
    seen = true < study.classes
    if ensemble.ignored_class is not None:
        seen &= true != ensemble.ignored_class
    logits = study.store.read(part)
    for slot, index in enumerate(ensemble.fusion_order):
        if ensemble.members[index].is_set and study.suppressed.suppress:
            logits[slot][:, sorted(study.suppressed.suppress)] = FLOOR
    logits = logits[[index not in study.voters for index in ensemble.fusion_order]]
    chances = np.exp(logits - logits.max(axis=2, keepdims=True))
    chances /= chances.sum(axis=2, keepdims=True)
    kept = [p[:, allowed] for p in (*chances, chances.mean(axis=0))]
    return [p / p.sum(axis=1, keepdims=True) for p in kept], true, seen


def _fitted(study: Study, tiles: NDArray[np.int64], allowed: NDArray[np.int64]) -> list[Calibration]:
    """Return the calibration of the mean for each fold, fitted without it; none where there is one fold."""
    if study.folds is None or len(np.unique(study.folds[tiles])) < 2:
        return []
    folds = study.folds

    def work(part: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        kinds, true, seen = _shares(study, part, allowed)
        counted = seen & np.isin(true, allowed)
        image, pixel = np.nonzero(counted)
        image, pixel = image[::SPARSE], pixel[::SPARSE]
        logs = np.log(np.maximum(kinds[-1][image, :, pixel], 1e-12))
        return logs, np.searchsorted(allowed, true[image, pixel]), folds[part[image]]

    logs, truth, own = (np.concatenate(side) for side in zip(*study.in_batches(tiles, work), strict=True))
    return [fit(logs[own != fold], truth[own != fold]) for fold in range(int(folds.max()) + 1)]


def _calibrated(shares: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float32]:
    logits = np.log(np.maximum(shares, np.float32(1e-12)))
    calibration.apply(logits)
    terms = np.exp(logits - logits.max(axis=0))
    return np.asarray(terms / terms.sum(axis=0))


def _quality(
    shares: NDArray[np.float32], truth: NDArray[np.uint8], seen: NDArray[np.bool_], allowed: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the sums of one image; a true class that is suppressed has no probability."""
    kept = np.pad(shares[:, seen].T, ((0, 0), (0, 1)))
    true = truth[seen]
    place = np.where(np.isin(true, allowed), np.searchsorted(allowed, true), len(allowed))
    return Quality.of(kept, place).sums


def _curve(name: str, sums: NDArray[np.float64]) -> Curve:
    """Return the curve of (1 + rounds, values) sums, of the set and of its resamples."""
    quality = Quality(sums)
    pixels, sure, right = sums[0, 2:].reshape(3, BINS)
    empty = np.full(BINS, np.nan)
    confidence = np.divide(sure, pixels, out=empty.copy(), where=pixels > 0)
    accuracy = np.divide(right, pixels, out=empty, where=pixels > 0)
    weight = pixels / max(pixels.sum(), 1)
    error, brier = ends(quality.error), ends(quality.brier)
    return Curve(name, confidence.tolist(), accuracy.tolist(), weight.tolist(), error[0], *error[1:], *brier)

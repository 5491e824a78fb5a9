"""The pixels of a search: a stratified sample, sorted so that a kernel can count without reading labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse
from engine.metrics import mean_iou_of, mean_ious, named_convention
from engine.select.pool import Choice, Pool
from engine.select.ragged import located, pixel_counts

# Numbers in the confusion matrices of one chunk of candidates.
MOST_NUMBERS = 1 << 21


@dataclass(frozen=True)
class Sample:
    """Pixels in segments: one per unit and true class, unit by unit.

    A unit is the smallest part of a score: a fold of images, or (for ``per-image``) an image.

    Attributes:
        logits: float32 (members, classes, pixels), the form that the pipeline decodes.
        starts: int64 (units * classes + 1,), start of each segment, and the end.
        scale: float64 (units, classes), number of image pixels that each sampled pixel represents.
        folds: int64 (units,), the fold of each unit.
        available: number of pixels in all images that the convention counts.
        convention: the metric to maximise.
        ignored_class: the class it excludes, or None.
        decoding: its suppression is applied.
        voters: indices of the members that output labels.
    """

    logits: NDArray[np.float32]
    starts: NDArray[np.int64]
    scale: NDArray[np.float64]
    folds: NDArray[np.int64]
    available: int
    convention: str
    ignored_class: int | None
    decoding: Decoding
    voters: frozenset[int] = frozenset()

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return self.logits.shape[1]

    @property
    def allowed(self) -> NDArray[np.int64]:
        """Return the classes that can be predicted, ascending."""
        return np.array([c for c in range(self.classes) if c not in self.decoding.suppress])

    def confusions(self, counts: NDArray[np.integer], predicted: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return float64 (candidates, units, classes, classes), scaled to all pixels.

        Args:
            counts: (candidates, units * classes, len(predicted)) labels counted in each segment.
            predicted: the classes of the last axis.
        """
        units = len(self.scale)
        whole = np.zeros((len(counts), units, self.classes, self.classes))
        whole[..., predicted] = counts.reshape(len(counts), units, self.classes, -1)
        return whole * self.scale[None, :, :, None]

    def objective(self, confusions: NDArray[np.float64], fold: int | None) -> NDArray[np.float64]:
        """Return float64 (candidates,): the score on all folds but one; None leaves none out. NaN counts as 0."""
        kept = confusions if fold is None else confusions[:, self.folds != fold]
        if self.convention != "per-image":
            return np.nan_to_num(mean_ious(kept.sum(axis=1), self.convention, self.ignored_class))
        alone = mean_ious(kept, self.convention, self.ignored_class)
        scored = ~np.isnan(alone)
        return np.where(scored, alone, 0).sum(axis=1) / np.maximum(scored.sum(axis=1), 1)

    def scores(self, counts: NDArray[np.integer], fold: int | None) -> NDArray[np.float64]:
        """Return float64 (candidates,): the score of labels counted per segment.

        Args:
            counts: (candidates, units * classes, allowed classes) labels counted in each segment.
            fold: the fold left out, or None.
        """
        if named_convention(self.convention).weights is not None:
            # Such a convention reads whole matrices.
            chunk = max(1, MOST_NUMBERS // (len(self.scale) * self.classes**2))
            parts = (counts[start : start + chunk] for start in range(0, len(counts), chunk))
            return np.concatenate([self.objective(self.confusions(part, self.allowed), fold) for part in parts])
        kept = np.arange(len(self.scale)) if fold is None else np.flatnonzero(self.folds != fold)
        by_class = counts.reshape(len(counts), len(self.scale), self.classes, -1)[:, kept]
        scale = self._counted_scale()[kept]
        if self.convention != "per-image":
            return np.nan_to_num(self._mean_iou(by_class.reshape(len(counts), 1, -1, counts.shape[2]), scale)[:, 0])
        alone = self._mean_iou(by_class, scale)
        scored = ~np.isnan(alone)
        return np.where(scored, alone, 0).sum(axis=1) / np.maximum(scored.sum(axis=1), 1)

    def _counted_scale(self) -> NDArray[np.float64]:
        """Return the scale, 0 for true classes that the convention does not count."""
        scale = self.scale.copy()
        if self.ignored_class is not None and not named_convention(self.convention).counts_ignored:
            scale[:, self.ignored_class] = 0
        return scale

    def _mean_iou(self, counts: NDArray[np.integer], scale: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64 (candidates, parts): the mean IoU of parts of the sample, without making confusion matrices.

        Args:
            counts: (candidates, parts, units of a part times classes, allowed classes).
            scale: float64 (parts times units of a part, classes).
        """
        candidates, parts, _, predicted = counts.shape
        scale = scale.reshape(parts, -1, self.classes)
        whole = counts.reshape(candidates, parts, -1, self.classes, predicted)
        # How many pixels each segment stands for is the same for all candidates.
        truth = (whole[:1].sum(axis=-1) * scale).sum(axis=2)
        hits, union = np.zeros((2, candidates, parts, self.classes))
        own = whole[:, :, :, self.allowed, np.arange(predicted)]
        hits[..., self.allowed] = np.einsum("kpuc,puc->kpc", own, scale[..., self.allowed])
        union += truth
        union[..., self.allowed] += np.einsum("kpucl,puc->kpl", whole, scale)
        return mean_iou_of(hits, union - hits, self.convention, self.ignored_class)

    def fused_confusions(self, choice: Choice) -> NDArray[np.float64]:
        """Return float64 (1, units, classes, classes) of any choice, by the engine's own fusion and decoding."""
        logits = np.ascontiguousarray(self.logits[choice.members][:, None])
        labels = fuse(logits, choice.strategy, choice.weights, choice.decoding).labels[0]
        segment = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        flat = np.bincount(segment * self.classes + labels, minlength=(len(self.starts) - 1) * self.classes)
        return self.confusions(flat.reshape(1, -1, self.classes), np.arange(self.classes))


def draw(pool: Pool, convention: str, folds: NDArray[np.int64], pixels: int, seed: int) -> Sample:
    """Draw the sample: every class gets an equal share as far as it has pixels, spread evenly over the images.

    Args:
        pool: members and truth.
        convention: the metric to maximise; determines which pixels count.
        folds: int64 (images,) fold of each image.
        pixels: approximate number of pixels to draw.
        seed: random seed for the start within each segment.

    Raises:
        InputError: no pixel counts.
    """
    classes, per_image = len(pool.classes), convention == "per-image"
    unit_of_image = np.arange(len(folds)) if per_image else folds
    units = int(unit_of_image.max()) + 1
    # Pixels of void are of no class: they are never drawn.
    labels = pool.truth.ravel()
    places = np.flatnonzero(labels < classes)
    key = (np.repeat(unit_of_image, pixel_counts(pool.truth)) * classes + labels)[places]
    available = np.bincount(key, minlength=units * classes).reshape(units, classes)
    if not named_convention(convention).counts_ignored and pool.ignored_class is not None:
        available[:, pool.ignored_class] = 0
    if not available.any():
        raise InputError("no labelled pixel: every true label is void or the ignored class, so nothing can be scored")
    if per_image:
        wanted = np.stack([_shares(row, max(pixels // units, 1)) for row in available])
    else:
        rates = _shares(available.sum(axis=0), pixels) / np.maximum(available.sum(axis=0), 1)
        wanted = np.minimum(np.ceil(available * rates).astype(np.int64), available)
    # Stable: within a segment the pixels stay in image order, so even steps spread them over the images.
    order = places[np.argsort(key.astype(np.uint16 if units * classes < 2**16 else np.int64), kind="stable")]
    sizes = np.bincount(key, minlength=units * classes)
    begins = np.cumsum(sizes) - sizes
    offsets = np.random.default_rng(seed).random(units * classes)
    picked = [
        order[begin + ((np.arange(count) + offset) * size / count).astype(np.int64)]
        for begin, size, count, offset in zip(begins, sizes, wanted.ravel(), offsets, strict=True)
        if count
    ]
    starts = np.concatenate([[0], np.cumsum(wanted.ravel())]).astype(np.int64)
    scale = np.divide(available, wanted, out=np.zeros(available.shape), where=wanted > 0)
    fold_of_unit = folds if per_image else np.arange(units)
    logits = _gathered(pool, np.concatenate(picked))
    total = int(available.sum())
    return Sample(
        logits, starts, scale, fold_of_unit, total, convention, pool.ignored_class, pool.decoding, pool.voters
    )


def _shares(available: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Divide a budget equally; what a class cannot use goes to the others."""
    given = np.zeros_like(available)
    order = np.argsort(available, kind="stable")
    left = budget
    for place, index in enumerate(order):
        given[index] = min(available[index], -(-left // (len(order) - place)))
        left = max(left - given[index], 0)
    return np.maximum(given, np.minimum(available, 1))


def _gathered(pool: Pool, picked: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return float32 (members, classes, pixels) of flat pixel indices, image by image from the stored arrays."""
    tile, place = located(picked, pixel_counts(pool.truth))
    out = np.empty((len(pool.members), len(pool.classes), len(picked)), np.float32)
    order = np.argsort(tile, kind="stable")
    edges = np.flatnonzero(np.diff(tile[order], prepend=-1, append=-1))
    for member, logs in enumerate(pool.logs):
        for start, stop in pairwise(edges):
            mine = order[start:stop]
            out[member][:, mine] = logs[tile[mine[0]]][:, place[mine]]
        pool.floored(member, out[member])
    return out

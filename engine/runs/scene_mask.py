"""One scene's mask on its way: blended logits in, labels out, counted and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.fusion.doubt import covered, withhold
from engine.fusion.evidence import Shown
from engine.fusion.regions import cleaned
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.inference.records import joined
from engine.inference.tiles.blend import Blended
from engine.metrics import VOID, Score, confusion_matrices
from engine.outputs.scenes import Sink
from engine.runs.outcome import Outcome
from engine.runs.own_pixels import OwnPixels
from engine.runs.scene_evidence import SceneEvidence, rows_of
from engine.sources.base import Batch
from engine.sources.labels import as_labels
from engine.sources.scene import Scene, void_label
from engine.sources.strips import Strips


@dataclass(frozen=True)
class Strip:
    """Decoded rows of a scene's mask, before small regions are given to what surrounds them.

    Attributes:
        start: the first row.
        labels: uint8 (rows, width).
        ties: pixels whose vote was tied.
        confusion: int64 (1, classes, classes) of each variant that is scored beside the ensemble's own.
        seconds: time inside each variant's fusion and decoding.
        shown: the evidence that is asked for, (rows, classes * width) scores, (rows, width) doubt and unknown pixels.
    """

    start: int
    labels: NDArray[np.uint8]
    ties: int = 0
    confusion: dict[Variant, NDArray[np.int64]] = field(default_factory=dict)
    seconds: dict[Variant, float] = field(default_factory=dict)
    shown: Shown = field(default_factory=Shown)

    @property
    def record(self) -> NDArray[np.uint8]:
        """Return labels and evidence as uint8 (rows, bytes), see :mod:`engine.inference.records`."""
        return joined(self.labels, self.shown)


class SceneMask:
    """Fuses the parts of one scene and hands the labels on."""

    def __init__(
        self,
        ensemble: Ensemble,
        scene: Scene,
        truth: Scene | None,
        sink: Sink,
        outcome: Outcome,
        evidence: SceneEvidence | None = None,
        own: OwnPixels | None = None,
    ) -> None:
        """Begin a mask.

        Args:
            ensemble: how to fuse.
            scene: what is predicted.
            truth: its true label map, or None.
            sink: takes the labels.
            outcome: what the run gave so far; added to.
            evidence: takes what is shown for the labels; None for nothing.
            own: brings labels to the scene's pixels; None where the members read these.

        Raises:
            OutputError: no value is free for pixels without data.
        """
        self._ensemble, self._size, self._sink, self._outcome = ensemble, scene.size, sink, outcome
        self._truth_scene, self._truth = truth, Strips(truth) if truth is not None else None
        self._id, self._own = scene.id, own
        self._void = void_label(scene, ensemble.mask_values)
        self._confusion: dict[Variant, NDArray[np.int64]] = {}
        self._covered: NDArray[np.int64] | None = None
        self._pixels = 0
        # Regions cross the borders of parts: their clean-up waits for the whole mask, at one byte a pixel.
        self._cleans = ensemble.variant.decoding.cleans_regions
        self._waiting: list[tuple[NDArray[np.uint8], NDArray[np.bool_] | None, NDArray[np.uint8] | None]] = []
        self._evidence, self._counts = evidence, np.zeros(len(ensemble.classes), np.int64)
        sink.begin(scene)
        if evidence is not None:
            evidence.begin(scene)

    def add(self, part: Blended, variants: Sequence[Variant]) -> Strip:
        """Decode some finished rows, and take them.

        Args:
            part: their logits; overwritten.
            variants: the ensemble's own and others to score; those that suppress a class come last.

        Returns:
            What was decoded.

        Raises:
            EngineError: the true labels or the disk fail.
        """
        own = self._own
        start, stop = (part.start, part.start + part.size[0]) if own is None else own.rows(part)
        truth = self._true_rows(start, stop - start)
        seen = _flat(part.valid)
        logits = part.logits if seen is None else np.ascontiguousarray(part.logits[..., seen])
        strip = Strip(start, self._empty((stop - start, self._size[1])))
        valid = seen if own is None else _flat(own.valid(start, stop))
        asked = self._ensemble.with_unknown(self._evidence.evidence if self._evidence is not None else None)
        shown = Shown()
        # No strategy sees pixels without data: some learn from all pixels they are given.
        for variant in variants if logits.shape[-1] and stop > start else ():
            began = perf_counter()
            is_own = variant == self._ensemble.variant
            found = self._ensemble.explain(logits, variant, part.size, asked if is_own else None, clean=False)
            labels, ties, unknown = found.labels, found.ties, found.shown.unknown
            if own is not None:
                labels = self._own_pixels(labels, part, valid)
                if unknown is not None:
                    unknown = self._own_pixels(unknown.view(np.uint8), part, valid).view(np.bool_)
            strip.seconds[variant] = perf_counter() - began
            if is_own:
                shown = replace(found.shown, unknown=unknown)
                strip.labels.reshape(1, -1)[:, slice(None) if valid is None else valid] = labels
                strip = replace(strip, ties=ties)
            elif truth is not None:
                known = truth if valid is None else np.ascontiguousarray(truth[:, valid])
                strip.confusion[variant] = confusion_matrices(known, labels, len(self._ensemble.classes))
        if asked:
            size = (stop - start, self._size[1])
            strip = replace(strip, shown=rows_of(shown, size, valid, asked, len(self._ensemble.classes)))
        self._take(strip, truth)
        return strip

    def _own_pixels(
        self, values: NDArray[np.uint8], part: Blended, valid: NDArray[np.bool_] | None
    ) -> NDArray[np.uint8]:
        """Return values of the pixels read as those of the scene's own pixels with data."""
        assert self._own is not None
        whole = self._own.labels(values, part)
        return whole if valid is None else whole[:, valid]

    def _empty(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a mask of a size in which no pixel holds data."""
        return np.full(size, 0 if self._void is None else self._void, np.uint8)

    def take(self, strip: Strip) -> None:
        """Take rows that an earlier run decoded.

        Raises:
            EngineError: the true labels or the disk fail.
        """
        self._take(strip, self._true_rows(strip.start, len(strip.labels)))

    def _take(self, strip: Strip, truth: NDArray[np.uint8] | None) -> None:
        for variant, seconds in strip.seconds.items():
            self._outcome.variant_seconds[variant] = self._outcome.variant_seconds.get(variant, 0.0) + seconds
        for variant, matrices in strip.confusion.items():
            self._confusion[variant] = self._confusion.get(variant, 0) + matrices
        self._outcome.ties += strip.ties
        if self._evidence is not None:
            self._evidence.take(strip.labels, strip.shown, self._void)
        labels = strip.labels.reshape(1, -1)
        unknown = None if strip.shown.unknown is None else strip.shown.unknown.reshape(1, -1)
        if self._cleans:
            self._waiting.append((labels, unknown, truth))
        else:
            self._hand_on(labels, unknown, truth)

    def end(self) -> None:
        """Finish the mask and its scores.

        Raises:
            OutputError: the disk fails.
        """
        ensemble = self._ensemble
        if self._cleans:
            whole = np.concatenate([labels for labels, _, _ in self._waiting], axis=1)
            unknown = [part for _, part, _ in self._waiting if part is not None]
            truths = [truth for _, _, truth in self._waiting if truth is not None]
            self._hand_on(
                self._cleaned(whole),
                np.concatenate(unknown, axis=1) if unknown else None,
                np.concatenate(truths, axis=1) if truths else None,
            )
        self._sink.end()
        if self._evidence is not None:
            matrices = self._confusion.get(ensemble.variant) if self._covered is None else self._covered
            self._evidence.end(self._counts, None if matrices is None else matrices[0], self._pixels)
        self._outcome.images += 1
        for variant, matrices in self._confusion.items():
            score = self._outcome.scores.setdefault(variant, Score(len(ensemble.classes), ensemble.ignored_class))
            score.add(matrices)
        if self._covered is not None:
            self._outcome.add_covered(self._covered, ensemble)

    def _cleaned(self, whole: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the mask after the clean-up; pixels without data stay so, and no others become so."""
        return cleaned(whole, self._ensemble.variant.decoding, self._size, self._void)

    def _true_rows(self, start: int, count: int) -> NDArray[np.uint8] | None:
        """Return uint8 (1, pixels): the true labels of some rows."""
        if self._truth is None or not count:
            return None
        assert self._truth_scene is not None
        rows, valid = self._truth.read_valid(np.arange(start, start + count))
        if valid is None or valid.all():
            return self._labels(rows)
        classes, own = len(self._ensemble.classes), self._truth_scene.nodata
        gone = ~valid
        if own is not None and own in range(classes):
            gone &= rows[..., 0] != own  # a nodata value that is a class as well marks pixels of this class
        labels = self._labels(np.where(gone[..., None], 0, rows))
        if classes <= VOID:
            labels[gone.reshape(1, -1)] = VOID
        return labels

    def _labels(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        return as_labels(Batch(0, [self._id], rows[None]), len(self._ensemble.classes), "--labels")

    def _hand_on(
        self, labels: NDArray[np.uint8], unknown: NDArray[np.bool_] | None, truth: NDArray[np.uint8] | None
    ) -> None:
        own, held, part = self._ensemble.variant, labels, unknown
        if self._void is not None:
            valid = labels != self._void
            held, truth = labels[valid][None], None if truth is None else truth[valid][None]
            part = None if unknown is None else unknown[valid][None]
            gone = labels.size - held.size
            self._outcome.no_data[self._void] = self._outcome.no_data.get(self._void, 0) + gone
        if truth is not None:
            matrices = confusion_matrices(truth, held, len(self._ensemble.classes))
            self._confusion[own] = self._confusion.get(own, 0) + matrices
            if part is not None:
                kept = confusion_matrices(truth, covered(withhold(held, part)), len(self._ensemble.classes))
                self._covered = kept if self._covered is None else self._covered + kept
        self._outcome.pixels += held.size
        self._pixels += held.size
        counts = np.bincount(withhold(held, part).ravel(), minlength=len(self._ensemble.classes))
        self._outcome.add_counts(counts)
        self._counts += counts[: len(self._ensemble.classes)]
        labels = withhold(labels, unknown)
        table = self._ensemble.coding.output_table
        # The value of pixels without data is beyond all ids, where the table changes nothing.
        self._sink.write_rows((labels if table is None else table[labels]).reshape(-1, self._size[1]))


def _flat(valid: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    return None if valid is None or valid.all() else valid.ravel()

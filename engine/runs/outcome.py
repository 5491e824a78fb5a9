"""The outcome of a run: counted per batch, summed over shards, written to the journal and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.fusion.doubt import UNKNOWN
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Predicted, Variant
from engine.metrics import Score
from engine.utils.numbers import images_per_second

_NUMBERS = ("images", "ties", "pixels", "compared", "agreed", "unknown")
_LISTS = ("member_seconds", "member_runs")


@dataclass
class Outcome:
    """The outcome of a run.

    Attributes:
        images: number of images predicted.
        seconds: wall time from the first image to the last mask; of a resumed run, since it was resumed.
        workers: worker threads.
        ties: pixels whose vote was tied.
        pixels: total number of pixels predicted.
        scores: one score per variant; empty without labels.
        member_seconds: time inside each member's nets, summed over workers.
        variant_seconds: time inside each variant's fusion and decoding, summed over workers.
        member_runs: number of images each member ran on; fewer than all with early exit.
        compared: pixels predicted again by all members, to check an approximate early exit.
        agreed: number of those with the same label.
        class_pixels: int64 (classes,), pixels predicted as each class.
        skipped: (index, id, reason) of the images that could not be predicted and were left out.
        resumed: number of images finished by an earlier run.
        clean_seconds: time in the clean-up of small regions of the ensemble's variant, summed over workers.
        read_seconds: processor time of the reading thread; not stored for resumed runs.
        write_seconds: processor time of the writing thread; not stored for resumed runs.
        no_data: pixels of scenes without data, by the value they have in the mask.
        unknown: pixels that are too doubtful for a label.
        covered: score of the ensemble's variant on the other pixels; None without labels, or where none can be unknown.
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
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    resumed: int = 0
    clean_seconds: float = 0.0
    read_seconds: float = 0.0
    write_seconds: float = 0.0
    no_data: dict[int, int] = field(default_factory=dict)
    unknown: int = 0
    covered: Score | None = None

    @classmethod
    def empty(cls, ensemble: Ensemble, workers: int = 1) -> Outcome:
        """Return the outcome of a run that has predicted nothing yet."""
        members = len(ensemble.members)
        return cls(
            workers=workers,
            member_seconds=[0.0] * members,
            member_runs=[0] * members,
            class_pixels=np.zeros(len(ensemble.classes), np.int64),
        )

    def rate(self, variant: Variant) -> float:
        """Return the images/s of a run of only this variant, from the measured time of its parts."""
        members = self.member_seconds if variant.member is None else [self.member_seconds[variant.member]]
        busy = sum(members) + self.variant_seconds[variant]
        return images_per_second(self.images, self.workers, busy)

    def count(self, part: Predicted, ensemble: Ensemble) -> None:
        """Add one batch."""
        self.skipped += part.skipped
        if not part.ids:
            return
        self.images += len(part.ids)
        self.ties += part.ties
        self.pixels += part.labels.size // ensemble.masks_per_image
        if ensemble.is_multilabel:
            present = part.labels.reshape(len(part.ids), len(ensemble.classes), -1)
            self.class_pixels += present.sum(axis=(0, 2), dtype=np.int64)
        else:
            self.add_counts(np.bincount(part.labels.ravel(), minlength=len(ensemble.classes)))
        self.member_seconds = _added(self.member_seconds, part.member_seconds)
        self.member_runs = _added(self.member_runs, part.member_runs)
        self.compared += part.compared
        self.agreed += part.agreed
        self.clean_seconds += part.clean_seconds
        for variant, seconds in part.variant_seconds.items():
            self.variant_seconds[variant] = self.variant_seconds.get(variant, 0.0) + seconds
        for variant, matrices in part.confusion.items():
            score = self.scores.setdefault(variant, Score(len(ensemble.classes), ensemble.ignored_class))
            score.add(matrices)
        if part.covered is not None:
            self.add_covered(part.covered, ensemble)

    def add_counts(self, counts: NDArray[np.int64]) -> None:
        """Add int64 (values,) pixels by label; those beyond the classes are unknown."""
        classes = len(self.class_pixels)
        self.class_pixels += counts[:classes]
        self.unknown += int(counts[UNKNOWN]) if len(counts) > UNKNOWN >= classes else 0

    def add_covered(self, matrices: NDArray[np.int64], ensemble: Ensemble) -> None:
        """Add (images, classes, classes) counts of the pixels that are not unknown."""
        if self.covered is None:
            self.covered = Score(len(ensemble.classes), ensemble.ignored_class)
        self.covered.add(matrices)

    def add(self, other: Outcome) -> None:
        """Add the outcome of another part of the same run."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _LISTS:
            setattr(self, name, _added(getattr(self, name), getattr(other, name)))
        self.class_pixels = self.class_pixels + other.class_pixels
        self.skipped += other.skipped
        for variant, seconds in other.variant_seconds.items():
            self.variant_seconds[variant] = self.variant_seconds.get(variant, 0.0) + seconds
        for variant, score in other.scores.items():
            _join(self.scores.setdefault(variant, Score(score.classes, score.ignored_class)), score)
        if other.covered is not None:
            self.covered = self.covered or Score(other.covered.classes, other.covered.ignored_class)
            _join(self.covered, other.covered)


def to_entry(outcome: Outcome, variants: Sequence[Variant]) -> dict[str, Any]:
    """Return an outcome as plain JSON types; variants are identified by their index in ``variants``."""
    return {
        **{name: getattr(outcome, name) for name in (*_NUMBERS, *_LISTS)},
        "class_pixels": outcome.class_pixels.tolist(),
        "skipped": [list(item) for item in outcome.skipped],
        "variant_seconds": [outcome.variant_seconds.get(variant) for variant in variants],
        "scores": [_held(outcome.scores[variant]) if variant in outcome.scores else None for variant in variants],
        "covered": None if outcome.covered is None else _held(outcome.covered),
    }


def from_entry(entry: Mapping[str, Any], variants: Sequence[Variant], ensemble: Ensemble) -> Outcome:
    """Return the outcome that :func:`to_entry` wrote, for the same variants."""
    outcome = Outcome(**{name: entry[name] for name in (*_NUMBERS, *_LISTS)})
    outcome.class_pixels = np.array(entry["class_pixels"], np.int64)
    outcome.skipped = [(int(index), str(name), str(reason)) for index, name, reason in entry["skipped"]]
    for variant, seconds, held in zip(variants, entry["variant_seconds"], entry["scores"], strict=True):
        if seconds is not None:
            outcome.variant_seconds[variant] = seconds
        if held is not None:
            outcome.scores[variant] = _score_of(held, ensemble)
    outcome.covered = None if entry["covered"] is None else _score_of(entry["covered"], ensemble)
    return outcome


def _held(score: Score) -> list[Any]:
    return [score.confusion.tolist(), score.per_image]


def _score_of(held: Sequence[Any], ensemble: Ensemble) -> Score:
    score = Score(len(ensemble.classes), ensemble.ignored_class)
    score.confusion += np.array(held[0], np.int64)
    score.per_image += held[1]
    return score


def _join(score: Score, other: Score) -> None:
    score.confusion += other.confusion
    score.per_image += other.per_image


def _added(a: list[Any], b: list[Any]) -> list[Any]:
    return [left + right for left, right in zip(a, b, strict=True)]

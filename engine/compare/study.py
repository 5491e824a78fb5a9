"""Data shared by all parts of a comparison, and how stored logits become labels and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.compare.store import LogitStore
from engine.fusion.decoding import Decoding
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.metrics import confusion_matrices
from engine.models.members import voters_of
from engine.select.pool import Pool
from engine.select.ragged import Ragged, one_size

BATCH = 8
Done = TypeVar("Done")


@dataclass(frozen=True)
class Study:
    """Members, their logits and the ground truth.

    Attributes:
        ensemble: the members; its own variant determines what is suppressed.
        store: their logits.
        truth: uint8 (images, pixels), or None.
        groups: int64 (images,) scene of each image, or None.
        folds: int64 (images,) fold of each image, or None without labels.
        metric: the convention that sorts, tunes and selects.
        pixels: number of pixels to search on.
        seed: random seed for sample and bootstrap.
    """

    ensemble: Ensemble
    store: LogitStore
    truth: NDArray[np.uint8] | Ragged[np.uint8] | None
    groups: NDArray[np.int64] | None
    folds: NDArray[np.int64] | None
    metric: str
    pixels: int
    seed: int

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.ensemble.classes)

    @property
    def suppressed(self) -> Decoding:
        """Return the decoding of the state ``suppressed``; of ``raw`` if no class is suppressed."""
        held = self.ensemble.variant.decoding
        return Decoding(held.suppress, vote_stage=held.vote_stage)

    @property
    def voters(self) -> frozenset[int]:
        """Return the indices of the members that output labels."""
        return voters_of(self.ensemble.members)

    @property
    def reference(self) -> Variant:
        """Return the reference variant for agreement: the suppressed mean of probabilities, or vote of labels."""
        return Variant("vote" if self.voters else "mean-prob", self.suppressed)

    def alone(self, member: int) -> Variant:
        """Return a member by itself, suppressed; labels as they are."""
        return Variant("mean-logit", Decoding() if member in self.voters else self.suppressed, member)

    @property
    def variants(self) -> list[Variant]:
        """Return each single member and each strategy, raw and (if a class is suppressed) suppressed."""
        return self.ensemble.every_variant()

    @property
    def all_tiles(self) -> NDArray[np.int64]:
        """Return the index of every image."""
        return np.arange(self.store.images)

    def pool(self, turned: bool = False) -> Pool:
        """Return the members as a pool of ``engine select``, with exact instead of rounded logits."""
        assert self.truth is not None
        held = self.store.turned if turned and self.store.turned is not None else self.store.plain
        members = [self.ensemble.members[index] for index in self.ensemble.fusion_order]
        return Pool(
            members,
            held,
            self.truth,
            self.groups,
            self.store.size_of(self.all_tiles),
            self.ensemble.classes,
            self.ensemble.ignored_class,
            self.suppressed.suppress,
            sizes=self.store.sizes,
            voters=voters_of(members),
        )

    def in_batches(self, tiles: NDArray[np.int64], work: Callable[[NDArray[np.int64]], Done]) -> Iterator[Done]:
        """Yield the results of ``work`` on batches of images of one size, in order; batches run in parallel."""
        parts = one_size(tiles, self.store.sizes, BATCH)
        with ThreadPoolExecutor(self.store.workers) as pool:
            yield from pool.map(work, parts)


@dataclass
class Counts:
    """Counts of a variant's predictions.

    Attributes:
        matrices: int32 (images, classes, classes), rows are the truth; (0, classes, classes) without labels.
        predicted: int64 (classes,), pixels predicted as each class.
        agreed: pixels with the same label as the reference.
        seconds: time in fusion and decoding, summed over workers.
    """

    matrices: NDArray[np.int32]
    predicted: NDArray[np.int64]
    agreed: int
    seconds: float


def count(study: Study, variants: Sequence[Variant], tiles: NDArray[np.int64]) -> dict[Variant, Counts]:
    """Decode images with every variant and count the labels.

    Args:
        study: members, logits, truth.
        variants: the decodings.
        tiles: int64, indices of the images.
    """
    # Without suppression first: decoding a suppressed variant overwrites the specialists' logits.
    asked = sorted({study.reference, *variants}, key=lambda variant: bool(variant.decoding.suppress))
    classes = study.classes

    def work(part: NDArray[np.int64]) -> dict[Variant, tuple[NDArray[np.uint8], float]]:
        logits = study.store.read(part)
        found = {}
        for variant in asked:
            began = perf_counter()
            labels, _ = study.ensemble.decode(logits, variant, study.store.size_of(part))
            found[variant] = labels, perf_counter() - began
        return found

    def counted(part: NDArray[np.int64]) -> dict[Variant, Counts]:
        found = work(part)
        reference = found[study.reference][0]
        none = np.zeros((0, classes, classes), np.int32)
        return {
            variant: Counts(
                none
                if study.truth is None
                else confusion_matrices(study.truth[part], labels, classes).astype(np.int32),
                np.bincount(labels.ravel(), minlength=classes),
                int((labels == reference).sum()),
                seconds,
            )
            for variant, (labels, seconds) in found.items()
        }

    parts = list(study.in_batches(tiles, counted))
    return {variant: joined([part[variant] for part in parts]) for variant in dict.fromkeys(variants)}


def joined(parts: Sequence[Counts]) -> Counts:
    """Return the counts of several sets of images as one, in that order."""
    return Counts(
        np.concatenate([part.matrices for part in parts]),
        np.sum([part.predicted for part in parts], axis=0),
        sum(part.agreed for part in parts),
        sum(part.seconds for part in parts),
    )

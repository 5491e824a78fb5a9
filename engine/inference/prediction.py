"""The request to an ensemble (a variant) and the result of a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.fusion.decoding import Decoding
from engine.fusion.evidence import Shown
from engine.inference.records import joined


@dataclass(frozen=True)
class Variant:
    """One way to turn the members' logits into labels.

    Attributes:
        strategy: fusion strategy.
        decoding: bias and suppression.
        member: index of its single member; None for all.
    """

    strategy: str
    decoding: Decoding = field(default_factory=Decoding)
    member: int | None = None


@dataclass
class Predicted:
    """The result of one batch.

    Attributes:
        start: index of the first image.
        ids: (batch,) names of the images.
        labels: uint8 (batch, pixels), of the ensemble's variant; :data:`engine.fusion.doubt.UNKNOWN` where it has none.
        ties: pixels whose vote was tied.
        confusion: int64 (batch, classes, classes) per variant, if true labels were given; unknown pixels with the
            label that they would have.
        covered: the same of the ensemble's variant, without the unknown pixels; None where none can be.
        member_seconds: time in each member's nets.
        member_runs: number of images each member ran on.
        compared: pixels predicted again by all members, to check an approximate early exit.
        agreed: number of those with the same label.
        variant_seconds: time in each variant's fusion and decoding.
        skipped: (index, id, reason) of images of the batch that could not be predicted; they are not in ``ids``.
        clean_seconds: the part of the ensemble's variant's time spent in the clean-up of small regions.
        shown: the evidence for the labels that was asked for, before the clean-up.
    """

    start: int
    ids: list[str]
    labels: NDArray[np.uint8]
    ties: int = 0
    confusion: dict[Variant, NDArray[np.int64]] = field(default_factory=dict)
    member_seconds: list[float] = field(default_factory=list)
    member_runs: list[int] = field(default_factory=list)
    compared: int = 0
    agreed: int = 0
    variant_seconds: dict[Variant, float] = field(default_factory=dict)
    clean_seconds: float = 0.0
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    shown: Shown = field(default_factory=Shown)
    covered: NDArray[np.int64] | None = None

    @property
    def record(self) -> NDArray[np.uint8]:
        """Return labels and evidence as uint8 (batch, bytes), see :mod:`engine.inference.records`."""
        return joined(self.labels, self.shown)


class BadImages:
    """The images that cannot be read or predicted, by id; any thread may add to it."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, name: str, reason: object) -> None:
        """Record why an image is left out; the first reason is kept."""
        with self._lock:
            self._reasons.setdefault(name, str(reason))

    def reason(self, name: str) -> str | None:
        """Return why an image is left out, or None if it is not."""
        return self._reasons.get(name)


class Predictions(Protocol):
    """A run to iterate over once, in this process or on a cluster.

    Attributes:
        bad: records images that cannot be predicted, which are then left out; None if they are an error.
        read_seconds: processor time of reading so far; 0 if other processes read.
    """

    bad: BadImages | None

    @property
    def read_seconds(self) -> float:
        """Return the processor time of reading so far."""

    def __iter__(self) -> Iterator[Predicted]:
        """Yield the result of each batch, in the order of the images."""

    def wait(self) -> None:
        """Wait for the batches in progress after the iteration was left in the middle."""

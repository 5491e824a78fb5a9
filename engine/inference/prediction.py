"""What is asked of an ensemble (a variant) and what a batch gives back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.fusion.decoding import Decoding


@dataclass(frozen=True)
class Variant:
    """One way to turn the members' logits into labels.

    Attributes:
        strategy: fusion strategy.
        decoding: bias and suppression.
        member: index of the one member it looks at; None for all.
    """

    strategy: str
    decoding: Decoding = field(default_factory=Decoding)
    member: int | None = None


@dataclass
class Predicted:
    """What one batch gave.

    Attributes:
        start: index of the first image.
        ids: (batch,) names of the images.
        labels: uint8 (batch, pixels), of the ensemble's own variant.
        ties: pixels whose vote was tied.
        confusion: int64 (batch, classes, classes) a variant, when true labels were given.
        member_seconds: time in each member's nets.
        member_runs: on how many of the images each member ran.
        compared: pixels that were predicted a second time by all members, to check an approximate early exit.
        agreed: how many of those got the same label.
        variant_seconds: time in each variant's fusion and decoding.
        skipped: (index, id, reason) of images of the batch that could not be predicted; they are not in ``ids``.
        clean_seconds: the part of the own variant's time that clean-up of small regions took.
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


class BadImages:
    """The images that cannot be read or predicted, by id; any thread may add to it."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, name: str, reason: object) -> None:
        """Note why an image is left out; its first reason stands."""
        with self._lock:
            self._reasons.setdefault(name, str(reason))

    def reason(self, name: str) -> str | None:
        """Return why an image is left out, or None when it is not."""
        return self._reasons.get(name)


class Predictions(Protocol):
    """A run that is iterated over once, in this process or on a cluster.

    Attributes:
        bad: where images that cannot be predicted are noted, which are then left out; None when they are an error.
        read_seconds: processor time that reading took so far; 0 where other processes read.
    """

    bad: BadImages | None

    @property
    def read_seconds(self) -> float:
        """Return the processor time that reading took so far."""

    def __iter__(self) -> Iterator[Predicted]:
        """Yield what each batch gave, in the order of the images."""

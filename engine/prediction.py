"""What is asked of an ensemble (a variant) and what a batch gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.decode import Decoding


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

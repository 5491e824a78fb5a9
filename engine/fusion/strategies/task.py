"""The input of every strategy: one batch, its weights, its decoding, and the array for its labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.fusion.decoding import Decoding, Rule
from engine.kernels.blocks import block_of, scratch


@dataclass(frozen=True)
class Task:
    """One batch to fuse; validated by :func:`engine.fusion.fuse.fuse`.

    Attributes:
        logits: float32 (members, batch, classes, pixels), C-contiguous.
        weights: float64 (members, classes), columns summing to 1.
        decoding: bias, prior, suppression.
        labels: uint8 (batch, pixels), the result.
        ties: int64 (batch,), the result where votes can tie.
        kept: float32 (batch, classes, pixels), where the decoded scores go if somebody asks for them, else
            (1, 0, 0): scores after prior and bias, minus infinity where a class is suppressed.
    """

    logits: NDArray[np.float32]
    weights: NDArray[np.float64]
    decoding: Decoding
    labels: NDArray[np.uint8]
    ties: NDArray[np.int64]
    kept: NDArray[np.float32] = field(default_factory=lambda: np.empty((1, 0, 0), np.float32))

    @property
    def single_weights(self) -> NDArray[np.float32]:
        """Return the weights in the form that the averaging kernels use."""
        return self.weights.astype(np.float32)

    def rule(self, log_domain: bool = False) -> Rule:
        """Return the decoding for this number of classes."""
        return self.decoding.rule(self.logits.shape[2], log_domain)

    def scratch(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Return memory for a block of pixels: float32 (classes, block) scores, float32 and int32 (block,) the best."""
        classes, pixels = self.logits.shape[2:]
        block = block_of(classes, pixels)
        return scratch(classes, block), scratch(block), scratch(block, dtype=np.int32)

    def keep(self, image: int, scores: NDArray[np.float32]) -> None:
        """Take the scores of one image if somebody asks for them; for strategies in plain NumPy.

        Args:
            image: which of the batch.
            scores: float32 (classes, pixels), as :func:`engine.kernels.decode.argmax_block` leaves them.
        """
        if self.kept.shape[1]:
            rule = self.rule()
            possible = rule.allowed | (rule.threshold <= 1)
            self.kept[image] = np.where(possible[:, None], scores, -np.inf)

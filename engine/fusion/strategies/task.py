"""The input of every strategy: one batch, its weights, its decoding, and the array for its labels."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    logits: NDArray[np.float32]
    weights: NDArray[np.float64]
    decoding: Decoding
    labels: NDArray[np.uint8]
    ties: NDArray[np.int64]

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

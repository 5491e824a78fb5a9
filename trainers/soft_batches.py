"""Batches of tiles with soft targets, which turn and shift as the tile does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainers.augment import augment, policy_rng
from trainers.augment.base import Batch
from trainers.batches import Batches

#: Marks a pixel of a tile; what comes from outside it, or was cut out, has the class that fills in its place.
_INSIDE = 255
#: Digits of a pixel's place in its batch, base 256.
_DIGITS = 4


class SoftBatches(Batches):
    """The training tiles of one epoch with their soft targets behind the labels; see :class:`trainers.batches.Batches`.

    The data must have soft targets; nothing is pasted and no tile repeated.
    """

    def pixels(self, step: int) -> tuple[Batch, NDArray[np.float32]]:
        """Return images uint8 (B, H, W, C) and targets float32 (B, H, W, 1 + classes).

        With distances there are as many more maps between the class numbers and the soft targets.
        """
        images, labels = super().pixels(step)
        hard = labels[..., None] if labels.ndim == 3 else labels
        return images, np.concatenate([hard.astype(np.float32), self._soft(step)], axis=-1)

    def _soft(self, step: int) -> NDArray[np.float32]:
        """Return the soft targets of a batch, float32 (B, H, W, classes), taken from where the labels come from."""
        assert self.data.soft is not None
        chosen = self.order[step * self.config.batch_size :][: self.config.batch_size]
        soft = self.data.soft[chosen].transpose(0, 2, 3, 1)
        places, inside = self._places(step, soft.shape[:3])
        found = soft.reshape(-1, soft.shape[-1])[places].astype(np.float32)
        found[~inside] = 0
        return found

    def _places(self, step: int, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return for each pixel of an augmented batch its place in the batch before, and whether it comes from there.

        The policy draws by shape alone, so masks that hold digits of places, put through it with the same draw, tell
        where it takes labels from, whatever its transforms are.
        """
        count = np.arange(np.prod(shape), dtype="<u4").reshape(shape)
        digits = count.view(np.uint8).reshape(*shape, _DIGITS)
        # Pixels are not needed here, so the images have no channel.
        empty = np.empty((*shape, 0), np.uint8)

        def moved(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
            config = self.config
            rng = policy_rng(config.seed, self.epoch, step)
            return augment(empty, mask, config.augment, rng, config.outside)[1]

        inside = moved(np.full(shape, _INSIDE, np.uint8)) == _INSIDE
        needed = range(max(1, -(-int(count.max()).bit_length() // 8)))
        planes = [moved(np.ascontiguousarray(digits[..., digit])).astype(np.int64) << 8 * digit for digit in needed]
        places = np.sum(planes, axis=0, dtype=np.int64)
        return np.where(inside, places, 0), inside

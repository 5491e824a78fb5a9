"""The training tiles of an epoch, and tiles in the form a network takes."""

from __future__ import annotations

import math

import keras
import numpy as np
from numpy.typing import NDArray

from trainers.augment import augment, policy_rng
from trainers.augment.base import Batch
from trainers.augment.paste import RarePixels
from trainers.config import FitConfig
from trainers.contract import SCALE
from trainers.data import Dataset
from trainers.distances import signed_distances
from trainers.sampling import distinct, order_of

#: Threads that prepare batches ahead, where Keras lets them. With one, Keras on TensorFlow leaves that to a pipeline
#: that tunes itself, and which waits for its next look at itself when an epoch ends: after 5.1, 10.2 or 20.5 s. With
#: two, Keras 3.15 on other backends trains a new network on some batches twice and on others never.
WORKERS = 2


class Batches(keras.utils.PyDataset):
    """The training tiles of one epoch: chosen, shuffled and augmented by seed and epoch, scaled as the contract says.

    With ``config.repeat`` above 1 the whole epoch is augmented at once, uint8, so that identical copies can be
    dropped; otherwise each batch is augmented on request.

    Args:
        data: the training tiles.
        config: the run.
        epoch: number of the epoch, from 0.
        rare: the rare classes to paste; None finds them when the run pastes at all.
        distances: append the signed distance maps to the labels, for the boundary loss.
    """

    def __init__(
        self,
        data: Dataset,
        config: FitConfig,
        epoch: int,
        rare: RarePixels | None = None,
        distances: bool = False,
    ) -> None:
        super().__init__(workers=WORKERS if keras.backend.backend() == "tensorflow" else 1)
        self.data, self.config, self.epoch, self.distances = data, config, epoch, distances
        self.rare = rare
        if rare is None and config.paste > 0:
            self.rare = RarePixels.of(data, config.ignored_class)
        self.order = order_of(data, config, epoch)
        self.ready = self._at_once() if config.repeat > 1 else None

    @property
    def tiles(self) -> int:
        """Return the number of tiles in the epoch."""
        return len(self.order) if self.ready is None else len(self.ready[0])

    def __len__(self) -> int:
        """Return the steps of the epoch."""
        return math.ceil(self.tiles / self.config.batch_size)

    def __getitem__(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.int32] | NDArray[np.float32]]:
        """Return images float32 (B, H, W, C) and labels int32 (B, H, W), or with distances float32 (B, H, W, 1 + C)."""
        images, targets = self.pixels(step)
        if targets.dtype == np.uint8:
            return scaled(images), targets.astype(np.int32)
        return scaled(images), targets.astype(np.float32, copy=False)

    def pixels(self, step: int) -> tuple[Batch, Batch | NDArray[np.float32]]:
        """Return the images of a step before they are scaled, uint8, and its labels, uint8 unless distances follow."""
        if self.ready is None:
            images, labels = self._augmented(step)
        else:
            span = slice(step * self.config.batch_size, (step + 1) * self.config.batch_size)
            images, labels = self.ready[0][span], self.ready[1][span]
        if not self.distances:
            return images, labels
        maps = signed_distances(labels, len(self.data.class_names), self.config.class_id)
        return images, np.concatenate([labels[..., None].astype(np.float32), maps], axis=-1)

    def _augmented(self, step: int) -> tuple[Batch, Batch]:
        config = self.config
        chosen = self.order[step * config.batch_size :][: config.batch_size]
        rng = policy_rng(config.seed, self.epoch, step)
        images, labels = self.data.images[chosen], self.data.labels[chosen]
        if self.rare is not None:
            images, labels = self.rare.paste(images, labels, rng, config.paste)
        return augment(images, labels, config.augment, rng, config.outside)

    def _at_once(self) -> tuple[Batch, Batch]:
        parts = [self._augmented(step) for step in range(math.ceil(len(self.order) / self.config.batch_size))]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        kept = distinct(images, labels)
        return images[kept], labels[kept]


def scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the network's input: float32 images multiplied by the contract's scale."""
    return images.astype(np.float32) * np.float32(SCALE)

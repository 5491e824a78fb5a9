"""The training tiles of an epoch, and tiles as a network takes them."""

from __future__ import annotations

import math

import keras
import numpy as np
from numpy.typing import NDArray

from trainers.augment import augment, policy_rng
from trainers.config import FitConfig
from trainers.contract import SCALE
from trainers.data import Dataset


class Batches(keras.utils.PyDataset):
    """The training tiles of one epoch: shuffled and augmented by seed and epoch, scaled as the contract says.

    Args:
        data: the training tiles.
        config: the run.
        epoch: number of the epoch, from 0.
    """

    def __init__(self, data: Dataset, config: FitConfig, epoch: int) -> None:
        super().__init__()
        self.data, self.config, self.epoch = data, config, epoch
        self.order = np.random.default_rng((config.seed, epoch)).permutation(len(data))

    def __len__(self) -> int:
        """Return the steps of the epoch."""
        return math.ceil(len(self.data) / self.config.batch_size)

    def __getitem__(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return images float32 (B, H, W, C) and labels int32 (B, H, W)."""
        chosen = self.order[step * self.config.batch_size :][: self.config.batch_size]
        rng = policy_rng(self.config.seed, self.epoch, step)
        images, labels = augment(self.data.images[chosen], self.data.labels[chosen], self.config.augment, rng)
        return scaled(images), labels.astype(np.int32)


def scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as the network takes them: float32, multiplied by the contract's scale."""
    return images.astype(np.float32) * np.float32(SCALE)

"""The average of a network's weights over the last epochs.

P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson: Averaging Weights Leads to Wider Optima and Better
Generalization, UAI 2018.
"""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from trainers.batches import Batches
from trainers.config import FitConfig

Weights = list[NDArray[np.float32]]


def is_averaged(config: FitConfig, epoch: int) -> bool:
    """Return whether an epoch, from 0, is among the last ones whose weights are averaged."""
    return epoch >= config.epochs - config.swa


def with_epoch(average: Weights, count: int, weights: Weights) -> Weights:
    """Return the average of ``count`` epochs with the weights of another one, in float32.

    Args:
        average: the average so far; empty before the first epoch.
        count: epochs in it.
        weights: the network's weights after the next epoch.
    """
    if count == 0:
        return [np.array(value, np.float32) for value in weights]
    return [mean + (value - mean) / np.float32(count + 1) for mean, value in zip(average, weights, strict=True)]


def refresh_statistics(model: keras.Model, batches: Batches) -> None:
    """Set the statistics of batch normalisation to those of some batches under the network's present weights.

    Those that were kept while other weights were trained do not fit an average of weights.
    """
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    momenta = [layer.momentum for layer in layers]
    for step in range(len(batches) if layers else 0):
        for layer in layers:
            # The plain mean over all batches: the first one replaces what was there.
            layer.momentum = step / (step + 1)
        model(batches[step][0], training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum

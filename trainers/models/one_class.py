"""A specialist: a binary U-Net whose output is the log-odds of its class against the rest."""

from __future__ import annotations

import keras

from trainers.models.unet import PRESETS as PRESETS
from trainers.models.unet import unet


def one_class(
    input_shape: tuple[int, int, int],
    classes: int = 1,
    filters: int = 16,
    depth: int = 4,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a specialist, whatever the number of classes.

    Args:
        input_shape: (height, width, channels) of an image; both sides multiples of ``2**depth``.
        classes: not used: a specialist outputs one map.
        filters: maps of the first level; each level below has twice as many.
        depth: how often the image is halved.
        dropout: dropout rate inside each block.

    Returns:
        An uncompiled model: float32 (B, H, W, channels) to log-odds float32 (B, H, W, 1).

    Raises:
        ModelError: the sides cannot be halved ``depth`` times.
    """
    del classes
    return unet(input_shape, 1, filters, depth, dropout, name="one_class")

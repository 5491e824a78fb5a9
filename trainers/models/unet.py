"""U-Net: an encoder, a decoder, and a skip connection at every level.

O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.
Batch normalisation and `same` padding are added, so that the logits have the size of the image.
"""

from __future__ import annotations

import keras

from trainers.blocks import double_conv, down, image_input, logits_head, up

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"filters": 6, "depth": 3},
    "small": {"filters": 8, "depth": 3},
    "base": {"filters": 16, "depth": 4},
    "large": {"filters": 32, "depth": 4},
}


def unet(
    input_shape: tuple[int, int, int],
    classes: int,
    filters: int = 16,
    depth: int = 4,
    dropout: float = 0.0,
    name: str = "unet",
) -> keras.Model:
    """Build a U-Net.

    Args:
        input_shape: (height, width, channels) of an image; both sides multiples of ``2**depth``.
        classes: number of output maps.
        filters: maps of the first level; each level below has twice as many.
        depth: how often the image is halved.
        dropout: dropout rate inside each block.
        name: name of the model.

    Returns:
        An uncompiled model: float32 (B, H, W, channels) to logits float32 (B, H, W, classes).

    Raises:
        ModelError: the sides cannot be halved ``depth`` times.
    """
    image = image_input(input_shape, depth)
    x = double_conv(image, filters, "down0", dropout)
    skips = []
    for level in range(1, depth + 1):
        skips.append(x)
        x = down(x, filters * 2**level, f"down{level}", dropout)
    for level in reversed(range(depth)):
        x = up(x, [skips[level]], filters * 2**level, f"up{level}", dropout)
    return keras.Model(image, logits_head(x, classes), name=name)

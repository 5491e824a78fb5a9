"""Residual attention U-Net: residual blocks with squeeze-and-excitation, dilated pooling, attention gates on the skips.

It combines the strongest parts of published work on rover terrain: the residual U-Net (Z. Zhang, Q. Liu, Y. Wang: Road
Extraction by Deep Residual U-Net, GRSL 2018), the attention gate (O. Oktay et al., MIDL 2018), squeeze-and-excitation
(J. Hu et al., CVPR 2018) and atrous spatial pyramid pooling (L.-C. Chen et al., 2017).
"""

from __future__ import annotations

import keras

from trainers.blocks import (
    gated_join,
    image_input,
    logits_head,
    pyramid_pooling,
    residual_conv,
    residual_encoder,
)

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"filters": 6, "depth": 2},
    "small": {"filters": 8, "depth": 3},
    "base": {"filters": 16, "depth": 4},
    "large": {"filters": 32, "depth": 4},
}


def residual_attention_unet(
    input_shape: tuple[int, int, int],
    classes: int,
    filters: int = 16,
    depth: int = 4,
    dropout: float = 0.0,
    squeeze: bool = True,
) -> keras.Model:
    """Build a residual attention U-Net.

    Args:
        input_shape: (height, width, channels) of an image; both sides multiples of ``2**depth``.
        classes: number of output maps.
        filters: maps of the first level; each level below has twice as many.
        depth: how often the image is halved.
        dropout: dropout rate inside each block.
        squeeze: use squeeze-and-excitation in each block.

    Returns:
        An uncompiled model: float32 (B, H, W, channels) to logits float32 (B, H, W, classes).

    Raises:
        ModelError: the sides cannot be halved ``depth`` times.
    """
    image = image_input(input_shape, depth)
    x, skips = residual_encoder(image, filters, depth, dropout, squeeze)
    x = pyramid_pooling(x, filters * 2**depth, "pyramid")
    for level in reversed(range(depth)):
        maps = filters * 2**level
        x = gated_join(x, skips[level], maps, f"up{level}")
        x = residual_conv(x, maps, f"up{level}", dropout, squeeze)
    return keras.Model(image, logits_head(x, classes), name="residual_attention_unet")

"""Double U-Net: a second U-Net sees the image multiplied by the mask of the first.

D. Jha, M. A. Riegler, D. Johansen, P. Halvorsen, H. D. Johansen: DoubleU-Net: A Deep Convolutional Neural Network for
Medical Image Segmentation, CBMS 2020. Both encoders are trained from scratch; the first mask has one map per class, so
the image is projected to as many maps before they are multiplied, and is also concatenated: a wrong first mask can be
corrected.
"""

from __future__ import annotations

import keras
from keras import KerasTensor, layers

from engine.errors import PlanError
from trainers.blocks import double_conv, double_size, image_input, logits_head, pyramid_pooling, squeeze_excite

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"filters": 4, "depth": 2},
    "small": {"filters": 6, "depth": 3},
    "base": {"filters": 16, "depth": 4},
    "large": {"filters": 32, "depth": 4},
}
STAGES = ("first", "second", "whole")
#: Layers of the first U-Net; a network of stage ``first`` has only these, under the same names.
FIRST = "first_"


def double_unet(
    input_shape: tuple[int, int, int],
    classes: int,
    filters: int = 16,
    depth: int = 4,
    dropout: float = 0.0,
    squeeze: bool = True,
    stage: str = "whole",
) -> keras.Model:
    """Build a Double U-Net, or its first half.

    Args:
        input_shape: (height, width, channels) of an image; both sides multiples of ``2**depth``.
        classes: number of output maps.
        filters: maps of the first level; each level below has twice as many.
        depth: how often the image is halved.
        dropout: dropout rate inside each block.
        squeeze: use squeeze-and-excitation in each block.
        stage: ``whole`` and ``second`` build both U-Nets, ``first`` only the first; how they are trained differs.

    Returns:
        An uncompiled model: float32 (B, H, W, channels) to logits float32 (B, H, W, classes).

    Raises:
        ModelError: the sides cannot be halved ``depth`` times.
        PlanError: there is no such stage.
    """
    if stage not in STAGES:
        raise PlanError(f"stage: {stage!r} is unknown; choose one of {', '.join(STAGES)}")
    image = image_input(input_shape, depth)
    skips, x = _encode(image, filters, depth, FIRST, dropout, squeeze)
    x = _decode(x, [[skip] for skip in skips], filters, FIRST, dropout, squeeze)
    first = logits_head(x, classes, f"{FIRST}logits")
    if stage == "first":
        return keras.Model(image, first, name="double_unet_first")
    gated = _gate(image, first, classes)
    deeper, x = _encode(gated, filters, depth, "second_", dropout, squeeze)
    both = [list(pair) for pair in zip(skips, deeper, strict=True)]
    x = _decode(x, both, filters, "second_", dropout, squeeze)
    x = layers.Concatenate(name="masks_join")([x, first])
    return keras.Model(image, logits_head(x, classes), name="double_unet")


def _gate(image: KerasTensor, logits: KerasTensor, classes: int) -> KerasTensor:
    """Multiply the image, projected to one map per class, with the first mask; concatenate the image itself."""
    mask = layers.Activation("sigmoid", name="gate_mask")(logits)
    maps = layers.Conv2D(classes, 1, use_bias=False, name="gate_image")(image)
    return layers.Concatenate(name="gate_join")([image, layers.Multiply(name="gate_masked")([maps, mask])])


def _block(x: KerasTensor, filters: int, name: str, dropout: float, squeeze: bool) -> KerasTensor:
    x = double_conv(x, filters, name, dropout)
    return squeeze_excite(x, f"{name}_se") if squeeze else x


def _encode(
    x: KerasTensor, filters: int, depth: int, prefix: str, dropout: float, squeeze: bool
) -> tuple[list[KerasTensor], KerasTensor]:
    """Return the skips, the finest first, and the pooled pyramid of the last level."""
    x = _block(x, filters, f"{prefix}down0", dropout, squeeze)
    skips = []
    for level in range(1, depth + 1):
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"{prefix}down{level}_pool")(x)
        x = _block(x, filters * 2**level, f"{prefix}down{level}", dropout, squeeze)
    return skips, pyramid_pooling(x, filters * 2**depth, f"{prefix}pyramid")


def _decode(
    x: KerasTensor, skips: list[list[KerasTensor]], filters: int, prefix: str, dropout: float, squeeze: bool
) -> KerasTensor:
    for level in reversed(range(len(skips))):
        maps = filters * 2**level
        x = double_size(x, maps, f"{prefix}up{level}_up")
        x = layers.Concatenate(name=f"{prefix}up{level}_join")([*skips[level], x])
        x = _block(x, maps, f"{prefix}up{level}", dropout, squeeze)
    return x


def first_logits(model: keras.Model, classes: int) -> list[KerasTensor]:
    """Return the logits of the first U-Net: if both are trained at once, its mask is supervised too."""
    del classes
    return [model.get_layer(f"{FIRST}logits").output]

"""Pyramid Attention Network: attention over several scales at the bottleneck, global attention up the decoder.

H. Li, P. Xiong, J. An, L. Wang: Pyramid Attention Network for Semantic Segmentation, BMVC 2018. The encoder is a
residual one trained from scratch, with squeeze-and-excitation and dropout as options; the decoder continues to the full
size, since objects in small tiles are few pixels wide.
"""

from __future__ import annotations

import keras
from keras import KerasTensor, layers

from trainers.blocks import conv_bn_relu, image_input, logits_head, residual_encoder

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"filters": 6, "depth": 2},
    "small": {"filters": 12, "depth": 3},
    "base": {"filters": 24, "depth": 3},
    "large": {"filters": 48, "depth": 3},
}
#: Kernels of the pyramid, the finest level first.
KERNELS = (7, 5, 3)


def pan(
    input_shape: tuple[int, int, int],
    classes: int,
    filters: int = 24,
    depth: int = 3,
    dropout: float = 0.0,
    squeeze: bool = True,
) -> keras.Model:
    """Build a Pyramid Attention Network.

    Args:
        input_shape: (height, width, channels) of an image; both sides multiples of ``2**depth``.
        classes: number of output maps.
        filters: maps of the first level; each level below has twice as many.
        depth: how often the image is halved before the pyramid.
        dropout: dropout rate inside each block.
        squeeze: use squeeze-and-excitation in each block.

    Returns:
        An uncompiled model: float32 (B, H, W, channels) to logits float32 (B, H, W, classes).

    Raises:
        ModelError: the sides cannot be halved ``depth`` times.
    """
    image = image_input(input_shape, depth)
    x, skips = residual_encoder(image, filters, depth, dropout, squeeze)
    x = pyramid_attention(x, filters * 2 ** (depth - 1), "pyramid")
    for level in reversed(range(depth)):
        x = attention_up(x, skips[level], filters * 2 ** max(level - 1, 0), f"up{level}")
    return keras.Model(image, logits_head(x, classes), name="pan")


def pyramid_attention(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """Weight a 1x1 convolution by a pyramid of 7x7, 5x5 and 3x3 ones on ever smaller maps, and add the global mean.

    The pyramid has as many levels, three at most, as the sides can be halved; without any only the mean is added.
    """
    point = conv_bn_relu(x, filters, f"{name}_point", kernel=1)
    sides, maps = (int(x.shape[1]), int(x.shape[2])), x
    levels = []
    for kernel in KERNELS:
        if sides[0] % 2 or sides[1] % 2:
            break
        sides = (sides[0] // 2, sides[1] // 2)
        maps = layers.MaxPooling2D(2, name=f"{name}_pool{kernel}")(maps)
        maps = conv_bn_relu(maps, filters, f"{name}_down{kernel}", kernel)
        levels.append((kernel, maps))
    attention = None
    for kernel, level in reversed(levels):
        here = conv_bn_relu(level, filters, f"{name}_side{kernel}", kernel)
        joined = here if attention is None else layers.Add(name=f"{name}_add{kernel}")([here, attention])
        attention = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up{kernel}")(joined)
    weighed = point if attention is None else layers.Multiply(name=f"{name}_weighed")([point, attention])
    whole = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    # No batch normalisation on one value per image: its statistics would depend on the batch size.
    whole = layers.Conv2D(filters, 1, activation="relu", kernel_initializer="he_normal", name=f"{name}_whole")(whole)
    return layers.Add(name=f"{name}_sum")([weighed, whole])


def attention_up(high: KerasTensor, low: KerasTensor, filters: int, name: str) -> KerasTensor:
    """Global attention upsample: the mean of the coarse maps weights the fine ones, then the coarse ones are added."""
    fine = conv_bn_relu(low, filters, f"{name}_fine")
    weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(high)
    weight = layers.Conv2D(filters, 1, activation="sigmoid", name=f"{name}_weight")(weight)
    fine = layers.Multiply(name=f"{name}_weighed")([fine, weight])
    coarse = conv_bn_relu(high, filters, f"{name}_coarse", kernel=1)
    coarse = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")(coarse)
    return conv_bn_relu(layers.Add(name=f"{name}_sum")([fine, coarse]), filters, f"{name}_out")

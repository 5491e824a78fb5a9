"""A U-Net with a VGG-style encoder, a transformer as the bottleneck and attention gates on the skips.

Encoder after K. Simonyan, A. Zisserman: Very Deep Convolutional Networks, ICLR 2015, trained from scratch with batch
normalisation; transformer after A. Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021; gates after O. Oktay
et al.: Attention U-Net, MIDL 2018. Positions are encoded by a depthwise convolution (X. Chu et al.: Conditional
Positional Encodings for Vision Transformers, ICLR 2023): it is learned, a stock layer, and works for any size.
"""

from __future__ import annotations

import keras
from keras import KerasTensor, layers

from trainers.blocks import conv_bn_relu, double_conv, down, gated_join, image_input, logits_head

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"filters": 8, "depth": 2, "blocks": 1, "heads": 2},
    "small": {"filters": 8, "depth": 3, "blocks": 2, "heads": 4},
    "base": {"filters": 16, "depth": 4, "blocks": 4, "heads": 4},
    "large": {"filters": 32, "depth": 4, "blocks": 6, "heads": 8},
}


def transformer_unet(
    input_shape: tuple[int, int, int],
    classes: int,
    filters: int = 16,
    depth: int = 4,
    dropout: float = 0.0,
    blocks: int = 4,
    heads: int = 4,
) -> keras.Model:
    """Build a U-Net with a transformer bottleneck.

    Args:
        input_shape: (height, width, channels) of an image; both sides multiples of ``2**depth``.
        classes: number of output maps.
        filters: maps of the first level; each level below has twice as many.
        depth: how often the image is halved; every position of the last level is one token.
        dropout: dropout rate inside each convolution block and inside the transformer.
        blocks: transformer blocks.
        heads: attention heads of each; they share the ``filters * 2**depth`` maps evenly.

    Returns:
        An uncompiled model: float32 (B, H, W, channels) to logits float32 (B, H, W, classes).

    Raises:
        ModelError: the sides cannot be halved ``depth`` times.
    """
    image = image_input(input_shape, depth)
    x = double_conv(image, filters, "stage0", dropout)
    skips = []
    for level in range(1, depth + 1):
        skips.append(x)
        x = down(x, filters * 2**level, f"stage{level}", dropout)
        if level >= 2:  # VGG-16: two convolutions in the first stages, three below
            x = conv_bn_relu(x, filters * 2**level, f"stage{level}_c")
    x = bottleneck(x, blocks, heads, dropout, "tokens")
    for level in reversed(range(depth)):
        maps = filters * 2**level
        x = double_conv(gated_join(x, skips[level], maps, f"up{level}"), maps, f"up{level}", dropout)
    return keras.Model(image, logits_head(x, classes), name="transformer_unet")


def bottleneck(x: KerasTensor, blocks: int, heads: int, dropout: float, name: str) -> KerasTensor:
    """Reshape maps (B, H, W, C) to H x W tokens, apply self-attention, and reshape them back."""
    height, width, maps = (int(side) for side in x.shape[1:])
    place = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_place")(x)
    x = layers.Add(name=f"{name}_placed")([x, place])
    x = layers.Reshape((height * width, maps), name=f"{name}_flat")(x)
    for block in range(blocks):
        x = transformer_block(x, heads, dropout, f"{name}{block}")
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    return layers.Reshape((height, width, maps), name=f"{name}_maps")(x)


def transformer_block(x: KerasTensor, heads: int, dropout: float, name: str) -> KerasTensor:
    """Add self-attention, then a two-layer perceptron, each to its normalised input (pre-norm)."""
    maps = int(x.shape[-1])
    seen = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    attention = layers.MultiHeadAttention(heads, max(maps // heads, 1), dropout=dropout, name=f"{name}_attention")
    x = layers.Add(name=f"{name}_sum1")([x, attention(seen, seen)])
    hidden = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    # SiLU where the paper has GELU: close to it, and ONNX has operators for it.
    hidden = layers.Dense(2 * maps, activation="silu", name=f"{name}_wide")(hidden)
    if dropout > 0:
        hidden = layers.Dropout(dropout, name=f"{name}_drop")(hidden)
    return layers.Add(name=f"{name}_sum2")([x, layers.Dense(maps, name=f"{name}_narrow")(hidden)])

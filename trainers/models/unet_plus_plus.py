"""U-Net++: every skip of a U-Net becomes a dense row of convolutions.

Z. Zhou, M. M. R. Siddiquee, N. Tajbakhsh, J. Liang: UNet++: A Nested U-Net Architecture for Medical Image Segmentation,
DLMIA 2018.
"""

from __future__ import annotations

import keras
from keras import KerasTensor

from trainers.blocks import double_conv, down, image_input, logits_head, up

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"filters": 4, "depth": 3},
    "small": {"filters": 8, "depth": 3},
    "base": {"filters": 16, "depth": 4},
    "large": {"filters": 32, "depth": 4},
}


def unet_plus_plus(
    input_shape: tuple[int, int, int],
    classes: int,
    filters: int = 16,
    depth: int = 4,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a U-Net++.

    Node (level, step) concatenates all earlier nodes of its level with the up-sampled node (level + 1, step - 1); the
    head reads the last node of level 0. Deep supervision trains a head on every other node of level 0 as well, see
    :func:`deep_heads`; the network itself is the same either way.

    Args:
        input_shape: (height, width, channels) of an image; both sides multiples of ``2**depth``.
        classes: number of output maps.
        filters: maps of the first level; each level below has twice as many.
        depth: how often the image is halved.
        dropout: dropout rate inside each block.

    Returns:
        An uncompiled model: float32 (B, H, W, channels) to logits float32 (B, H, W, classes).

    Raises:
        ModelError: the sides cannot be halved ``depth`` times.
    """
    image = image_input(input_shape, depth)
    rows = [[double_conv(image, filters, "node0_0", dropout)]]
    for level in range(1, depth + 1):
        rows.append([down(rows[-1][0], filters * 2**level, f"node{level}_0", dropout)])
        # Walk up the diagonal that the new level adds.
        for above in reversed(range(level)):
            step = level - above
            node = up(rows[above + 1][step - 1], rows[above], filters * 2**above, f"node{above}_{step}", dropout)
            rows[above].append(node)
    return keras.Model(image, logits_head(rows[0][-1], classes), name="unet_plus_plus")


def deep_heads(model: keras.Model, classes: int) -> list[KerasTensor]:
    """Return logits of the inner nodes of level 0 for deep supervision: training-only heads.

    They are pruned by removal: the saved network ends in the head of the last node.

    Args:
        model: the model built by :func:`unet_plus_plus`.
        classes: maps of each head.
    """
    names = {layer.name for layer in model.layers}
    steps = range(1, len(names))
    inner = [f"node0_{step}_b_relu" for step in steps if f"node0_{step + 1}_b_relu" in names]
    return [logits_head(model.get_layer(name).output, classes, f"deep_{name[:7]}") for name in inner]

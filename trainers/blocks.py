"""The blocks every architecture is made of: stock Keras layers alone, so a saved network loads anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from engine.errors import ModelError

# The default of 0.99 lags hundreds of steps behind the weights: a short run on few tiles would be scored with stale
# means.
_MOMENTUM = 0.9


def conv_bn_relu(x: KerasTensor, filters: int, name: str, kernel: int = 3) -> KerasTensor:
    """Convolve with `same` padding, normalise the batch, rectify."""
    x = layers.Conv2D(
        filters, kernel, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def double_conv(x: KerasTensor, filters: int, name: str, dropout: float = 0.0) -> KerasTensor:
    """Apply two convolutions of ``filters`` maps, with whole maps dropped between them at the rate ``dropout``."""
    x = conv_bn_relu(x, filters, f"{name}_a")
    if dropout > 0:
        x = layers.SpatialDropout2D(dropout, name=f"{name}_drop")(x)
    return conv_bn_relu(x, filters, f"{name}_b")


def down(x: KerasTensor, filters: int, name: str, dropout: float = 0.0) -> KerasTensor:
    """Halve height and width by max pooling, then :func:`double_conv`."""
    return double_conv(layers.MaxPooling2D(2, name=f"{name}_pool")(x), filters, name, dropout)


def up(x: KerasTensor, skips: Sequence[KerasTensor], filters: int, name: str, dropout: float = 0.0) -> KerasTensor:
    """Double height and width by a learned 2x2 up-convolution, join the skips, then :func:`double_conv`."""
    x = layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer="he_normal", name=f"{name}_up")(x)
    x = layers.Concatenate(name=f"{name}_join")([*skips, x])
    return double_conv(x, filters, name, dropout)


def logits_head(x: KerasTensor, maps: int, name: str = "logits") -> KerasTensor:
    """Project to ``maps`` logits a pixel, float32 whatever precision the network computes in."""
    return layers.Conv2D(maps, 1, dtype="float32", name=name)(x)


def require_divisible(height: int, width: int, depth: int) -> None:
    """Check that both sides can be halved ``depth`` times.

    Raises:
        ModelError: they cannot; the message names the nearest sizes that can.
    """
    step = 2**depth
    if height % step == 0 and width % step == 0 and min(height, width) > 0:
        return
    nearest = " or ".join(
        f"{_round(height, step, way)}x{_round(width, step, way)}"
        for way in (0, 1)
        if min(_round(height, step, way), _round(width, step, way)) > 0
    )
    raise ModelError(
        f"tiles of {height}x{width} cannot be halved {depth} times: both sides must be multiples of {step}; "
        f"cut or pad to {nearest}, or take a preset of less depth"
    )


def _round(side: int, step: int, way: int) -> int:
    """Return ``side`` itself when it fits, else the multiple of ``step`` below (way 0) or above (way 1)."""
    return side if side % step == 0 else (side // step + way) * step

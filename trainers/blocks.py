"""The building blocks of all architectures: stock Keras layers only, so a saved network loads anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from keras import Input, KerasTensor, layers

from engine.errors import ModelError

# The default of 0.99 lags hundreds of steps behind the weights: a short run on few tiles would be scored with stale
# means.
_MOMENTUM = 0.9


def conv_bn_relu(x: KerasTensor, filters: int, name: str, kernel: int = 3, dilation: int = 1) -> KerasTensor:
    """Convolve with `same` padding, normalise the batch, rectify."""
    x = layers.Conv2D(
        filters,
        kernel,
        padding="same",
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def double_conv(x: KerasTensor, filters: int, name: str, dropout: float = 0.0) -> KerasTensor:
    """Apply two convolutions of ``filters`` maps, with spatial dropout between them at the rate ``dropout``."""
    x = conv_bn_relu(x, filters, f"{name}_a")
    if dropout > 0:
        x = layers.SpatialDropout2D(dropout, name=f"{name}_drop")(x)
    return conv_bn_relu(x, filters, f"{name}_b")


def down(x: KerasTensor, filters: int, name: str, dropout: float = 0.0) -> KerasTensor:
    """Halve height and width by max pooling, then :func:`double_conv`."""
    return double_conv(layers.MaxPooling2D(2, name=f"{name}_pool")(x), filters, name, dropout)


def up(x: KerasTensor, skips: Sequence[KerasTensor], filters: int, name: str, dropout: float = 0.0) -> KerasTensor:
    """Double height and width by a learned 2x2 up-convolution, join the skips, then :func:`double_conv`."""
    x = layers.Concatenate(name=f"{name}_join")([*skips, double_size(x, filters, f"{name}_up")])
    return double_conv(x, filters, name, dropout)


def double_size(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """Double height and width by a learned 2x2 up-convolution."""
    return layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer="he_normal", name=name)(x)


def squeeze_excite(x: KerasTensor, name: str, ratio: int = 4) -> KerasTensor:
    """Reweight the maps by their global means (J. Hu et al.: Squeeze-and-Excitation Networks, CVPR 2018).

    Args:
        x: maps (B, H, W, C).
        name: prefix of the layers' names.
        ratio: how many times fewer values the squeezed vector has; it keeps 4 at least.
    """
    filters = int(x.shape[-1])
    weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    squeezed = max(filters // ratio, min(filters, 4))
    weight = layers.Conv2D(squeezed, 1, activation="relu", name=f"{name}_squeeze")(weight)
    weight = layers.Conv2D(filters, 1, activation="sigmoid", name=f"{name}_excite")(weight)
    return layers.Multiply(name=f"{name}_scale")([x, weight])


def residual_conv(x: KerasTensor, filters: int, name: str, dropout: float = 0.0, squeeze: bool = False) -> KerasTensor:
    """Add two convolutions to their input, projected where the number of maps differs (K. He et al., CVPR 2016)."""
    shortcut = x
    if int(x.shape[-1]) != filters:
        shortcut = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_project")(x)
    x = double_conv(x, filters, name, dropout)
    if squeeze:
        x = squeeze_excite(x, f"{name}_se")
    return layers.Add(name=f"{name}_sum")([shortcut, x])


def residual_encoder(
    image: KerasTensor, filters: int, depth: int, dropout: float = 0.0, squeeze: bool = False
) -> tuple[KerasTensor, list[KerasTensor]]:
    """Halve an image ``depth`` times through residual blocks, each level with twice the maps of the one above.

    Returns:
        The maps of the lowest level, and those of every level above it, the finest first.
    """
    x = residual_conv(image, filters, "down0", dropout, squeeze)
    skips = []
    for level in range(1, depth + 1):
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
        x = residual_conv(x, filters * 2**level, f"down{level}", dropout, squeeze)
    return x, skips


def attention_gate(skip: KerasTensor, signal: KerasTensor, filters: int, name: str) -> KerasTensor:
    """Weight each pixel of a skip by the decoder's signal.

    O. Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018. The signal comes in at the
    size of the skip, after the up-convolution, so the weights need no resampling.

    Args:
        skip: maps of the encoder (B, H, W, C).
        signal: maps of the decoder (B, H, W, any).
        filters: maps that both are projected to before they are added.
        name: prefix of the layers' names.
    """
    both = layers.Add(name=f"{name}_add")(
        [
            layers.Conv2D(filters, 1, kernel_initializer="he_normal", name=f"{name}_skip")(skip),
            layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_signal")(signal),
        ]
    )
    both = layers.Activation("relu", name=f"{name}_relu")(both)
    weight = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_weight")(both)
    return layers.Multiply(name=f"{name}_gated")([skip, weight])


def pyramid_pooling(x: KerasTensor, filters: int, name: str, rates: Sequence[int] = (1, 2, 4)) -> KerasTensor:
    """Sample several scales at once: a 1x1 and dilated convolutions and the global mean, concatenated.

    L.-C. Chen et al.: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (ASPP). The rates are small:
    the maps of a 64x128 tile are 4x8 where this is used.
    """
    branches = [conv_bn_relu(x, filters, f"{name}_point", kernel=1)]
    branches += [conv_bn_relu(x, filters, f"{name}_rate{rate}", dilation=rate) for rate in rates]
    joined = layers.Concatenate(name=f"{name}_join")(branches)
    out = conv_bn_relu(joined, filters, f"{name}_out", kernel=1)
    whole = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    # One value per map for the whole image: no batch statistics over it, and the sum spreads it over all pixels.
    whole = layers.Conv2D(filters, 1, activation="relu", kernel_initializer="he_normal", name=f"{name}_whole")(whole)
    return layers.Add(name=f"{name}_sum")([out, whole])


def gated_join(x: KerasTensor, skip: KerasTensor, filters: int, name: str) -> KerasTensor:
    """Double height and width, and join the skip as :func:`attention_gate` weighs it."""
    x = double_size(x, filters, f"{name}_up")
    skip = attention_gate(skip, x, max(filters // 2, 1), f"{name}_gate")
    return layers.Concatenate(name=f"{name}_join")([skip, x])


def logits_head(x: KerasTensor, maps: int, name: str = "logits") -> KerasTensor:
    """Project to ``maps`` logits per pixel, in float32 whatever the network's compute precision."""
    return layers.Conv2D(maps, 1, dtype="float32", name=name)(x)


def image_input(shape: tuple[int, int, int], depth: int) -> KerasTensor:
    """Return the input of a network that halves its images ``depth`` times.

    Args:
        shape: (height, width, channels) of an image.
        depth: how often it is halved.

    Raises:
        ModelError: the sides cannot be halved so often; the message names the nearest sizes that can.
    """
    require_divisible(shape[0], shape[1], depth)
    return Input(shape, name="image")


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
        f"cut or pad to {nearest}, or take a shallower preset"
    )


def _round(side: int, step: int, way: int) -> int:
    """Return ``side`` itself when it fits, else the multiple of ``step`` below (way 0) or above (way 1)."""
    return side if side % step == 0 else (side // step + way) * step

"""From raw images to what a graph takes: channels, size, scaling, axes and element type, in this order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, option
from engine.models.adapt.channels import arranged
from engine.models.adapt.size import Size, next_multiple, padded, resized
from engine.models.contract import ModelContract
from engine.utils.sides import told_size


def input_size(contract: ModelContract, size: Size) -> Size:
    """Return the (height, width) of the graph's input for images of a size.

    For a net of a fixed size that images are padded to, the sides are multiples of its own: larger images are run
    window by window.

    Raises:
        InputError: the net takes one size alone and nothing says how others are brought to it.
    """
    fixed = contract.size
    if fixed is None:
        return next_multiple(size, contract.stride)
    if fixed == size or contract.fit == "resize":
        return fixed
    if contract.fit == "pad":
        return (-(-size[0] // fixed[0]) * fixed[0], -(-size[1] // fixed[1]) * fixed[1])
    raise InputError(f"images are {told_size(size)}, {other_sizes(fixed)}")


def other_sizes(fixed: Size) -> str:
    """Say what can be done about images that are not of a net's one size."""
    own = told_size(fixed)
    return (
        f"it takes {own} alone: add {option('fit', 'resize')} (images to {own}, its maps back), "
        f"{option('fit', 'pad')} (mirrored to multiples of {own}, window by window, cut back) or "
        f"--tile {own} of engine ensemble (overlapping tiles, blended)"
    )


def prepare(contract: ModelContract, kind: str, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return a graph's input for raw images.

    Args:
        contract: layout, channels, size and scaling.
        kind: the input's element type: ``float32``, ``float16``, ``float64`` or ``uint8``.
        pixels: raw images (batch, height, width, channels).

    Returns:
        C-contiguous, in the contract's layout.

    Raises:
        InputError: a size or type that the net does not take.
    """
    repeat = contract.channels if contract.grey_as_rgb else 1
    pixels = arranged(pixels, contract.bands, contract.channel_order == "bgr", repeat)
    size = input_size(contract, (pixels.shape[1], pixels.shape[2]))
    stretch = contract.fit == "resize" and size != pixels.shape[1:3]
    if not stretch:
        pixels = padded(pixels, size)
    if kind == "uint8":
        if pixels.dtype not in (np.uint8, np.bool_):
            raise InputError(f"images hold {pixels.dtype}; the net takes raw uint8 pixels: convert them to 8 bit")
        scaled = pixels.astype(np.float32) if stretch else pixels
    else:
        scaled = _scaled(contract, pixels)
    if stretch:
        planes = resized(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)), size)
        scaled = (np.rint(planes) if kind == "uint8" else planes).transpose(0, 2, 3, 1)
    if contract.input_layout == "NCHW":
        scaled = scaled.transpose(0, 3, 1, 2)
    with np.errstate(over="ignore"):  # float16: as above
        return np.ascontiguousarray(scaled, dtype=kind)


def _scaled(contract: ModelContract, pixels: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinity shows in the logits and is refused there, by name
        scaled = pixels.astype(np.float32)
    if contract.scale != 1.0:
        scaled *= np.float32(contract.scale)
    if any(contract.mean):
        scaled -= np.asarray(contract.mean, np.float32)
    if contract.std != (1.0,):
        scaled /= np.asarray(contract.std, np.float32)
    return scaled

"""Images of a size that a net does not take: sides padded to a stride, padded or resized to a fixed size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels.resize import axis_weights, resize_bilinear

Size = tuple[int, int]


def mirrored(positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return positions of any size inside 0..length-1, mirrored at the first and the last pixel."""
    if length == 1:
        return np.zeros_like(positions)
    period = 2 * (length - 1)
    folded = positions % period
    return np.minimum(folded, period - folded)


def next_multiple(size: Size, stride: int) -> Size:
    """Return the smallest (height, width) not below ``size`` whose sides ``stride`` divides."""
    return (-(-size[0] // stride) * stride, -(-size[1] // stride) * stride)


def padded(pixels: NDArray, size: Size) -> NDArray:
    """Return images (batch, height, width, channels) mirrored at the lower and the right edge up to ``size``."""
    _, height, width, _ = pixels.shape
    if (height, width) == size:
        return pixels
    rows, columns = (mirrored(np.arange(to), side) for to, side in zip(size, (height, width), strict=True))
    return pixels[:, rows[:, None], columns[None, :]]


def resized(planes: NDArray[np.float32], size: Size, cut: Size | None = None) -> NDArray[np.float32]:
    """Return planes resized bilinearly, half-pixel; see :func:`engine.kernels.resize.axis_weights`.

    Args:
        planes: float32 (..., height, width), C-contiguous.
        size: (height, width) they are resized to.
        cut: (height, width) of the upper left part that is computed; None for all of it.

    Returns:
        float32 (..., *cut).
    """
    out = np.empty((*planes.shape[:-2], *(cut or size)), np.float32)
    resize_into(out, planes, size)
    return out


def resize_into(out: NDArray[np.float32], planes: NDArray[np.float32], size: Size) -> None:
    """Resize as :func:`resized` into ``out``, float32 (..., height, width), which holds the upper left part."""
    height, width = out.shape[-2:]
    rows, row_weights = axis_weights(planes.shape[-2], size[0], height)
    columns, column_weights = axis_weights(planes.shape[-1], size[1], width)
    flat = planes.reshape(-1, *planes.shape[-2:])
    wide = np.empty((2, width), np.float32)
    resize_bilinear(out.reshape(-1, height, width), flat, rows, row_weights, columns, column_weights, wide)


def nearest(length: int, to: int) -> NDArray[np.int64]:
    """Return which of ``length`` pixels of a side is nearest to each of the ``to`` pixels of that side: int64 (to,)."""
    # In whole numbers: a centre on the edge of two pixels must not fall to one or the other by rounding.
    return (2 * np.arange(to) + 1) * length // (2 * to)


def nearest_into(out: NDArray, maps: NDArray, size: Size) -> None:
    """Resize maps (..., height, width) to the nearest pixel into the upper left part ``out`` of ``size``."""
    height, width = out.shape[-2:]
    rows, columns = nearest(maps.shape[-2], size[0])[:height], nearest(maps.shape[-1], size[1])[:width]
    np.copyto(out, maps[..., rows[:, None], columns[None, :]])


def windows(images: NDArray, size: Size) -> NDArray:
    """Cut images (batch, channels, height, width) whose sides ``size`` divides into windows of it, row by row.

    Returns:
        (batch times windows, channels, *size).
    """
    down, across = images.shape[2] // size[0], images.shape[3] // size[1]
    cut = images.reshape(*images.shape[:2], down, size[0], across, size[1]).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, images.shape[1], *size)


def joined(maps: NDArray, down: int, across: int) -> NDArray:
    """Put the maps (batch times windows, maps, height, width) of windows together, ``down`` times ``across`` each."""
    count, height, width = maps.shape[1:]
    whole = maps.reshape(-1, down, across, count, height, width).transpose(0, 3, 1, 4, 2, 5)
    return whole.reshape(-1, count, down * height, across * width)


def whole_reduction(image: Size, maps: Size) -> bool:
    """Return whether maps are of an image's size, or reduced by one factor that divides both sides."""
    factor = image[0] // max(maps[0], 1)
    return 1 <= factor <= 64 and (maps[0] * factor, maps[1] * factor) == image


def reduction(image: Size, maps: Size) -> bool:
    """Return whether maps can be an image's: of its size, reduced by one whole factor, or enlarged by one.

    A side that the factor does not divide may be rounded down or up, as strided and padded convolutions do.
    """
    if whole_reduction(image, maps):
        return True
    for factor in range(2, 65):
        down = all(side // factor <= got <= -(-side // factor) and got for side, got in zip(image, maps, strict=True))
        up = all(side * factor == got for side, got in zip(image, maps, strict=True))
        if down or (up and factor <= 16):
            return True
    return False

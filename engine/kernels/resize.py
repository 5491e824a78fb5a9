"""Planes enlarged or reduced bilinearly, at memory speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels.jit import kernel


def axis_weights(source: int, target: int, kept: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the two pixels of an axis between which each target pixel lies, and its distance from the first.

    The convention is half-pixel: pixel i covers i..i+1, so its centre is i + 0.5. The same as ONNX Resize with
    ``half_pixel``, of ``torch.nn.functional.interpolate`` without ``align_corners``, and of OpenCV.

    Args:
        source: number of pixels of the axis.
        target: number of pixels after resizing.
        kept: number of those to compute, from the first on.

    Returns:
        int64 (kept,), the first of the two pixels; float32 (kept,), 0 for the first pixel and 1 for the next.
    """
    place = np.maximum((np.arange(kept) + 0.5) * (source / target) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), source - 1)
    return first, np.where(first < source - 1, place - first, 0).astype(np.float32)


@kernel
def resize_bilinear(out, source, rows, row_weights, columns, column_weights, wide):  # type: ignore[no-untyped-def]
    """Set ``out`` to ``source`` resized; each source row is widened once, each target row is one pass over two of them.

    Args:
        out: float32 (planes, height, width).
        source: float32 (planes, source height, source width).
        rows: int64 (height,), see :func:`axis_weights`.
        row_weights: float32 (height,).
        columns: int64 (width,).
        column_weights: float32 (width,).
        wide: float32 (2, width), scratch.
    """
    planes, height, width = out.shape
    last_row, last_column = source.shape[1] - 1, source.shape[2] - 1
    for plane in range(planes):
        at = np.int64(-1)
        for i in range(height):
            first = rows[i]
            second = min(first + 1, last_row)
            if first != at:
                for k in range(2):
                    own = first if k == 0 else second
                    # The lower row of the previous pair is the upper row of the next pair.
                    if k == 0 and at >= 0 and first == at + 1:
                        for j in range(width):
                            wide[0, j] = wide[1, j]
                        continue
                    for j in range(width):
                        left = columns[j]
                        right = min(left + 1, last_column)
                        value = source[plane, own, left]
                        wide[k, j] = value + column_weights[j] * (source[plane, own, right] - value)
                at = first
            weight = row_weights[i]
            upper, lower, row = wide[0], wide[1], out[plane, i]
            for j in range(width):
                row[j] = upper[j] + weight * (lower[j] - upper[j])

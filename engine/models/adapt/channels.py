"""Channels as a net wants them: bands picked and ordered, RGB turned to BGR, grey repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def arranged(pixels: NDArray, bands: Sequence[int], reverse: bool, repeat: int) -> NDArray:
    """Return images with the channels that a net takes.

    Args:
        pixels: raw images (batch, height, width, channels).
        bands: 1-based numbers of the channels to take, in order, as GDAL counts them; empty for all.
        reverse: whether the order is turned around (RGB images for a net that was trained on BGR).
        repeat: how often a single channel is repeated; 1 for not at all.

    Returns:
        (batch, height, width, channels taken); a view where nothing is rearranged.
    """
    if bands:
        pixels = pixels[..., [band - 1 for band in bands]]
    if reverse:
        pixels = pixels[..., ::-1]
    if repeat > 1 and pixels.shape[3] == 1:
        pixels = np.repeat(pixels, repeat, axis=3)
    return pixels

"""Random images that graphs are tried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RANDOM_TILES = 11


def random_tiles(size: tuple[int, int], channels: int, tiles: int = RANDOM_TILES, seed: int = 0) -> npt.NDArray[Any]:
    """Draw raw tiles 0..255 (tile, height, width, channel): white noise and coarse blocks alternately."""
    draw = np.random.default_rng(seed)
    noise = draw.integers(0, 256, (tiles, *size, channels), dtype=np.uint8)
    coarse = noise[:, ::8, ::8].repeat(8, axis=1).repeat(8, axis=2)[:, : size[0], : size[1]]
    noise[1::2] = coarse[1::2]
    return noise

"""The number of pixels a kernel processes at a time, and its working memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

MOST, LEAST = 8192, 1024
# Bytes for the float32 scores of all classes of one block: they stay in the second-level cache.
SCORES = 262_144
# Pixels per block where several scratch rows are passed over repeatedly: they stay in the first-level cache.
PART = 512
CACHE_LINE = 64


def block_of(classes: int, pixels: int) -> int:
    """Return the pixels of a block: long rows, because memory is read at full speed only in long runs.

    Rows of 8,192 pixels (32 KB) were read three times as fast as rows of 1,024; with many classes the scores of all of
    them must still fit into the cache.
    """
    block = MOST
    while block > LEAST and block * classes * 4 > SCORES:
        block //= 2
    return min(block, pixels)


def scratch(*shape: int, dtype: DTypeLike = np.float32) -> NDArray:
    """Return uninitialised memory aligned to a cache line: a packed load or store must not touch two lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    held = np.empty(size + CACHE_LINE, np.uint8)
    start = -held.ctypes.data % CACHE_LINE
    return held[start : start + size].view(dtype).reshape(shape)

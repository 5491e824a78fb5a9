"""How many pixels a kernel works on at a time."""

from __future__ import annotations

from engine.kernels.jit import kernel

MOST, LEAST = 8192, 1024
# Bytes for the float32 scores of all classes of one block: they stay in the second-level cache.
SCORES = 262_144


@kernel
def block_of(classes):  # type: ignore[no-untyped-def]
    """Return the pixels of a block: long rows, because memory is read at full speed in long runs alone.

    Rows of 8,192 pixels (32 KB) were read three times as fast as rows of 1,024; with many classes the scores of all of
    them must still fit into the cache.
    """
    block = MOST
    while block > LEAST and block * classes * 4 > SCORES:
        block //= 2
    return block


@kernel
def part_of(block):  # type: ignore[no-untyped-def]
    """Return the pixels of a part of a block: what was read once is worked on in parts of the first cache's size."""
    return min(block, LEAST)

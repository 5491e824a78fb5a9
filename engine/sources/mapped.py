"""Rows of a memory-mapped array, read once from the first to the last."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

# So much is read before it is let go of. Pages count as this process's memory until then, though the system could take
# them back at any time.
LET_GO_BYTES = 2**24


def rows_in_turn(array: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Yield views of ``size`` rows; pages read before are let go of, so that the memory used does not grow.

    A view stays valid as long as it is held: a page that is touched again is read again.

    Args:
        array: what ``numpy.load(..., mmap_mode="r")`` returned, rows first.
        size: rows a view.
    """
    held: Any = array.base
    mapping = held if isinstance(held, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None
    row_bytes = array.nbytes // max(1, len(array))
    let_go = 0
    for start in range(0, len(array), size):
        yield array[start : start + size]
        read = min(len(array), start + size) * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if mapping is not None and array.flags.c_contiguous and read - let_go >= LET_GO_BYTES:
            # From the beginning: batches still in work may have brought earlier pages back.
            mapping.madvise(mmap.MADV_DONTNEED, 0, read)
            let_go = read

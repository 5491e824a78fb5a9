"""Graphs that take one number of images alone: groups of that size, the last one filled up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray, NDArray | None], NDArray]


def in_groups(run: Run, prepared: NDArray, group: int, out: NDArray | None = None) -> NDArray:
    """Run a batch of any size through a graph of a fixed batch size.

    The last group is filled up with its own last image: zeros could make a net compute NaN.

    Args:
        run: runs just ``group`` images; its second argument is where the result should go, or None.
        prepared: (batch, ...), C-contiguous.
        group: images that the graph takes.
        out: (batch, ...), C-contiguous: where the result should go, or None.

    Returns:
        ``out`` where all groups were written there, else a new array (batch, ...).
    """
    count, parts, placed = len(prepared), [], out is not None
    for start in range(0, count, group):
        part = prepared[start : start + group]
        if len(part) == group:
            place = out[start : start + group] if out is not None else None
            found = run(part, place)
            placed = placed and found is place
        else:
            filled = np.concatenate([part, np.repeat(part[-1:], group - len(part), axis=0)])
            found, placed = run(filled, None)[: len(part)], False
        parts.append(found)
    if placed and out is not None:
        return out
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

"""Strips of a scene: rows read from top to bottom, each once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.sources.scenes import Scene


class Strips:
    """Reads strips of a scene from top to bottom; rows that two strips share are read once."""

    # Rows stored together are read together up to this many bytes.
    MOST_BYTES = 2**28

    def __init__(self, scene: Scene) -> None:
        """Read nothing yet."""
        self._scene = scene
        self._start = 0
        self._held: NDArray[Any] | None = None

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows (in any order, of a range that never moves up) as (rows, width, channels)."""
        first, last = int(rows.min()), int(rows.max()) + 1
        held = self._held
        if held is None:
            held = self._read(first, last)
            self._start = first
        else:
            held = held[first - self._start :]
            self._start = first
            if first + len(held) < last:
                held = np.concatenate([held, self._read(first + len(held), last)])
        self._held = held
        return held[rows - first]

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        height, width = self._scene.size
        block = self._scene.block
        if block * width * self._scene.channels * 8 <= self.MOST_BYTES:
            stop = min(height, -(-stop // block) * block)
        return self._scene.rows(start, stop)

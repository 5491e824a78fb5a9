"""Strips of a scene: rows read from top to bottom, each once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.sources.scene import Scene


class Strips:
    """Reads strips of a scene from top to bottom; rows that two strips share are read once."""

    # Rows stored together are read together up to this many bytes.
    MOST_BYTES = 2**28

    def __init__(self, scene: Scene) -> None:
        """Read nothing yet."""
        self._scene = scene
        self._start = 0
        self._held: tuple[NDArray[Any], NDArray[np.bool_] | None] | None = None

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows (in any order, of a range that never moves up) as (rows, width, channels)."""
        return self.read_valid(rows)[0]

    def read_valid(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return rows as :meth:`read`, and bool (rows, width): which pixels hold data; None where all do."""
        first, last = int(rows.min()), int(rows.max()) + 1
        if self._held is None:
            self._held = self._read(first, last)
        else:
            cut = first - self._start
            pixels, valid = self._held[0][cut:], None if self._held[1] is None else self._held[1][cut:]
            if first + len(pixels) < last:
                more, more_valid = self._read(first + len(pixels), last)
                pixels = np.concatenate([pixels, more])
                valid = None if valid is None or more_valid is None else np.concatenate([valid, more_valid])
            self._held = pixels, valid
        self._start = first
        pixels, valid = self._held
        return pixels[rows - first], None if valid is None else valid[rows - first]

    def _read(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        height, width = self._scene.size
        block = self._scene.block
        if block * width * self._scene.channels * 8 <= self.MOST_BYTES:
            stop = min(height, -(-stop // block) * block)
        pixels = self._scene.rows(start, stop)
        return pixels, None if self._scene.valid is None else self._scene.valid(start, stop)

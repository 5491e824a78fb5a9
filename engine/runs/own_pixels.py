"""From the pixels that members read to a scene's own, where these state a ground resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.inference.tiles.blend import Blended
from engine.models.adapt.size import nearest
from engine.sources.scene import Scene
from engine.sources.strips import Strips


class OwnPixels:
    """Gives each pixel of a scene the label of the nearest pixel read; rows come from top to bottom."""

    def __init__(self, scene: Scene, read: tuple[int, int]) -> None:
        """Take the scene as stored, and the (height, width) that members read it at."""
        self._rows, self._columns = (nearest(length, to) for length, to in zip(read, scene.size, strict=True))
        self._strips, self._gapped = Strips(scene), scene.valid is not None

    def rows(self, part: Blended) -> tuple[int, int]:
        """Return which rows of the scene some rows read stand for, the first and the one behind the last."""
        first, last = np.searchsorted(self._rows, [part.start, part.start + part.size[0]])
        return int(first), int(last)

    def valid(self, first: int, last: int) -> NDArray[np.bool_] | None:
        """Return which pixels of rows of the scene hold data, bool (rows, width); None where all do."""
        if first == last or not self._gapped:
            return None
        return self._strips.read_valid(np.arange(first, last))[1]

    def labels(self, labels: NDArray[np.uint8], part: Blended) -> NDArray[np.uint8]:
        """Return the labels of the scene's pixels, uint8 (1, pixels).

        Args:
            labels: uint8 (1, pixels) of the pixels read that hold data.
            part: the rows read.
        """
        whole = np.zeros(part.size, np.uint8)
        whole[slice(None) if part.valid is None else part.valid] = labels.reshape(
            part.size if part.valid is None else -1
        )
        first, last = self.rows(part)
        return whole[(self._rows[first:last] - part.start)[:, None], self._columns].reshape(1, -1)

"""One row of tiles of a scene: its pixels, and which of its tiles hold data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.inference.tiles.grid import Axis
from engine.models.adapt.size import mirrored
from engine.sources.nodata import fill_mirrored
from engine.sources.scene import Scene
from engine.sources.strips import Strips


@dataclass(frozen=True)
class TileRow:
    """One row of tiles.

    Attributes:
        wide: (tile rows, padded width, channels) pixels, mirrored beyond the scene.
        valid: bool (tile rows, scene's width): which pixels hold data; None where all do.
        across: int64 (padded width,): which column of the scene each column shows.
        columns: the tiles along the row.
    """

    wide: NDArray[Any]
    valid: NDArray[np.bool_] | None
    across: NDArray[np.int64]
    columns: Axis

    @cached_property
    def columns_with_data(self) -> list[int]:
        """Return which tiles hold data, at a pixel at least."""
        count = len(self.columns.starts)
        if self.valid is None:
            return list(range(count))
        return [column for column in range(count) if self.valid[:, self._shown(column)].any()]

    def tiles(self, taken: Sequence[int]) -> NDArray[Any]:
        """Return tiles as (tiles, height, width, channels); pixels without data are filled from their own tile."""
        if not taken:
            return np.empty((0, *self.wide.shape[:1], self.columns.tile, *self.wide.shape[2:]), self.wide.dtype)
        return np.stack([self._tile(column) for column in taken])

    def _tile(self, column: int) -> NDArray[Any]:
        start = self.columns.starts[column]
        pixels = self.wide[:, start : start + self.columns.tile]
        if self.valid is None:
            return pixels
        return fill_mirrored(pixels, self.valid[:, self._shown(column)])

    def _shown(self, column: int) -> NDArray[np.int64]:
        start = self.columns.starts[column]
        return self.across[start : start + self.columns.tile]


def tile_row(strips: Strips, rows: Axis, row: int, columns: Axis) -> TileRow:
    """Read one row of tiles; rows come from top to bottom.

    Raises:
        InputError: the scene is damaged there.
    """
    across = mirrored(np.arange(columns.starts[-1] + columns.tile), columns.length)
    pixels, valid = strips.read_valid(rows.pixels(row))
    return TileRow(np.take(pixels, across, axis=1), valid, across, columns)


def tile_rows(scene: Scene, rows: Axis, columns: Axis) -> Iterator[TileRow]:
    """Yield all rows of tiles of a scene from top to bottom; errors as of :func:`tile_row`."""
    strips = Strips(scene)
    return (tile_row(strips, rows, row, columns) for row in range(len(rows.starts)))

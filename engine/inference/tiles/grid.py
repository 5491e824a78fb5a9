"""Cuts scenes of any size into overlapping tiles and says how much each tile counts at each pixel.

Near the border of a tile a net sees less of the surroundings, so tiles overlap: the outer quarter of each overlap is
dropped, and over the rest the weight rises along a squared sine (the Hann window's flank) while the neighbour's falls.
At the border of the scene there is no neighbour, and the tile counts in full up to it. The weights of all tiles add up
to 1 at each pixel, and each is a product of one along the rows and one along the columns.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.models.adapt.size import mirrored
from engine.utils.sides import told_size

DEFAULT_OVERLAP = 0.5
# Shares of an overlap that are dropped on either side of the flank.
DROPPED = 0.25
# Tiles start at multiples of this where the step leaves room for it: nets that accept any size have a stride as well.
COMMON_STRIDE = 32
# The logits of one tile are some hundred times as large.
MOST_PIXELS = 1 << 26


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of a scene.

    Attributes:
        length: pixels of the scene.
        tile: pixels of a tile.
        step: from one tile's start to the next.
    """

    length: int
    tile: int
    step: int

    @cached_property
    def starts(self) -> list[int]:
        """Return where the tiles start; the last may reach beyond the scene, by less than a step."""
        count = 1 + max(0, math.ceil((self.length - self.tile) / self.step))
        return [index * self.step for index in range(count)]

    def pixels(self, index: int) -> NDArray[np.int64]:
        """Return which pixels of the scene a tile shows: int64 (tile,); beyond the scene it is mirrored."""
        return mirrored(np.arange(self.starts[index], self.starts[index] + self.tile), self.length)

    def finished(self, index: int) -> int:
        """Return up to which pixel the scene is done after a tile and all before it."""
        return self.length if index == len(self.starts) - 1 else self.starts[index + 1]

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Return float32 (tiles, tile): how much each tile counts at its pixels; at each pixel they sum to 1."""
        flank = self._flank()
        raw = np.ones((len(self.starts), self.tile))
        raw[1:] *= flank
        raw[:-1] *= flank[::-1]
        total = np.zeros(self.starts[-1] + self.tile)
        for start, row in zip(self.starts, raw, strict=True):
            total[start : start + self.tile] += row
        return np.stack(
            [row / total[start : start + self.tile] for start, row in zip(self.starts, raw, strict=True)]
        ).astype(np.float32)

    def _flank(self) -> NDArray[np.float64]:
        """Return (tile,): the rising side of a tile that has a neighbour before it."""
        overlap = max(0, self.tile - self.step)
        dropped = int(overlap * DROPPED)
        rise = overlap - 2 * dropped
        flank = np.ones(self.tile)
        flank[:dropped] = 0
        flank[dropped : dropped + rise] = np.sin(np.pi / 2 * (np.arange(rise) + 0.5) / max(rise, 1)) ** 2
        return flank


@dataclass(frozen=True)
class Tiling:
    """How scenes are cut.

    Attributes:
        tile: (height, width) in pixels.
        overlap: share of a tile that it has in common with the next one, 0 up to below 1.
        stride: tiles start at multiples of it.
    """

    tile: tuple[int, int]
    overlap: float = DEFAULT_OVERLAP
    stride: int = 1

    def __post_init__(self) -> None:
        """Refuse tiles that cannot be cut.

        Raises:
            PlanError: a side below 1, more than 8192x8192 pixels, or an overlap outside 0..<1.
        """
        if min(self.tile) < 1:
            raise PlanError(f"--tile {self.told}: both sides must be above 0")
        if math.prod(self.tile) > MOST_PIXELS:
            raise PlanError(f"--tile {self.told}: a tile has at most {MOST_PIXELS:,} pixels, as in 8192x8192")
        if not 0 <= self.overlap < 1:
            raise PlanError(f"--overlap {self.overlap:g}: a share from 0 up to below 1 is needed, as in 0.5")

    @property
    def told(self) -> str:
        """Return ``HEIGHTxWIDTH``."""
        return told_size(self.tile)

    @property
    def record(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {"tile": list(self.tile), "overlap": self.overlap, "stride": self.stride}

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Return the tiles along the rows and along the columns of a scene of (height, width)."""
        rows, columns = (Axis(length, tile, self._step(tile)) for length, tile in zip(size, self.tile, strict=True))
        return rows, columns

    def count(self, size: tuple[int, int]) -> int:
        """Return how many tiles a scene of (height, width) takes."""
        return math.prod(len(axis.starts) for axis in self.axes(size))

    def _step(self, tile: int) -> int:
        step = max(1, round(tile * (1 - self.overlap)))
        # Rounded down by less than a quarter: the overlap is never smaller than asked for.
        common = min(COMMON_STRIDE, 1 << max(0, (step // 4).bit_length() - 1))
        unit = math.lcm(self.stride, common)
        unit = unit if unit <= step else self.stride
        return min(tile, max(unit, step // unit * unit))


def parse_tile(text: str, option: str = "--tile") -> tuple[int, int]:
    """Return (height, width) of ``64x128``; one number stands for a square.

    Raises:
        PlanError: something else stands there.
    """
    found = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", text.strip(), re.ASCII)
    if found is None:
        raise PlanError(f"{option} {text[:40]}: give HEIGHTxWIDTH in pixels, as in 64x128")
    return int(found[1]), int(found[2] or found[1])

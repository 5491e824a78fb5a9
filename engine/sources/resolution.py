"""Maps read at the ground resolution that nets were trained at, and where their labels lie on the map's own pixels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.georeference import Georeference
from engine.sources.scene import Rows, Scene
from engine.sources.scenes import Scenes
from engine.sources.strips import Strips
from engine.utils import console
from engine.utils.sides import told_size

# Closer than this a map has the nets' resolution: resampling would blur it for nothing.
TOLERANCE = 0.05


def at_resolution(scenes: Scenes, resolution: float) -> Scenes:
    """Return scenes as nets of a ground resolution read them; what is changed is printed.

    A scene keeps its extent: its pixels become those of a size as near to the resolution as whole numbers of them
    allow. Scenes without coordinates, and those within 5 % of the resolution, are read as stored.

    Args:
        scenes: what is predicted.
        resolution: metres per pixel.

    Raises:
        InputError: coordinates in degrees.
    """
    sizes = [
        _size(scenes, name, size, place, resolution)
        for name, size, place in zip(scenes.ids, scenes.sizes, scenes.places or [None] * len(scenes.ids), strict=True)
    ]
    _say(scenes, sizes, resolution)
    if sizes == list(scenes.sizes):
        return scenes

    def each() -> Generator[Scene, None, None]:
        with contextlib.closing(scenes.each()) as opened:
            for scene, size in zip(opened, sizes, strict=True):
                yield scene if size == scene.size else resampled(scene, size)

    return replace(scenes, sizes=sizes, each=each)


def metres_per_pixel(place: Georeference | None) -> tuple[float, float] | None:
    """Return the (height, width) of a pixel in metres; None where its place does not say, or says degrees."""
    if place is None or place.crs is None or place.transform is None or place.crs.is_geographic:
        return None
    metres = place.crs.linear_units_factor[1]
    transform = place.transform
    return metres * math.hypot(transform.b, transform.e), metres * math.hypot(transform.a, transform.d)


def is_near(pixel: tuple[float, float], resolution: float) -> bool:
    """Return whether pixels of (height, width) metres have a resolution, up to 5 %."""
    return all(abs(side / resolution - 1) <= TOLERANCE for side in pixel)


def _size(
    scenes: Scenes, name: str, size: tuple[int, int], place: Georeference | None, resolution: float
) -> tuple[int, int]:
    if place is not None and place.crs is not None and place.crs.is_geographic:
        raise InputError(
            f"{scenes.name}: the members read {resolution:g} m per pixel, the coordinates of {name} are degrees: warp "
            'it to a projected reference system, or state resolution = "ignore" in the plan\'s [input]'
        )
    pixel = metres_per_pixel(place)
    if pixel is None or is_near(pixel, resolution):
        return size
    height, width = (max(1, round(side * metres / resolution)) for side, metres in zip(size, pixel, strict=True))
    return height, width


def _say(scenes: Scenes, sizes: Sequence[tuple[int, int]], resolution: float) -> None:
    changed = [index for index, size in enumerate(sizes) if size != scenes.sizes[index]]
    if changed:
        name, size, stored = scenes.ids[changed[0]], sizes[changed[0]], scenes.sizes[changed[0]]
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        console.say(
            f"{name} is read at {resolution:g} m per pixel, {told_size(size)} in place of {told_size(stored)}{more}; "
            "masks have the map's own pixels"
        )
    unplaced = [name for name, place in zip(scenes.ids, scenes.places or [None] * len(scenes.ids), strict=True)
                if metres_per_pixel(place) is None]  # fmt: skip
    if unplaced:
        more = f", and {len(unplaced) - 1} more" if len(unplaced) > 1 else ""
        console.say(
            f"warning: the members read {resolution:g} m per pixel; {unplaced[0]}{more} has no coordinates and is read "
            "as stored"
        )


def taps(length: int, to: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which pixels of a side make up each pixel of that side with another number of them.

    Fewer pixels are means over what they cover; more are interpolated linearly between the centres.

    Args:
        length: pixels of the side.
        to: pixels it shall have.

    Returns:
        Indices int64 (to, taps), and their weights float64 (to, taps), which sum to 1.
    """
    if to < length:
        edges = np.arange(to + 1) * length / to
        first = np.floor(edges[:-1]).astype(np.int64)
        count = int((np.ceil(edges[1:]) - first).max())
        index = first[:, None] + np.arange(count)
        weights = np.minimum(index + 1, edges[1:, None]) - np.maximum(index, edges[:-1, None])
        weights = np.maximum(weights, 0)
    else:
        centres = (np.arange(to) + 0.5) * length / to - 0.5
        first = np.floor(centres).astype(np.int64)
        index = first[:, None] + np.arange(2)
        weights = np.stack([1 - (centres - first), centres - first], axis=1)
    return index.clip(0, length - 1), weights / weights.sum(axis=1, keepdims=True)


def resampled(scene: Scene, size: tuple[int, int]) -> Scene:
    """Return a scene of the same extent with (height, width) other pixels, read from top to bottom.

    A pixel has data where any pixel that it is made of has, and is made of those alone.
    """
    strips = Strips(scene)
    down, across = taps(scene.size[0], size[0]), taps(scene.size[1], size[1])
    last: dict[tuple[int, int], tuple[NDArray[Any], NDArray[np.bool_] | None]] = {}

    def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        if (start, stop) not in last:
            last.clear()
            index, weights = down[0][start:stop], down[1][start:stop]
            first = int(index.min())
            stored = strips.read_valid(np.arange(first, int(index.max()) + 1))
            last[start, stop] = _resampled(*stored, (index - first, weights), across)
        return last[start, stop]

    def valid(start: int, stop: int) -> NDArray[np.bool_]:
        pixels, known = read(start, stop)
        return np.ones(pixels.shape[:2], bool) if known is None else known

    held: Rows | None = None if scene.valid is None else valid
    return replace(scene, size=size, rows=lambda start, stop: read(start, stop)[0], block=1, valid=held)


def _resampled(
    pixels: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    down: tuple[NDArray[np.int64], NDArray[np.float64]],
    across: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return (rows, columns, channels) made of pixels (rows, width, channels), and which of them have data."""
    kind = pixels.dtype
    wide = np.float32 if kind.itemsize <= 2 or kind == np.float32 else np.float64
    values = pixels.astype(wide)
    if valid is None:
        found = _summed(values, down, across)
        known = None
    else:
        found = _summed(np.where(valid[..., None], values, 0), down, across)
        shares = _summed(valid[..., None].astype(wide), down, across)
        known = shares[..., 0] > 0
        found /= np.where(known[..., None], shares, 1)
    if kind.kind in "ui":
        bounds = np.iinfo(kind)
        found = np.rint(found).clip(bounds.min, bounds.max)
    return found.astype(kind), known


def _summed(
    values: NDArray[Any],
    down: tuple[NDArray[np.int64], NDArray[np.float64]],
    across: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> NDArray[Any]:
    """Return weighted sums along the rows, then along the columns; each pixel's are added up in the same order."""
    for axis, (index, weights) in enumerate((down, across)):
        shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        total = np.zeros((), values.dtype)
        for tap in range(index.shape[1]):
            total = total + weights[:, tap].astype(values.dtype).reshape(shape) * np.take(values, index[:, tap], axis)
        values = total
    return values

"""One scene: a picture of any size, read in strips of rows, with pixels that may hold no data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.metrics import VOID
from engine.sources.georeference import Georeference

Rows = Callable[[int, int], NDArray[Any]]


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        id: its name.
        size: (height, width) in pixels.
        channels: channels a pixel.
        rows: returns rows ``start`` to ``stop`` as (rows, width, channels).
        block: rows that are stored together; reading fewer costs as much.
        georeference: where it lies, or None.
        is_tiff: whether it came as a TIFF.
        valid: returns which pixels of rows ``start`` to ``stop`` hold data, bool (rows, width); None: all do.
        nodata: the value that the file states for pixels without data; None for none.
        tagged_alpha: whether its last band is tagged as alpha, and was taken as a band like the others.
    """

    id: str
    size: tuple[int, int]
    channels: int
    rows: Rows
    block: int = 1
    georeference: Georeference | None = None
    is_tiff: bool = False
    valid: Rows | None = None
    nodata: float | None = None
    tagged_alpha: bool = False


def with_nan(rows: Rows) -> tuple[Rows, Rows]:
    """Return a reader of float rows that keeps what it read last, and one of the pixels that hold no NaN."""
    last: dict[tuple[int, int], NDArray[Any]] = {}

    def kept(start: int, stop: int) -> NDArray[Any]:
        if (start, stop) not in last:
            last.clear()
            last[start, stop] = rows(start, stop)
        return last[start, stop]

    return kept, lambda start, stop: ~np.isnan(kept(start, stop)).any(axis=-1)


def void_values(nodata: Iterable[float | None], classes: int) -> list[int]:
    """Return which of the values that scenes state for missing pixels masks keep: whole numbers, no classes."""
    own = {value for value in nodata if value is not None and value == value // 1 and classes <= value <= VOID}
    return sorted(map(int, own))


def void_label(scene: Scene, classes: int) -> int | None:
    """Return the value of a mask's pixels where the scene holds no data; None where all pixels hold data.

    It is the scene's own value where that fits into a mask and is no class, and 255 otherwise.

    Raises:
        OutputError: all 256 values are classes.
    """
    if scene.valid is None:
        return None
    own = void_values([scene.nodata], classes)
    if own:
        return own[0]
    if classes > VOID:
        raise OutputError(
            f"{scene.id} has pixels without data, and {classes} classes leave no value of 0 to {VOID} for them: "
            "use models of fewer classes, or fill the scene first"
        )
    return VOID

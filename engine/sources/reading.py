"""How images are read where the data does not say it: axes of arrays, orientation of pictures, channels made alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.sources.base import Source

# The axes of an array of images: how many, height, width, channels. Without N it is one image.
LAYOUTS = ("NHWC", "NCHW", "NHW", "HWC", "CHW", "HW")
EXIF = ("apply", "ignore")
# ITU-R BT.601 luma in sixteenths of 2**12, with the rounding of Pillow's mode L; the three sum to 1.
LUMA, LUMA_BITS = (19595, 38470, 7471), 16
LUMA_OF_FLOATS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Taken:
    """How many channels of an image the members can take.

    Attributes:
        counts: the numbers that every member takes; empty where nothing is known.
        least: smallest number that holds all bands the members pick; 0 where they pick none.
    """

    counts: frozenset[int] = frozenset()
    least: int = 0

    @property
    def known(self) -> bool:
        """Return whether anything is known."""
        return bool(self.counts or self.least)

    def fits(self, channels: int) -> bool:
        """Return whether images of so many channels can be taken."""
        return channels in self.counts or 0 < self.least <= channels


@dataclass(frozen=True)
class Reading:
    """How images are read; the default is what needs no statement.

    Attributes:
        layout: axes of an array, out of :data:`LAYOUTS`; empty to find them by its shape.
        exif: ``apply`` turns pictures the way round their EXIF orientation says, ``ignore`` leaves them as stored.
        rgb_as_grey: RGB images become grey by ITU-R BT.601.
        grey_as_rgb: grey pictures of a set with RGB ones become RGB.
        alpha: the last band of a raster says which pixels have data, and is no band of the picture.
        taken: returns what the members take; called only where the shape of an array leaves its axes open.
        missing_chunks: whether chunks that a Zarr store lacks are an error (``fail``) or its fill value (``fill``);
            empty for an error.
        any_size: pictures of a set may be of different sizes, see :class:`engine.sources.base.Source`.
    """

    layout: str = ""
    exif: str = "apply"
    rgb_as_grey: bool = False
    grey_as_rgb: bool = False
    alpha: bool = False
    taken: Callable[[], Taken] = Taken
    missing_chunks: str = ""
    any_size: bool = False

    def __post_init__(self) -> None:
        """Refuse what is unknown.

        Raises:
            PlanError: naming what is allowed.
        """
        if self.layout and self.layout not in LAYOUTS:
            raise PlanError(f"--image-layout {self.layout}: unknown; allowed are {', '.join(LAYOUTS)}")
        if self.exif not in EXIF:
            raise PlanError(f"exif: {self.exif!r} is unknown; allowed are {' and '.join(EXIF)}")


PLAIN = Reading()


def grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return RGB pixels (..., 3) as grey (..., 1) of the same dtype, by ITU-R BT.601 luma.

    Whole numbers of up to 16 bits are rounded as Pillow does for its mode L.
    """
    kind = pixels.dtype
    if kind.kind == "u" and kind.itemsize <= 2:
        luma = np.full(pixels.shape[:-1], 1 << (LUMA_BITS - 1), np.uint32)
        for channel, weight in enumerate(LUMA):
            luma += pixels[..., channel].astype(np.uint32) * np.uint32(weight)
        return (luma >> LUMA_BITS).astype(kind)[..., None]
    exact = pixels.astype(np.float64) @ np.array(LUMA_OF_FLOATS)
    return (exact if kind.kind == "f" else np.rint(exact)).astype(kind)[..., None]


def made_grey(source: Source, reading: Reading) -> Source:
    """Return a source whose RGB images are grey, where that is asked for."""
    if not reading.rgb_as_grey or source.channels != 3:
        return source
    at = source.at
    return replace(
        source,
        channels=1,
        read=lambda size: map(grey, source.read(size)),
        at=None if at is None else lambda start, stop: grey(at(start, stop)),
    )

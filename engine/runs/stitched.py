"""Overlapping images put back together: predicted as the pictures they were cut from, masks cut out again."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.errors import InputError, PlanError
from engine.outputs.base import MaskWriter
from engine.runs.options import Options
from engine.sources.base import Source
from engine.sources.open import open_source
from engine.sources.placement import Placement, find_placement
from engine.sources.reading import Reading
from engine.sources.scene import Rows, Scene
from engine.sources.scenes import Scenes
from engine.sources.slices import limited
from engine.utils import console
from engine.utils.memory import memory_bound, refusal

# Masks handed to the writer at a time.
PART = 64


@dataclass(frozen=True)
class StitchedImages:
    """Images whose overlaps are known.

    Attributes:
        name: where they come from, for messages.
        ids: names of the images, in order.
        named: whether the ids are names of their own, and not row numbers.
        placement: where each lies.
        pixels: (N, H, W, C) of all images.
    """

    name: str
    ids: list[str]
    named: bool
    placement: Placement
    pixels: NDArray[Any]

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) of an image."""
        return self.placement.size

    def say(self) -> None:
        """Say how many pictures the images make."""
        count, pictures = len(self.ids), len(self.placement.images)
        told = f"{count:,} images make {pictures:,} pictures"
        if pictures == count:
            told = f"none of {count:,} images overlaps another (by equal pixels), so each is predicted by itself"
        console.say(f"stitched: {told}")
        if self.placement.contradictory:
            console.say(
                f"warning: {self.placement.contradictory:,} images of {self.name} overlap in ways that contradict each "
                "other; each of them is predicted by itself"
            )

    @property
    def scenes(self) -> Scenes:
        """Return the pictures that the images make, each put together while its turn lasts."""
        placement = self.placement

        def each() -> Generator[Scene, None, None]:
            for number, size in enumerate(placement.sizes):
                whole, shown = placement.joined(self.pixels, number)
                valid = None if shown.all() else _rows_of(shown)
                yield Scene(str(number), size, self.pixels.shape[-1], _rows_of(whole), valid=valid)

        ids = [str(number) for number in range(len(placement.sizes))]
        return Scenes(self.name, ids, placement.sizes, self.pixels.shape[-1], each, whole=True)


class ImagesOfPictures:
    """Takes the rows of pictures, and hands the images' own, cut out of these, to a writer."""

    def __init__(
        self,
        images: StitchedImages,
        writer: MaskWriter,
        kind: DTypeLike = np.uint8,
        planes: tuple[int, ...] = (),
    ) -> None:
        """Take the writer; it is opened and closed elsewhere.

        Args:
            images: those of the pictures.
            writer: takes what belongs to the images, in their order.
            kind: dtype of a value.
            planes: (maps,) where a row holds several maps of its pixels; empty where it holds their labels.

        Raises:
            InputError: too little memory for the values of all images.
        """
        self._images, self._writer = images, writer
        shape = (len(images.ids), *planes, *images.size)
        needed = math.prod(shape) * np.dtype(kind).itemsize
        if planes and needed > memory_bound():
            raise InputError(refusal(f"the maps of {images.name}, put together by --stitch,", "take", needed))
        self._values = np.empty(shape, kind)
        self._parts: list[NDArray[Any]] = []
        self._picture = self._ended = 0

    def begin(self, scene: Scene) -> None:
        """Begin a picture."""
        self._picture = int(scene.id)

    def write_rows(self, rows: NDArray[Any]) -> None:
        """Append labels (rows, width), or values (rows, maps, width)."""
        self._parts.append(rows)

    def end(self) -> None:
        """Cut out what belongs to the picture's images; write that of all images, in order, after the last picture."""
        placement, whole = self._images.placement, np.concatenate(self._parts)
        whole = whole.swapaxes(0, 1) if whole.ndim == 3 else whole
        for index in placement.images[self._picture]:
            self._values[index] = whole[..., *placement.part(int(index))]
        self._parts, self._ended = [], self._ended + 1
        if self._ended < len(placement.images):
            return
        for start in range(0, len(self._values), PART):
            values = self._values[start : start + PART]
            self._writer.write(self._images.ids[start : start + PART], values.reshape(len(values), -1))


def stitched_images(options: Options, reading: Reading) -> StitchedImages:
    """Read all images of a run and find how they overlap.

    Raises:
        EngineError: images that cannot be read, are of different sizes or too many for the memory, or an option that
            does not work with images put together.
    """
    _refuse_others(options)
    source = limited(open_source(options.input, reading=replace(reading, any_size=True)), options.limit)
    pixels = _all_pixels(source)
    placement = find_placement(pixels)
    return StitchedImages(source.name, list(source.ids), source.named, placement, pixels)


def _all_pixels(source: Source) -> NDArray[Any]:
    """Return the pixels (N, H, W, C) of all images."""
    if len(source.every_size) > 1:
        raise InputError(f"{source.name}: images of different sizes; --stitch takes those of one size: leave it out")
    if not len(source):
        raise InputError(f"{source.name} holds no images")
    first = next(source.batches(1)).pixels
    # The images, a picture of them, hashes of their columns and their masks.
    needed = len(source) * (2 * first.nbytes + 8 * sum(source.size) + source.size[0] * source.size[1])
    if needed > memory_bound():
        raise InputError(refusal(f"--stitch: {source.name}", "takes", needed))
    pixels = np.empty((len(source), *first.shape[1:]), first.dtype)
    for batch in source.batches(256):
        pixels[batch.start : batch.start + len(batch.pixels)] = batch.pixels
    return pixels


def _refuse_others(options: Options) -> None:
    refused = {
        "--labels": bool(options.labels),
        "--align": options.align,
        "--per-image": options.files.per_image is not None,
    }
    for option, given in refused.items():
        if given:
            more = ", and score the masks with engine evaluate MASKS --labels TRUTH" if option == "--labels" else ""
            raise PlanError(f"{option} does not work on images put together by --stitch: leave one of them out{more}")


def _rows_of(pixels: NDArray[Any]) -> Rows:
    return lambda start, stop: pixels[start:stop]

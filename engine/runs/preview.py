"""A picture for people: image | truth | fused mask | disagreement of the members, one row per tile, with a legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.fusion.decoding import Decoding
from engine.fusion.doubt import NAME, UNKNOWN, withhold
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.metrics import MOST_CLASSES
from engine.sources.base import Batch, Source
from engine.sources.labels import as_labels
from engine.utils.files import replacing
from engine.utils.palette import UNKNOWN_COLOUR, colours

PREVIEW_TILES = 6

MARGIN = 12
CAPTION = 22
INK, PAPER = (32, 32, 32), (255, 255, 255)
# Disagreement is drawn from white (all members agree) to this blue-black (none does).
DISPUTED = np.array((12, 24, 60), np.float32)


@dataclass(frozen=True)
class Tile:
    """One row of the picture.

    Attributes:
        name: the image's id.
        image: (height, width, channels) raw pixels.
        truth: uint8 (height, width), or None if not available.
        fused: uint8 (height, width); 254 where a pixel is unknown.
        disagreement: float (height, width), share of the members whose label differs from the fused mask.
    """

    name: str
    image: NDArray[Any]
    truth: NDArray[np.uint8] | None
    fused: NDArray[np.uint8]
    disagreement: NDArray[np.float64]


def draw(tiles: Sequence[Tile], classes: Sequence[str], path: Path) -> None:
    """Draw the tiles and write a PNG.

    Args:
        tiles: the rows, all of one size.
        classes: names of the classes, for the legend.
        path: the PNG to write.

    Raises:
        OutputError: it cannot be written there.
    """
    from PIL import Image, ImageDraw, ImageFont

    palette = np.array([*colours(len(classes)), *[PAPER] * (MOST_CLASSES - len(classes))], np.uint8)
    if any((tile.fused == UNKNOWN).any() for tile in tiles) and len(classes) <= UNKNOWN:
        palette[UNKNOWN] = UNKNOWN_COLOUR
    height, width = tiles[0].fused.shape
    zoom = max(1, round(256 / width))
    titles = ["image", *(["truth"] if tiles[0].truth is not None else []), "fused mask", "members that disagree"]
    cell = (width * zoom, height * zoom)
    font = ImageFont.load_default(13)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    total = (
        MARGIN + len(titles) * (cell[0] + MARGIN),
        MARGIN + CAPTION + len(tiles) * (cell[1] + CAPTION) + MARGIN,
    )
    named = [*zip(classes, palette.tolist(), strict=False)]
    named += [(NAME, list(UNKNOWN_COLOUR))] if (palette[UNKNOWN] == UNKNOWN_COLOUR).all() else []
    spots, legend_height = _legend(
        [name for name, _ in named], total[0], lambda text: measure.textlength(text, font=font)
    )
    sheet = Image.new("RGB", (total[0], total[1] + legend_height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((MARGIN + column * (cell[0] + MARGIN), MARGIN), title, INK, font)
    for row, tile in enumerate(tiles):
        top = MARGIN + CAPTION + row * (cell[1] + CAPTION)
        panels = [_grey(tile.image)]
        if tile.truth is not None:
            panels.append(palette[tile.truth])
        share = tile.disagreement[..., None].astype(np.float32)
        panels += [palette[tile.fused], (255 * (1 - share) + DISPUTED * share).astype(np.uint8)]
        for column, panel in enumerate(panels):
            left = MARGIN + column * (cell[0] + MARGIN)
            sheet.paste(Image.fromarray(panel).resize(cell, Image.Resampling.NEAREST), (left, top))
            pen.rectangle((left - 1, top - 1, left + cell[0], top + cell[1]), outline=(190, 190, 190))
        caption = f"{tile.name}: {tile.disagreement.mean():.1%} of the members' labels disputed"
        pen.text((MARGIN, top + cell[1] + 2), caption, INK, font)
    for (left, down), (name, colour) in zip(spots, named, strict=True):
        at = total[1] + down
        pen.rectangle((left, at, left + 14, at + 14), fill=tuple(colour), outline=INK)
        pen.text((left + 20, at), name, INK, font)
    try:
        with replacing(path) as partial:
            sheet.save(partial, "PNG")
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): choose another place") from None


def _legend(classes: Sequence[str], width: int, length: Any) -> tuple[list[tuple[int, int]], int]:
    """Return the position of each class's swatch, and the legend's height."""
    spots, left, down = [], MARGIN, 0
    for name in classes:
        needed = 20 + int(length(name)) + 18
        if left + needed > width and left > MARGIN:
            left, down = MARGIN, down + CAPTION
        spots.append((left, down))
        left += needed
    return spots, down + CAPTION + MARGIN


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return (height, width, 3) uint8 for any raw image; values outside 0..255 are scaled to fit."""
    pixels = np.nan_to_num(image.astype(np.float32))
    if pixels.min() < 0 or pixels.max() > 255:
        pixels = (pixels - pixels.min()) * (255 / max(float(np.ptp(pixels)), 1e-9))
    return np.repeat(pixels.astype(np.uint8), 3 // image.shape[2], axis=2)


def preview_tiles(
    ensemble: Ensemble, images: Source, labels: Source | None = None, count: int = PREVIEW_TILES
) -> list[Tile]:
    """Predict a few images spread over the set again to show where the members disagree.

    Returns:
        At most ``count`` tiles.
    """
    wanted = np.unique(np.linspace(0, len(images) - 1, count).astype(int)).tolist()
    pixels = list(_picked(images, wanted))
    truths = [as_labels(batch, len(ensemble.classes), "labels") for batch in _picked(labels, wanted)] if labels else []
    tiles = []
    for index, batch in enumerate(pixels):
        height, width = images.size
        logits, _ = ensemble.logits(batch)
        decoding = ensemble.variant.decoding
        alone = [
            ensemble.decode(logits, Variant("mean-logit", Decoding(decoding.suppress), member), images.size)[0][0]
            for member in range(len(ensemble.members))
        ]
        found = ensemble.explain(logits, ensemble.variant, images.size, ensemble.with_unknown(None))
        fused = found.labels[0]
        disagreement = np.mean([own != fused for own in alone], axis=0)
        tiles.append(
            Tile(
                batch.ids[0],
                batch.pixels[0].copy(),
                truths[index].reshape(height, width) if truths else None,
                withhold(found.labels, found.shown.unknown).reshape(height, width),
                disagreement.reshape(height, width),
            )
        )
    return tiles


def _picked(source: Source, wanted: Sequence[int]) -> Iterator[Batch]:
    """Yield the requested images (ascending indices) as batches of one."""
    left = list(wanted)
    for batch in source.batches(64):
        while left and left[0] < batch.start + len(batch.ids):
            at = left.pop(0) - batch.start
            yield Batch(batch.start + at, [batch.ids[at]], batch.pixels[at : at + 1])
        if not left:
            return

"""Contact sheets of augmentation: what a policy makes of a few tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.utils.palette import colours
from trainers.augment import augment, policy_rng, transforms_of
from trainers.augment.paste import RarePixels
from trainers.data import Dataset, load
from trainers.files import refuse_existing, replacing

DRAWS = 7
MARGIN, CAPTION = 6, 14


def show_policy(
    data: Path,
    out: Path,
    policy: str,
    paste: float = 0.0,
    fill: int | None = 0,
    tiles: int = 4,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write a PNG: a row a tile, first as it is, then as seven draws of a policy; each image over its mask.

    Args:
        data: the training file.
        out: the picture to write.
        policy: the policy, see :func:`trainers.augment.transforms_of`.
        paste: probability that pixels of a rare class are pasted into a tile.
        fill: class of pixels from outside a tile; None mirrors the tile instead.
        tiles: how many tiles; those with the most classes come first.
        seed: seed of the tiles and of the draws.
        overwrite: replace ``out`` if it exists.

    Raises:
        EngineError: the policy is unknown, the data cannot be read, or the picture cannot be written.
    """
    transforms_of(policy)
    refuse_existing([out], overwrite)
    dataset = load(data)
    chosen = _varied(dataset, tiles, seed)
    images, masks = dataset.images[chosen], dataset.labels[chosen]
    rare = RarePixels.of(dataset, fill) if paste > 0 else None
    columns = [(images, masks)]
    for draw in range(DRAWS):
        rng = policy_rng(seed, draw, 0)
        pasted = rare.paste(images, masks, rng, paste) if rare is not None else (images, masks)
        columns.append(augment(*pasted, policy, rng, fill))
    title = f"policy {policy}" + (f", pasting {paste:g}" if paste > 0 else "")
    with replacing(out) as partial:
        _draw(partial, columns, chosen, title, dataset)


def _varied(data: Dataset, tiles: int, seed: int) -> NDArray[np.int64]:
    """Return the places of tiles that show the most classes, equal ones by lot."""
    shown = np.array([len(np.unique(mask)) for mask in data.labels])
    order = np.random.default_rng(seed).permutation(len(data))
    return order[np.argsort(-shown[order], kind="stable")][:tiles]


def _draw(
    path: Path,
    columns: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    chosen: NDArray[np.int64],
    title: str,
    data: Dataset,
) -> None:
    from PIL import Image, ImageDraw

    height, width = data.labels.shape[1:]
    palette = np.array(colours(len(data.class_names)), np.uint8)
    cell = (width + MARGIN, 2 * height + MARGIN)
    top = MARGIN + 2 * CAPTION
    canvas = Image.new("RGB", (MARGIN + len(columns) * cell[0], top + len(chosen) * (cell[1] + CAPTION)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), f"{title}: the tile, then {len(columns) - 1} draws", fill="black")
    at = MARGIN
    for colour, name in zip(palette, data.class_names, strict=True):
        draw.rectangle((at, MARGIN + CAPTION + 2, at + 9, MARGIN + CAPTION + 11), fill=tuple(int(v) for v in colour))
        draw.text((at + 13, MARGIN + CAPTION), name, fill="black")
        at += 26 + int(draw.textlength(name))
    for row, place in enumerate(chosen):
        above = top + row * (cell[1] + CAPTION)
        draw.text((MARGIN, above), f"tile {data.index[place]}", fill="black")
        for number, (images, masks) in enumerate(columns):
            left = MARGIN + number * cell[0]
            grey = images[row].mean(axis=-1).astype(np.uint8)
            canvas.paste(Image.fromarray(grey), (left, above + CAPTION))
            canvas.paste(Image.fromarray(palette[masks[row]]), (left, above + CAPTION + height))
    canvas.save(path, format="PNG")

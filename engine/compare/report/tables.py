"""Tables of the page that a plot would make unreadable: shares by two axes, and scores of every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compare.result import Facts, Row
from engine.metrics import class_iou, dice_of, precision_recall

# Larger matrices show the classes (members) with the most pixels.
MOST_SIDES = 32
# Shades of a cell, from none to full: the style names them s0, s1, ...
SHADES = 10


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what stands in it; empty where it rounds to nothing.
        shade: 0 to :data:`SHADES`.
        told: the whole of it, in words.
    """

    text: str
    shade: int
    told: str


@dataclass(frozen=True)
class Matrix:
    """Shares by row and column.

    Attributes:
        down: number and name of each row.
        across: number and name of each column.
        cells: one list a row.
        left_out: how many rows and columns are not shown.
    """

    down: list[tuple[int, str]]
    across: list[tuple[int, str]]
    cells: list[list[Cell]]
    left_out: int = 0


def confusion(facts: Facts, row: Row) -> Matrix:
    """Return a confusion matrix as percentages of each true class; classes without true pixels have no row."""
    counts = np.array(row.confusion, np.float64)
    pixels, predicted = counts.sum(axis=1), counts.sum(axis=0)
    used = [index for index in range(len(pixels)) if pixels[index] or predicted[index]]
    across = sorted(sorted(used, key=lambda index: -pixels[index])[:MOST_SIDES])
    down = [index for index in across if pixels[index]]
    shares = counts[np.ix_(down, across)] / pixels[down][:, None]
    names = facts.classes
    told = lambda y, x, value: f"{value:.2%} of {names[down[y]]} predicted as {names[across[x]]}"  # noqa: E731
    return Matrix(
        [(index, names[index]) for index in down],
        [(index, names[index]) for index in across],
        _cells(shares, told),
        len(used) - len(across),
    )


def agreement(facts: Facts) -> Matrix:
    """Return the percentage of pixels on which two members agree."""
    shares = np.array(facts.agreement)[:MOST_SIDES, :MOST_SIDES]
    names = [(index, member.name) for index, member in enumerate(facts.members)][:MOST_SIDES]
    # Nets of one task agree on most pixels: starting the shades just below the lowest agreement shows more.
    least = float(np.nanmin(shares)) if np.isfinite(shares).any() else 0.0
    told = lambda y, x, value: f"{names[y][1]} and {names[x][1]} agree on {value:.2%}"  # noqa: E731
    floor = max(0.0, np.floor(10 * least) / 10 - 0.1)
    return Matrix(names, names, _cells(shares, told, floor), len(facts.members) - len(names))


def _cells(shares: NDArray[np.float64], told: Any, floor: float = 0.0) -> list[list[Cell]]:
    def cell(y: int, x: int, value: float) -> Cell:
        if isnan(value):
            return Cell("\N{EN DASH}", 0, "no pixels")
        shade = round(SHADES * float(np.clip((value - floor) / max(1 - floor, 1e-9), 0, 1)))
        return Cell(f"{100 * value:.0f}" if value >= 0.005 else "", shade, told(y, x, value))

    return [[cell(y, x, float(value)) for x, value in enumerate(line)] for y, line in enumerate(shares)]


@dataclass(frozen=True)
class ClassRow:
    """Scores of one class.

    Attributes:
        index: its number.
        name: its name.
        share: share of the scored pixels that are of it.
        iou: IoU of each row shown.
        dice: Dice of the first.
        precision: precision of the first.
        recall: recall of the first.
    """

    index: int
    name: str
    share: float
    iou: list[float]
    dice: float
    precision: float
    recall: float


def class_rows(facts: Facts, rows: Sequence[Row]) -> list[ClassRow]:
    """Return the scores of every class but the ignored one, whose true pixels are not counted (``labelled``)."""
    ignored = None if facts.ignored_class < 0 else facts.ignored_class
    counts = [np.array(row.confusion, np.int64) for row in rows]
    iou = [class_iou(held, "labelled", ignored) for held in counts]
    precision, recall = precision_recall(counts[0], "labelled", ignored)
    pixels = counts[0].sum(axis=1).astype(np.float64)
    if ignored is not None:
        pixels[ignored] = 0
    share, dice = pixels / max(pixels.sum(), 1), dice_of(iou[0])
    return [
        ClassRow(
            index, name, float(share[index]), [float(own[index]) for own in iou], float(dice[index]),
            float(precision[index]), float(recall[index]),
        )
        for index, name in enumerate(facts.classes)
        if index != ignored
    ]  # fmt: skip

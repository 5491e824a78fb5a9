"""One row per image or scene: pixels and area of each class, mean score and doubt, IoU where labels are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.fusion.doubt import NAME
from engine.fusion.evidence import MOST_DOUBT, Evidence, Shown
from engine.metrics import class_iou, mean_iou
from engine.outputs.tables import TableWriter
from engine.sources.georeference import Georeference


class MeanEvidence:
    """Means over the pixels of one image, added up part by part."""

    def __init__(self, evidence: Evidence) -> None:
        """Start with no pixel."""
        self._evidence = evidence
        self._doubt = self._score = 0.0
        self._pixels = 0

    def add(self, labels: NDArray[np.uint8], shown: Shown, known: NDArray[np.bool_] | None = None) -> None:
        """Add some pixels.

        Args:
            labels: uint8 (pixels,), before the clean-up of small regions.
            shown: scores (classes, pixels) and doubt (pixels,), or None each.
            known: bool (pixels,), which pixels hold data; None where all do.
        """
        chosen = slice(None) if known is None else known
        self._pixels += labels.size if known is None else int(known.sum())
        if shown.doubt is not None:
            total = float(shown.doubt[chosen].sum(dtype=np.float64))
            self._doubt += total / MOST_DOUBT if self._evidence.doubt_type == "uint8" else total
        if shown.scores is not None:
            best = shown.scores.max(axis=0)
            self._score += float(best[chosen].sum(dtype=np.float64))

    @property
    def values(self) -> list[float | None]:
        """Return the mean probability of the mask's class and the mean doubt, those that are asked for."""
        asked = [self._score] if self._evidence.scores else []
        asked += [self._doubt] if self._evidence.doubt else []
        return [total / self._pixels if self._pixels else None for total in asked]


class ImageTable:
    """Writes the rows; the writer is opened and closed elsewhere."""

    def __init__(
        self,
        output: Path,
        classes: Sequence[str],
        ignored_class: int | None,
        rows: int,
        evidence: Evidence,
        scored: bool,
        unknown: bool,
        places: Mapping[str, Georeference],
    ) -> None:
        """Decide the columns.

        Args:
            output: the file.
            classes: names of the classes.
            ignored_class: the class that scores leave out, or None.
            rows: how many images will come.
            evidence: what is shown for the labels.
            scored: whether true labels are given; unknown pixels are not scored.
            unknown: whether pixels can be unknown: they are counted in a column of their own.
            places: where images lie, by id; areas are given where that is a projection in known units.
        """
        self._ignored, self._scored, self._unknown, self._places = ignored_class, scored, unknown, places
        columns: dict[str, type] = {"id": str, "pixels": int}
        columns |= {f"pixels {name}": int for name in classes}
        columns |= {f"pixels ({NAME})": int} if unknown else {}
        self._areas = any(_pixel_area(place) for place in places.values())
        columns |= {f"m2 {name}": float for name in classes} if self._areas else {}
        columns |= {"mean score": float} if evidence.scores else {}
        columns |= {f"mean {evidence.doubt}": float} if evidence.doubt else {}
        columns |= {"miou labelled": float, **{f"iou {name}": float for name in classes}} if scored else {}
        self.writer = TableWriter(output, columns, rows)

    def row(
        self,
        name: str,
        counts: NDArray[np.int64],
        means: Sequence[float | None],
        confusion: NDArray[np.int64] | None,
        pixels: int,
    ) -> None:
        """Append the row of an image.

        Args:
            name: its id.
            counts: int64 (classes,), pixels of each class in the mask.
            means: of scores and doubt, as :attr:`MeanEvidence.values`.
            confusion: int64 (classes, classes), if true labels are given.
            pixels: pixels with data.

        Raises:
            OutputError: the disk refuses.
        """
        values: list[Any] = [name, pixels, *counts.tolist()]
        values += [pixels - int(counts.sum())] if self._unknown else []
        if self._areas:
            area = _pixel_area(self._places.get(name))
            values += [count * area if area else None for count in counts.tolist()]
        values += list(means)
        if self._scored:
            found = confusion if confusion is not None else np.zeros((len(counts), len(counts)), np.int64)
            iou = class_iou(found, "labelled", self._ignored)
            scores = [mean_iou(found, "labelled", self._ignored), *iou.tolist()]
            values += [None if value != value else value for value in scores]
        self.writer.write(values)


def _pixel_area(place: Georeference | None) -> float | None:
    """Return the square metres of a pixel, or None where the coordinates are no lengths."""
    if place is None or place.transform is None or place.crs is None or not place.crs.is_projected:
        return None
    try:
        factor = float(place.crs.linear_units_factor[1])
    except Exception:  # rasterio's own error, where the units are not known
        return None
    transform = place.transform
    return abs(transform.a * transform.e - transform.b * transform.d) * factor**2

"""Labels and their evidence as one row of bytes an image (or a row of a scene): what shards of a run hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.fusion.evidence import Evidence, Shown


@dataclass(frozen=True)
class Layout:
    """What one record holds, in this order.

    Attributes:
        labels: bytes of the labels.
        scores: number of probabilities.
        scores_type: their dtype.
        doubts: number of values of the map of doubt.
        doubt_type: their dtype.
        unknown: number of pixels of which it is known whether they are unknown, 8 a byte.
    """

    labels: int
    scores: int = 0
    scores_type: str = "float16"
    doubts: int = 0
    doubt_type: str = "uint8"
    unknown: int = 0

    @property
    def bytes(self) -> int:
        """Return the size of a record."""
        return self.labels + self._scores + self._doubts + -(-self.unknown // 8)

    @property
    def _scores(self) -> int:
        return self.scores * np.dtype(self.scores_type).itemsize

    @property
    def _doubts(self) -> int:
        return self.doubts * np.dtype(self.doubt_type).itemsize

    def split(self, records: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Shown]:
        """Return what uint8 (count, bytes) records hold: uint8 (count, labels), and (count, values) arrays."""
        held = records.reshape(-1, self.bytes)
        behind = self.labels + self._scores
        scores = _values(held[:, self.labels : behind], self.scores_type) if self.scores else None
        end = behind + self._doubts
        doubt = _values(held[:, behind:end], self.doubt_type) if self.doubts else None
        unknown = np.unpackbits(held[:, end:], axis=1, count=self.unknown).view(np.bool_) if self.unknown else None
        return held[:, : self.labels], Shown(scores, doubt, unknown)


def layout_of(evidence: Evidence | None, classes: int, pixels: int, masks: int = 1, unknown: bool = False) -> Layout:
    """Return the layout of records.

    Args:
        evidence: what is shown for labels; None for nothing.
        classes: number of classes.
        pixels: of an image, or of a row of a scene.
        masks: number of masks of labels.
        unknown: whether labels go with which of their pixels are unknown.
    """
    evidence = evidence or Evidence()
    return Layout(
        masks * pixels,
        classes * pixels if evidence.scores else 0,
        evidence.scores or "float16",
        pixels if evidence.doubt else 0,
        evidence.doubt_type,
        pixels if unknown else 0,
    )


def joined(labels: NDArray[np.uint8], shown: Shown) -> NDArray[np.uint8]:
    """Return labels, uint8 (count, ...), and their evidence, (count, ...) each, as uint8 (count, bytes)."""
    parts = [labels.reshape(len(labels), -1)] if labels.size else [labels]
    for values in (shown.scores, shown.doubt):
        if values is not None and len(values):
            parts.append(np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8))
    if shown.unknown is not None:
        parts.append(np.packbits(shown.unknown.reshape(len(shown.unknown), -1), axis=1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _values(held: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    return np.ascontiguousarray(held).view(kind)

"""Submissions as text: a row of labels an image, or runs of equal labels a row an image and class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.outputs.base import StreamWriter
from engine.sources.rle import RLE_HEADER

RLE_SUFFIX = ".rle.csv"


class CsvWriter(StreamWriter):
    """The submission form: header ``id,0,1,...``, a row an image, row-major labels."""

    holds = "submission"
    _text = np.empty(0, np.uint8)

    def _open(self) -> None:
        super()._open()
        pixels = self.size[0] * self.size[1]
        assert self.stream is not None
        self.stream.write(("id," + ",".join(map(str, range(pixels))) + "\n").encode())

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        from engine.kernels.text import write_rows

        assert self.stream is not None
        names = [quoted(name) for name in ids]
        joined = np.frombuffer(b"".join(names), np.uint8)
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        needed = 4 * labels.size + joined.size + len(names)
        if self._text.size < needed:
            self._text = np.empty(needed, np.uint8)
        length = write_rows(self._text, joined, ends, labels)
        self.stream.write(self._text[:length].data)


class RleWriter(StreamWriter):
    """Run lengths: header ``id_class,rle``, a row an image and class, ``start length start length ...``.

    Starts count from 1, row by row from left to right. A class that an image does not hold has an empty row, so that
    every image has a row for each class.
    """

    holds = "run lengths"

    def _open(self) -> None:
        super()._open()
        pixels = self.size[0] * self.size[1]
        assert self.stream is not None
        self.stream.write(RLE_HEADER)
        # Masks with ids of their own have a row for each of those, not for the numbers between them.
        self._values = (self.record or {}).get("output_ids") or range(self.classes)
        self._starts = np.empty(pixels + 1, np.int64)
        # The longest text: as many runs as pixels, each with two numbers and two spaces.
        self._text = np.empty(pixels * (2 * len(str(pixels)) + 2), np.uint8)

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        from engine.kernels.text import find_runs, write_runs

        assert self.stream is not None
        parts: list[bytes] = []
        for name, row in zip(ids, labels, strict=True):
            count = find_runs(self._starts, row)
            for value in self._values:
                length = write_runs(self._text, 0, row, self._starts, count, np.uint8(value))
                parts += [quoted(f"{name}_{value}"), b",", self._text[:length].tobytes(), b"\n"]
        self.stream.write(b"".join(parts))


def quoted(name: str) -> bytes:
    """Return a name as it stands in a CSV: in quotes where it needs them."""
    if any(character in name for character in ',"\r\n'):
        name = '"' + name.replace('"', '""') + '"'
    # File names need not be UTF-8; their bytes come out as they are.
    return name.encode("utf-8", "surrogateescape")

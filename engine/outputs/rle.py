"""Run lengths as other tools read them: Kaggle's CSV and COCO's JSON, both column by column."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.outputs.base import StreamWriter
from engine.outputs.submission import quoted


class _ByColumn(StreamWriter):
    """Finds the runs of each mask column by column."""

    # Bytes that a run may take in the text, with all that stands around it.
    bytes_a_run = 0

    def _open(self) -> None:
        super()._open()
        pixels = self.size[0] * self.size[1]
        self._starts = np.empty(pixels + 1, np.int64)
        self._text = np.empty((pixels + 2) * self.bytes_a_run, np.uint8)

    def _runs(self, row: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
        """Return the labels uint8 (pixels,) column by column and the number of their runs."""
        from engine.kernels.text import find_runs

        turned = np.ascontiguousarray(row.reshape(self.size).T).reshape(-1)
        return turned, find_runs(self._starts, turned)


class KaggleWriter(_ByColumn):
    """Kaggle's run lengths: ``start length start length ...``, column by column, starts from 1, class 0 left out.

    Two classes have a row an image (``ImageId,EncodedPixels``), more have a row an image and class
    (``ImageId_ClassId,EncodedPixels``), empty where the class is not in the image.
    """

    holds = "Kaggle's run lengths"

    def _open(self) -> None:
        self.bytes_a_run = 2 * len(str(self.size[0] * self.size[1])) + 2
        super()._open()
        assert self.stream is not None
        self.stream.write(b"ImageId,EncodedPixels\n" if self.classes == 2 else b"ImageId_ClassId,EncodedPixels\n")

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        from engine.kernels.text import write_runs

        assert self.stream is not None
        parts: list[bytes] = []
        for name, row in zip(ids, labels, strict=True):
            turned, count = self._runs(row)
            for value in range(1, self.classes):
                length = write_runs(self._text, 0, turned, self._starts, count, np.uint8(value))
                key = name if self.classes == 2 else f"{name}_{value}"
                parts += [quoted(key), b",", self._text[:length].tobytes(), b"\n"]
        self.stream.write(b"".join(parts))


class CocoWriter(_ByColumn):
    """COCO's results: a list of ``image_id``, ``category_id`` and compressed counts, an entry an image and class in it.

    ``image_id`` is a number where the id reads like one, as COCO's tools need it, else the id; ``category_id`` is the
    class, 0 among them.
    """

    holds = "COCO's run lengths"

    def _open(self) -> None:
        from engine.kernels.rle import MOST_CHARACTERS

        self.bytes_a_run = MOST_CHARACTERS
        super()._open()
        assert self.stream is not None
        self.stream.write(b"[")
        self._between = b"\n"

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        from engine.kernels.rle import write_counts

        assert self.stream is not None
        size = b"[%d,%d]" % self.size
        parts: list[bytes] = []
        for name, row in zip(ids, labels, strict=True):
            turned, count = self._runs(row)
            key = name if _is_number(name) else json.dumps(name)
            for value in np.unique(turned[self._starts[:count]]):
                length = write_counts(self._text, turned, self._starts, count, value)
                # The one character of this text that JSON needs marked.
                counts = self._text[:length].tobytes().replace(b"\\", b"\\\\")
                head = f'{{"image_id":{key},"category_id":{value},"segmentation":{{"size":'.encode()
                parts += [self._between, head, size, b',"counts":"', counts, b'"}}']
                self._between = b",\n"
        self.stream.write(b"".join(parts))

    def _close(self) -> None:
        if self.stream is not None and not self.stream.closed:
            self.stream.write(b"\n]\n")
        super()._close()

    def _abandon(self) -> None:
        super()._close()


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 16 and str(int(name)) == name

"""Arrays of .npy and .npz files behind URLs: rows of a .npy are ranges of bytes, those of an .npz come in turn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.numpy_files import ArrayFile
from engine.sources.range_file import READ_BYTES
from engine.sources.remote import RemoteFile
from engine.utils.threads import ahead

# Ranges under way at a time: an object store answers slowly and to many at once.
FETCHERS = 4


@dataclass(frozen=True)
class RemoteArray:
    """One array of a file behind a URL, not read yet; it stands in for :class:`engine.sources.numpy_files.ArrayFile`.

    Attributes:
        head: what its header tells, checked against the size of the file.
        file: the file.
    """

    head: ArrayFile
    file: RemoteFile

    def __post_init__(self) -> None:
        """Refuse what lies column by column.

        Raises:
            InputError: it does.
        """
        if self.head.fortran_order:
            raise InputError(f"{self.head.label} lies column by column, no image is one range: save it in order C")

    def chunks(self, size: int) -> Iterator[NDArray[Any]]:
        """Yield the rows in order, ``size`` at a time.

        Raises:
            InputError: the data ends early, is damaged or cannot be had.
        """
        if self.head.key:
            yield from self.head.chunks(size)
            return
        # A whole number of batches a request.
        block = max(1, READ_BYTES // max(1, self._row_bytes * size)) * size
        count = self.head.shape[0]

        def fetch(start: int) -> NDArray[Any]:
            return self[start : min(count, start + block)]

        for rows in ahead(fetch, range(0, count, block), FETCHERS, FETCHERS):
            for start in range(0, len(rows), size):
                yield rows[start : start + size]

    def __getitem__(self, where: slice) -> NDArray[Any]:
        """Return some rows of a .npy file; nothing else of it is fetched.

        Raises:
            InputError: they cannot be had.
        """
        start, stop, _ = where.indices(self.head.shape[0])
        row = self._row_bytes
        offset = self.file.size - self.head.shape[0] * row
        data = self.file.range(offset + start * row, offset + stop * row)
        return np.frombuffer(data, self.head.dtype).reshape(stop - start, *self.head.shape[1:])

    @property
    def _row_bytes(self) -> int:
        return self.head.dtype.itemsize * math.prod(self.head.shape[1:])

"""Masks as a Zarr array: a folder of compressed chunks, readable in parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.base import FolderMixin, MaskWriter
from engine.utils.optional import require
from engine.utils.palette import colours

# Chunks of about this many pixels: large enough to compress well, small enough to be read alone.
CHUNK_PIXELS = 2**20


class ZarrWriter(FolderMixin, MaskWriter):
    """One uint8 array (images, height, width); ``ids`` and ``colours`` are its attributes."""

    holds = "uint8 masks"
    needs = ("zarr", "zarr")

    def _open(self) -> None:
        self._block = max(1, min(len(self.ids), CHUNK_PIXELS // math.prod(self.size)))
        ids = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in self.ids]
        self._array = self._created(ids)
        self._held: list[NDArray[Any]] = []
        self._placed = 0

    def _created(self, ids: list[str]) -> Any:
        """Create the array, in chunks of ``_block`` images."""
        assert len(self.size) == 2
        shape, chunks = (len(self.ids), *self.size), (self._block, *chunk_sides(self.size))
        return create(self.partial, shape, chunks, self.classes, {"ids": ids})

    def _write(self, ids: Sequence[str], labels: NDArray[Any]) -> None:
        self._held.extend(labels.reshape(-1, *self.size).copy())
        # Whole chunks alone are written: each is compressed once.
        while len(self._held) >= self._block:
            self._put(self._block)

    def _put(self, count: int) -> None:
        self._array[self._placed : self._placed + count] = np.stack(self._held[:count])
        self._placed += count
        del self._held[:count]

    def _close(self) -> None:
        if self._held:
            self._put(len(self._held))

    def _abandon(self) -> None: ...


def create(
    path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], classes: int, attributes: Mapping[str, Any]
) -> Any:
    """Create a uint8 array at ``path`` with the classes' colours among its attributes.

    Raises:
        OutputError: the package ``zarr`` is missing.
        OSError: the system refuses.
    """
    zarr = require("zarr", "zarr", f"writing {path.name} needs zarr", OutputError)
    palette = [list(colour) for colour in colours(classes)]
    return zarr.create_array(
        store=path,
        shape=shape,
        chunks=chunks,
        dtype="u1",
        attributes={**attributes, "colours": palette},
        # Without it chunks of zeros are left out, and look like those that an interrupted copy lacks.
        config={"write_empty_chunks": True},
    )


def chunk_sides(size: tuple[int, int]) -> tuple[int, int]:
    """Return sides of a chunk of at most about :data:`CHUNK_PIXELS` pixels."""
    side = math.isqrt(CHUNK_PIXELS)
    return (min(size[0], side), min(size[1], side))

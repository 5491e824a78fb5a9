"""What lies between a run and its writer: the rest of a source, and masks in blocks of one fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# A block holds so many masks, or fewer where they are large.
MOST_MASKS = 256
MOST_BYTES = 1 << 24


class Writes(Protocol):
    """What takes masks: a writer of :mod:`engine.outputs.open`."""

    def write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        """Append masks uint8 (some, pixels) and their names."""


class BlockWriter:
    """Hands masks on in blocks that depend on neither batch size nor interruptions, so that neither shows in a file."""

    def __init__(self, writer: Writes, ids: Sequence[str], pixels: int) -> None:
        """Start in front of the first mask.

        Args:
            writer: who takes the blocks.
            ids: the names of all masks that will come, in order.
            pixels: size of a mask.
        """
        self._writer, self._ids = writer, ids
        self._block = np.empty((max(1, min(MOST_MASKS, MOST_BYTES // pixels)), pixels), np.uint8)
        self._waiting = self._start = 0

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Take the next masks, uint8 (some, pixels).

        Raises:
            OutputError: the writer fails.
        """
        labels = labels.reshape(-1, self._block.shape[1])  # of several masks per image one row each
        at = 0
        while at < len(labels):
            count = min(len(labels) - at, len(self._block) - self._waiting)
            self._block[self._waiting : self._waiting + count] = labels[at : at + count]
            self._waiting += count
            at += count
            if self._waiting == len(self._block):
                self.flush()

    def flush(self) -> None:
        """Hand on what waits; call it behind the last mask.

        Raises:
            OutputError: the writer fails.
        """
        end = self._start + self._waiting
        if self._waiting:
            # A copy: a writer may keep what it was given until a thread of its own has written it.
            self._writer.write(self._ids[self._start : end], self._block[: self._waiting].copy())
        self._start, self._waiting = end, 0

"""The ids of an array's images: its row numbers, made when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload


class RowNumbers(Sequence[str]):
    """``["0", "1", ...]`` that takes no memory, however many there are."""

    def __init__(self, numbers: range) -> None:
        """Hold the numbers of the rows."""
        self._numbers = numbers

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> RowNumbers: ...

    def __getitem__(self, at: int | slice) -> str | RowNumbers:
        """Return one id, or those of a part."""
        return RowNumbers(self._numbers[at]) if isinstance(at, slice) else str(self._numbers[at])

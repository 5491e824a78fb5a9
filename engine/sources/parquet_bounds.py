"""How many rows of a row group are read at a time, so that what its header declares never takes all memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InputError
from engine.sources.parquet_column import Column
from engine.sources.parquet_pages import Chunk, is_within
from engine.utils.memory import in_words, memory_bound, refusal

# Numbers that are read together; each takes up to 20 bytes in Arrow's hands.
MOST_NUMBERS, NUMBER_BYTES = 1 << 20, 20
# More than this no codec makes of images; only of what is all alike.
MOST_RATIO = 2000


@dataclass(frozen=True)
class Weight:
    """What the header says of the images in one row group.

    Attributes:
        rows: images.
        values: numbers, or encoded pictures.
        plain_bytes: of its pages, uncompressed.
        stored_bytes: of its pages, as they are in the file.
        is_bytes: whether a value is bytes.
        is_even: whether all rows have as many numbers.
    """

    rows: int
    values: int
    plain_bytes: int
    stored_bytes: int
    is_bytes: bool
    is_even: bool

    def rows_at_once(self, label: str) -> int:
        """Return how many rows may be read at a time.

        Raises:
            InputError: one alone takes more than is allowed, or the whole, from too few bytes to be images.
        """
        rows = max(1, self.rows)
        # Repeated bytes are stored once, so that a value may be as large as all pages together.
        whole = self.plain_bytes if self.is_bytes else max(self.plain_bytes, NUMBER_BYTES * self.values)
        bound = memory_bound()
        if whole > bound and whole / rows > bound:
            raise InputError(refusal(label, "holds images each of which takes", whole / rows))
        if whole > bound and not self.is_even and whole > MOST_RATIO * max(1, self.stored_bytes):
            raise InputError(
                f"{refusal(label, 'may hold an image that takes', whole)}; {in_words(self.stored_bytes)} are stored"
            )
        if self.is_bytes:
            return max(1, min(rows, bound // max(1, 2 * whole)))
        return max(1, min(rows, MOST_NUMBERS * rows // max(1, self.values)))


def group_weight(rows: int, chunks: Sequence[Chunk], column: Column) -> Weight:
    """Return what the footer says of a column in a row group of so many rows."""
    parts = [chunk for chunk in chunks if is_within(chunk.path, column.leaf)]
    values, plain, stored = (
        sum(getattr(part, name) for part in parts) for name in ("values", "plain_bytes", "stored_bytes")
    )
    return Weight(rows, values, plain, stored, column.is_bytes, column.is_even)

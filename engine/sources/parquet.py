"""Parquet files of images, read row group by row group: in turn, or from any row on.

Read are what Hugging Face datasets, Ray Data, pandas and pyarrow write: encoded pictures, tensors, lists and bytes. To
open a set, the footers are read, and the column of ids where there is one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import RowNumbers, Source, stacked
from engine.sources.decode import AnyFile
from engine.sources.layout import Role
from engine.sources.naming import natural
from engine.sources.parquet_bounds import MOST_NUMBERS, group_weight
from engine.sources.parquet_column import Column, pick_column
from engine.sources.parquet_ids import NamedRows, read_ids
from engine.sources.parquet_pages import Chunk, check_pages, row_groups
from engine.sources.pictures import DECODERS, WAITING, Alike, Bad, Once
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.range_file import READ_BYTES
from engine.sources.reading import PLAIN, Reading
from engine.sources.remote import RemoteFile
from engine.utils.boundary import refusing
from engine.utils.optional import require
from engine.utils.threads import ahead

SUFFIX = ".parquet"
# Rows are read together up to so many with so many numbers; encoded pictures, whose size no header tells, by eight.
MOST_ROWS, ENCODED_ROWS = 256, 8
# Repeated values are packed tightly, but no set of images fits so many into a byte.
ROWS_A_BYTE = 64
# Footers of files behind URLs that are asked for at a time.
FETCHERS = 16


class ParquetRows:
    """The rows of one or more Parquet files, as one table.

    Attributes:
        column: what holds the images.
        count: number of rows.
    """

    def __init__(self, files: Sequence[AnyFile], key: str, role: Role, label: str) -> None:
        """Read the footers.

        Raises:
            InputError: damaged, no such column, files that differ, or more rows than they can hold.
        """
        self._files, self.label = files, label
        found = list(ahead(lambda file: _footer(file, key, role), files, FETCHERS, 4 * FETCHERS))
        self.column: Column = found[0][0]
        odd = next((file for file, (column, *_) in zip(files, found, strict=True) if column != self.column), None)
        if odd is not None:
            raise InputError(f"{odd} holds its {role} in another way than {files[0]}: all files must be alike")
        groups = [counts for _, counts, _ in found]
        self._most_rows = np.concatenate([most for *_, most in found])
        self._ends = np.cumsum(np.concatenate(groups), dtype=np.int64) if groups else np.zeros(0, np.int64)
        self._file_of = np.repeat(np.arange(len(files)), [len(counts) for counts in groups])
        self._first_group = np.cumsum([0, *(len(counts) for counts in groups)])
        self.count = int(self._ends[-1]) if len(self._ends) else 0
        if not self.count:
            raise InputError(f"{label} holds no rows")
        self.rows_at_once = ENCODED_ROWS

    def values(self, start: int) -> Iterator[tuple[int, Any, tuple[int, ...]]]:
        """Yield (row, value, stated shape) from one row on; no row group before it is read.

        Raises:
            InputError: damaged.
        """
        begin = int(np.searchsorted(self._ends, start, side="right"))
        row = int(self._ends[begin - 1]) if begin else 0
        reader: Any = None
        chunks: list[list[Chunk]] = []
        opened = -1
        for group in range(begin, len(self._ends)):
            file = int(self._file_of[group])
            if file != opened:
                reader, opened = open_file(self._files[file]), file
                chunks = row_groups(reader, str(self._files[file]))
            within = group - int(self._first_group[file])
            check_pages(self._files[file], chunks[within : within + 1], (self.column.leaf, *self.column.sides))
            for batch in self._batches(reader, file, within):
                if row + len(batch) > start:
                    kept = batch.slice(max(0, start - row))
                    first = row + len(batch) - len(kept)
                    for index, (value, stated) in enumerate(self.column.values(kept)):
                        yield first + index, value, stated
                row += len(batch)
            if row != self._ends[group]:
                raise InputError(f"{self._files[file]} ends after {row} rows, {self._ends[group]} are declared")

    def _batches(self, reader: Any, file: int, group: int) -> Iterator[Any]:
        wanted = [self.column.leaf, *self.column.sides]
        with reading(str(self._files[file])):
            for batch in reader.iter_batches(self.rows_at_once, row_groups=[group], columns=wanted, use_threads=False):
                batch.validate(full=True)  # an index or offset that leads elsewhere shows only where it is used
                yield batch


def open_parquet(
    files: Sequence[AnyFile], key: str, role: Role, label: str, bad: Bad | None = None, facts: Reading = PLAIN
) -> Source:
    """Open Parquet files as one set of images, in the files' order.

    Args:
        files: the files.
        key: the column; empty to look for it.
        role: whether they hold images or label maps.
        label: what messages call the set.
        bad: called with an image that is damaged or unlike the others, in whose place zeros come; None makes it an
            error.
        facts: what is stated about images.

    Raises:
        InputError: damaged, no such column, files that differ; or pyarrow is missing.
    """
    rows = ParquetRows(files, key, role, label)
    ids = read_ids(files, rows.count, label, open_file, reading)
    named: Sequence[str] = ids if ids is not None else RowNumbers(range(rows.count))
    images = _Images(rows, role, named, bad, facts)
    height, width, channels = images.alike.shape

    def read(size: int) -> Iterator[NDArray[Any]]:
        return images.batches(0, rows.count, size)

    sizes = images.sizes() if facts.any_size and not rows.column.has_one_size else []
    varied = sizes if len(set(sizes)) > 1 else ()
    return Source(label, named, (height, width), channels, read, named=ids is not None, at=images.at, sizes=varied)


class _Images:
    """The images of a table's rows."""

    def __init__(
        self,
        rows: ParquetRows,
        role: Role,
        ids: NamedRows | RowNumbers | Sequence[str],
        bad: Bad | None,
        facts: Reading,
    ) -> None:
        self._rows, self._role, self._ids, self._bad = rows, role, ids, bad
        # What the members take is found out once, not for each row.
        self._reading, self._note = replace(facts, taken=cache(facts.taken)), Once()
        self.alike = self._first()
        size = int(np.prod(self.alike.shape))
        if not rows.column.is_bytes:
            rows.rows_at_once = max(1, min(MOST_ROWS, MOST_NUMBERS // size))
        self._lock, self._next = threading.Lock(), -1
        self._left: Iterator[NDArray[Any]] = iter(())

    def _first(self) -> Alike:
        for row, value, stated in self._rows.values(0):
            try:
                return Alike.of("the first image", self._decoded(row, value, stated), self._role, self._reading)
            except InputError:
                if self._bad is None:
                    raise
        raise InputError(f"{self._rows.label} holds no image that can be read")

    def at(self, start: int, stop: int) -> NDArray[Any]:
        """Return some images at once; where they follow those before, reading goes on behind them."""
        with self._lock:
            if start != self._next:
                self._left = self._each(start, self._rows.count)
            self._next = -1
            found = list(islice(self._left, stop - start))
            self._next = stop
        return np.stack(found)

    def batches(self, start: int, stop: int, size: int) -> Iterator[NDArray[Any]]:
        yield from stacked(self._each(start, stop), size)

    def sizes(self) -> list[tuple[int, int]]:
        """Return the (height, width) of all images, which are decoded for it."""
        return [(image.shape[0], image.shape[1]) for image in self._each(0, self._rows.count)]

    def _each(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        values = islice(self._rows.values(start), stop - start)
        if self._rows.column.is_bytes:
            return ahead(self._checked, values, DECODERS, WAITING)
        return map(self._checked, values)

    def _decoded(self, row: int, value: Any, stated: tuple[int, ...]) -> NDArray[Any]:
        name = f"{self._rows.label}:{self._rows.column.name} row {row}"
        return self._rows.column.pixels(value, stated, self._role, name, self._reading, self._note)

    def _checked(self, item: tuple[int, Any, tuple[int, ...]]) -> NDArray[Any]:
        try:
            return self.alike.made(self._decoded(*item), f"{self._rows.label} row {item[0]}")
        except InputError as error:
            if self._bad is None:
                raise
            self._bad(self._ids[item[0]], error)
            return self.alike.empty()


def _footer(file: AnyFile, key: str, role: Role) -> tuple[Column, NDArray[np.int64], NDArray[np.int64]]:
    """Return which column of a file holds images, the rows of each row group, and how many to read at a time."""
    reader = open_file(file)
    with reading(str(file)):
        told, schema = reader.metadata, reader.schema_arrow
        counts = np.array([told.row_group(index).num_rows for index in range(told.num_row_groups)], np.int64)
    size = file.stat().st_size
    if (counts < 0).any() or counts.sum(dtype=np.float64) > ROWS_A_BYTE * size or counts.sum() != told.num_rows:
        raise InputError(f"{file} declares {told.num_rows} rows, which its {size} bytes cannot hold: it is damaged")
    column = pick_column(schema, key, role, str(file))
    with reading(str(file)):
        groups = row_groups(reader, str(file))
    if len(groups) != len(counts):
        raise InputError(f"cannot read {file} (its footer is incomplete): it is damaged, copy it again")
    weights = [group_weight(int(rows), group, column) for rows, group in zip(counts, groups, strict=True)]
    return column, counts, np.array([weight.rows_at_once(f"{file}:{column.name}") for weight in weights], np.int64)


def open_file(file: AnyFile, **more: Any) -> Any:
    """Return a ``pyarrow.parquet.ParquetFile``; only the footer is read.

    Raises:
        InputError: damaged, or pyarrow is missing.
    """
    parquet = require("pyarrow.parquet", "parquet", f"reading {file} needs pyarrow", InputError)
    held: Any = file.open("rb") if isinstance(file, RemoteFile) else str(file)
    block = READ_BYTES if isinstance(file, RemoteFile) else 1 << 20
    with reading(str(file)):
        return parquet.ParquetFile(held, buffer_size=block, pre_buffer=False, **more)


@contextmanager
def reading(label: str) -> Iterator[None]:
    """Turn what pyarrow raises on damaged files into one InputError."""
    with refusing(lambda why: f"cannot read {label} ({why}): it is damaged or no Parquet file, copy it again"):
        yield


def tables_of(path: Path) -> list[AnyFile]:
    """Return the Parquet files that a name means: the file, or those of a folder; none for anything else.

    In a folder, those of folders named ``column=value`` count as well, as Hive, Spark and pyarrow write them.
    """
    if path.suffix.lower() == SUFFIX and not path.is_dir():
        return [path]
    return tables_among(_partitions(path)) if path.is_dir() else []


def _partitions(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_partition(path.name) and path.is_dir() and not path.is_symlink():
            yield from _partitions(path)
        else:
            yield path


def is_partition(name: str) -> bool:
    """Return whether a folder's name states the value of a column that its files all share."""
    return "=" in name[1:] and name[0] not in "_."


def tables_among(held: Iterable[AnyFile]) -> list[AnyFile]:
    """Return the Parquet files among those of a folder, in natural order of their names.

    None where there are pictures too: there a table only describes them. Names that begin with ``_`` or ``.`` are those
    of programs that are still writing, or that keep notes.
    """
    found: list[AnyFile] = []
    for file in held:
        suffix = file.suffix.lower()
        if suffix in PICTURES:
            return []
        if suffix == SUFFIX and file.name[0] not in "_.":
            found.append(file)
    return sorted(found, key=lambda file: natural(str(file)))

"""What a Parquet file's footer and page headers declare, read without decoding anything."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.errors import InputError
from engine.sources.range_file import READ_BYTES
from engine.sources.remote import RemoteFile
from engine.sources.thrift import Fields, read_struct
from engine.utils.memory import memory_bound

# A page header is read in one piece of so many bytes, and in larger ones where a picture is among its statistics.
_HEADER, _LONGEST_HEADER = 1 << 12, 1 << 28
# A page may claim so much whatever the footer says: writers count differently, and it costs nothing.
_HARMLESS = 1 << 26
# No page can claim more: its size is an int32.
_MOST_CLAIMED = 1 << 31


@dataclass(frozen=True)
class Chunk:
    """One column of a row group, as the footer tells it.

    Attributes:
        path: names of the nested fields that lead to the column, joined with dots.
        values: numbers, or encoded pictures.
        plain_bytes: of its pages, uncompressed.
        stored_bytes: of its pages, as they are in the file.
        start: where its first page is in the file.
    """

    path: str
    values: int
    plain_bytes: int
    stored_bytes: int
    start: int


def row_groups(reader: Any, label: str) -> list[list[Chunk]]:
    """Return the columns of every row group of a ``pyarrow.parquet.ParquetFile``.

    Raises:
        InputError: the footer lacks something.
    """
    footer = io.BytesIO()
    reader.metadata.write_metadata_file(footer)
    data = footer.getvalue()
    try:
        # Behind four bytes of magic.
        groups = read_struct(data, 4)[0].get(4, [])
        return [[_chunk(column[3]) for column in group[1]] for group in groups]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"cannot read {label} (its footer is incomplete): it is damaged, copy it again") from error


def _chunk(column: Fields) -> Chunk:
    starts = [column[number] for number in (9, 11) if column.get(number, 0) > 0]
    path = ".".join(bytes(part).decode("utf-8", "replace") for part in column[3])
    values, plain, stored = (max(0, column[number]) for number in (5, 6, 7))
    return Chunk(path, values, plain, stored, min(starts, default=0))


def is_within(path: str, name: str) -> bool:
    """Return whether a column belongs to the field of that name, which may be nested."""
    return f"{path}.".startswith(f"{name}.")


def check_pages(file: Path | RemoteFile, groups: Sequence[Sequence[Chunk]], names: Sequence[str]) -> None:
    """Refuse a page that claims more bytes than the footer gives all of them: pyarrow would allocate what it claims.

    Args:
        file: the Parquet file. Behind a URL pages that lie close together are fetched at once and kept for who reads
            them next. Where they do not, each header is a request of its own: they are looked at only if the most that
            a page can claim is more than the bound on memory.
        groups: the row groups that are read next.
        names: the fields that are read of them.

    Raises:
        InputError: such a page, or what cannot be a page.
    """
    chunks = [chunk for group in groups for chunk in group if any(is_within(chunk.path, name) for name in names)]
    if isinstance(file, RemoteFile):
        start = min((chunk.start for chunk in chunks), default=0)
        stop = min(file.size, max((chunk.start + chunk.stored_bytes for chunk in chunks), default=0))
        if stop - start <= READ_BYTES:
            file.keep(start, stop + _HEADER)
        elif memory_bound() >= _MOST_CLAIMED:
            return
    with file.open("rb") as stream:
        for chunk in chunks:
            _check_pages(stream, file, chunk)


def _check_pages(stream: IO[bytes], file: Path | RemoteFile, chunk: Chunk) -> None:
    at, end = chunk.start, chunk.start + chunk.stored_bytes
    while at < end:
        header, size = _header(stream, at, file)
        for number, most in ((2, chunk.plain_bytes), (3, chunk.stored_bytes)):
            claimed = header.get(number)
            if not isinstance(claimed, int) or claimed < 0:
                raise _damaged(file)
            if claimed > max(most, _HARMLESS):
                why = f"a page of {chunk.path} claims {claimed:,} bytes, all its pages together have {most:,}"
                raise InputError(f"cannot read {file} ({why}): it is damaged, copy it again")
        at += size + header[3]


def _header(stream: IO[bytes], at: int, file: Path | RemoteFile) -> tuple[Fields, int]:
    size = _HEADER
    while size <= _LONGEST_HEADER:
        stream.seek(at)
        data = stream.read(size)
        try:
            return read_struct(data)
        except ValueError:
            if len(data) < size:
                break
            size *= 16
    raise _damaged(file)


def _damaged(file: Path | RemoteFile) -> InputError:
    return InputError(f"cannot read {file} (no page where its footer names one): it is damaged, copy it again")

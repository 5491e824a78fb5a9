"""The ids of images in Parquet files: a column of names, held as Arrow holds text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from engine.errors import InputError
from engine.sources.base import RowNumbers
from engine.sources.decode import AnyFile
from engine.sources.parquet_column import ID_NAMES
from engine.sources.parquet_pages import check_pages, row_groups
from engine.utils.optional import require

MOST_LETTERS = 1000
ROWS = 4096


class NamedRows(RowNumbers):
    """Names out of a ``pyarrow.LargeStringArray``, made when they are asked for."""

    def _text(self, row: Any) -> str:
        return str(row.as_py())

    def __iter__(self) -> Iterator[str]:
        """Yield all names."""
        for start in range(0, len(self._rows), ROWS):
            yield from self._rows.slice(start, ROWS).to_pylist()


def read_ids(
    files: Sequence[AnyFile],
    count: int,
    label: str,
    opened: Callable[..., Any],
    reading: Callable[[str], AbstractContextManager[None]],
) -> NamedRows | None:
    """Return the ids of all rows; None where the files have no column of ids.

    Args:
        files: the Parquet files, in order.
        count: rows of all of them.
        label: what messages call the set.
        opened: opens a file.
        reading: turns errors of pyarrow into one line.

    Raises:
        InputError: damaged, gaps, two images of one name, or names that no file can have.
    """
    arrow = require("pyarrow", "parquet", f"reading {label} needs pyarrow", InputError)
    compute = require("pyarrow.compute", "parquet", f"reading {label} needs pyarrow", InputError)
    parts: list[Any] = []
    named = _name_of(opened(files[0]).schema_arrow, arrow.types)
    if named is None:
        return None
    for file in files:
        # As a dictionary a long name that is repeated takes its memory once, until its length is known.
        reader = opened(file, read_dictionary=[named])
        if _name_of(reader.schema_arrow, arrow.types) != named:
            raise InputError(f"{file} has no column {named} of ids, {files[0]} has one: all files must be alike")
        check_pages(file, row_groups(reader, str(file)), [named])
        with reading(str(file)):
            for batch in reader.iter_batches(ROWS, columns=[named], use_threads=False):
                parts.append(_texts(batch.column(0), file, named, arrow, compute))
    with reading(label):
        names = arrow.concat_arrays(parts) if parts else arrow.array([], arrow.large_string())
        names.validate(full=True)  # bytes that are not UTF-8, which Arrow itself lets pass until they are shown
        broken = compute.match_substring_regex(names, r"\p{Cc}")
        distinct = compute.count_distinct(names).as_py()
        if len(names) != count:
            raise InputError(f"{label} holds {len(names)} ids for {count} images: it is damaged, copy it again")
        if compute.any(broken).as_py():
            name = names.filter(broken)[0].as_py()
            raise InputError(f"{label} holds an id with a line break or another control character, {name!r}: rename it")
        if distinct < count:
            found = compute.value_counts(names)
            twin = found.filter(compute.greater(found.field("counts"), 1))[0].as_py()["values"]
            raise InputError(f"{label} holds two images named {twin}: every id must be one image, rename one of them")
    return NamedRows(names)


def _name_of(schema: Any, types: Any) -> str | None:
    """Return the column of ids of an Arrow schema."""

    def usable(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        tests = (types.is_integer, types.is_string, types.is_large_string, types.is_string_view)
        return any(test(kind) for test in tests)

    return next((name for name in ID_NAMES if name in schema.names and usable(schema.field(name).type)), None)


def _texts(values: Any, file: AnyFile, named: str, arrow: Any, compute: Any) -> Any:
    """Return a column's values as text.

    Raises:
        InputError: gaps, or very long names.
    """
    if values.null_count:
        raise InputError(f"{file}: column {named} has gaps: every image needs an id")
    held = values.dictionary if arrow.types.is_dictionary(values.type) else values
    if arrow.types.is_string_view(held.type):  # Arrow measures no views
        held = held.cast(arrow.large_string())
    if not arrow.types.is_integer(held.type):
        longest = compute.max(compute.binary_length(held)).as_py() or 0
        if longest > MOST_LETTERS:
            raise InputError(f"{file}: column {named} holds an id of {longest} bytes; {MOST_LETTERS} are allowed")
    return values.cast(arrow.large_string())

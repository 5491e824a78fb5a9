"""What is read of footers and page headers is what pyarrow reads of sound files; too large a claim is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.sources import parquet_pages
from engine.sources.parquet import open_file
from engine.sources.parquet_pages import Chunk, check_pages, row_groups
from engine.sources.remote import RemoteFile, locate

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

ROWS = 7
COLUMNS = {
    "image": arrow.array([{"bytes": bytes(range(20 + row)), "path": f"{row}.png"} for row in range(ROWS)]),
    "lists": arrow.array([list(range(row)) for row in range(ROWS)]),
    "id": arrow.array([f"tile {row % 3}" for row in range(ROWS)]),
    "width": arrow.array(range(ROWS)),
    "gaps": arrow.array([None, True, False, None, True, None, None]),
    "share": arrow.array([0.5 * row for row in range(ROWS)]),
}
WRITERS = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "zstd", "gzip", "snappy"]),
        "use_dictionary": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "version": st.sampled_from(["1.0", "2.6"]),
        "row_group_size": st.integers(1, ROWS),
        "data_page_size": st.sampled_from([1, 100, None]),
        "write_statistics": st.booleans(),
    }
)


def written(folder: Path, names: set[str], options: dict[str, Any]) -> Path:
    file = folder / "x.parquet"
    parquet.write_table(arrow.table({name: COLUMNS[name] for name in sorted(names)}), file, **options)
    return file


@given(names=st.sets(st.sampled_from(sorted(COLUMNS)), min_size=1), options=WRITERS)
def test_footers_are_read_as_pyarrow_reads_them(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], options: dict[str, Any]
) -> None:
    file = written(tmp_path_factory.mktemp("pages"), names, options)
    reader = parquet.ParquetFile(file)
    found = row_groups(reader, str(file))
    assert len(found) == reader.num_row_groups
    for index, chunks in enumerate(found):
        group = reader.metadata.row_group(index)
        for number, chunk in enumerate(chunks):
            column = group.column(number)
            starts = [at for at in (column.dictionary_page_offset, column.data_page_offset) if at]
            sizes = (column.num_values, column.total_uncompressed_size, column.total_compressed_size)
            assert chunk == Chunk(column.path_in_schema, *sizes, min(starts))
    check_pages(file, found, sorted(names))


def test_a_page_header_with_a_picture_in_its_statistics(tmp_path: Path) -> None:
    """It is longer than what is read of a header at first."""
    file = tmp_path / "x.parquet"
    values = [bytes([row]) * 9000 for row in range(3)]
    parquet.write_table(arrow.table({"image": values}), file, write_page_index=False)
    check_pages(file, row_groups(parquet.ParquetFile(file), "x"), ["image"])


@pytest.mark.parametrize("less", [{"plain_bytes": 1}, {"stored_bytes": 1}])
def test_a_page_that_claims_more_than_all_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, less: dict[str, int]
) -> None:
    file = written(tmp_path, {"lists"}, {})
    chunk = row_groups(parquet.ParquetFile(file), "x")[0][0]
    check_pages(file, [[replace(chunk, **less)]], ["lists"])
    monkeypatch.setattr(parquet_pages, "_HARMLESS", 0)
    with pytest.raises(InputError, match=r"a page of lists\.list\.element claims \d+ bytes, all its"):
        check_pages(file, [[replace(chunk, **less)]], ["lists"])
    check_pages(file, [[replace(chunk, **less)]], ["other"])


def test_behind_a_url_pages_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their headers are looked at and the pages are then read out of one answer."""
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    path = written(tmp_path, {"lists", "id"}, {"data_page_size": 1})
    file, asked = locate(f"file://{path}")[0], []
    whole = RemoteFile.range
    monkeypatch.setattr(RemoteFile, "range", lambda file, *ends: asked.append(ends) or whole(file, *ends))
    reader = open_file(file)
    groups, before = row_groups(reader, "x"), len(asked)
    check_pages(file, groups, ["lists", "id"])
    assert next(reader.iter_batches(ROWS)).num_rows == ROWS
    assert sum(start < stop for start, stop in asked[before:]) == 1
    monkeypatch.setattr(parquet_pages, "_HARMLESS", 0)
    claimed = [[replace(chunk, plain_bytes=1) for chunk in groups[0]]]
    with pytest.raises(InputError, match=r"a page of \S+ claims \d+ bytes, all its"):
        check_pages(file, claimed, ["lists"])


def test_no_page_where_the_footer_names_one(tmp_path: Path) -> None:
    file = written(tmp_path, {"lists"}, {})
    chunk = row_groups(parquet.ParquetFile(file), "x")[0][0]
    with pytest.raises(InputError, match="no page where its footer names one"):
        check_pages(file, [[replace(chunk, start=file.stat().st_size)]], ["lists"])

"""A table with one row per image, written as the rows come: .csv or .parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from engine.errors import OutputError
from engine.outputs.base import Writer, cannot_write
from engine.utils.optional import require

# Rows of a row group of Parquet.
GROUP = 4096


class TableWriter(Writer):
    """Writes rows under a header; numbers that are not known stay empty."""

    def __init__(self, output: Path, columns: dict[str, type], rows: int) -> None:
        """Remember what is to be written; nothing is opened yet.

        Args:
            output: the file, .csv or .parquet.
            columns: names and types (str, int or float), in order.
            rows: how many rows will come.
        """
        super().__init__(output)
        self.columns, self.rows = columns, rows
        self.written = 0
        self._stream: IO[str] | None = None
        self._parquet: Any = None

    def write(self, values: Sequence[Any]) -> None:
        """Append a row; None for what is not known.

        Raises:
            OutputError: the disk refuses.
        """
        try:
            if self._stream is not None:
                csv.writer(self._stream, lineterminator="\n").writerow(
                    ["" if value is None else f"{value:.6g}" if isinstance(value, float) else value for value in values]
                )
            else:
                self._held.append(list(values))
                if len(self._held) == GROUP:
                    self._flush()
        except OSError as error:
            raise cannot_write(self.output, error) from None
        self.written += 1

    def _open(self) -> None:
        if self.output.suffix.lower() == ".csv":
            self._stream = self.partial.open("w", encoding="utf-8", errors="backslashreplace", newline="")
            csv.writer(self._stream, lineterminator="\n").writerow(list(self.columns))
            return
        arrow = require("pyarrow", "parquet", f"writing {self.output} needs pyarrow", OutputError)
        from pyarrow import parquet

        kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
        self._schema = arrow.schema([(name, kinds[kind]) for name, kind in self.columns.items()])
        self._held: list[list[Any]] = []
        self._parquet = parquet.ParquetWriter(self.partial, self._schema)

    def _flush(self) -> None:
        import pyarrow

        columns = [list(column) for column in zip(*self._held, strict=True)]
        arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._held = []

    def _close(self) -> None:
        if self._parquet is not None:
            if self._held:
                self._flush()
            self._parquet.close()
        if self._stream is not None:
            self._stream.close()

    def _abandon(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._parquet is not None:
            self._parquet.close()

    def _check_complete(self) -> None:
        if self.written != self.rows:
            raise OutputError(f"{self.written} of {self.rows} rows came: {self.output} was not written")

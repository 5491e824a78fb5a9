"""Masks as NumPy arrays: .npy and .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from engine.outputs.base import StreamWriter
from engine.outputs.sidecar import record_text
from engine.sources.record import NPZ_KEY


class NpyWriter(StreamWriter):
    """One uint8 array (images, height, width)."""

    holds = "uint8 masks"

    def _open(self) -> None:
        super()._open()
        assert self.stream is not None
        write_header(self.stream, (len(self.ids), *self.size))

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        assert self.stream is not None
        self.stream.write(labels.data)


class NpzWriter(NpyWriter):
    """``masks`` uint8 (images, height, width), ``ids`` (images,) and ``metadata`` (JSON text), compressed."""

    _archive: zipfile.ZipFile | None = None

    def _open(self) -> None:
        self._archive = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self.stream = self._archive.open("masks.npy", "w", force_zip64=True)
        write_header(self.stream, (len(self.ids), *self.size))

    def _close(self) -> None:
        super()._close()
        assert self._archive is not None
        entries = {"ids": np.array(list(self.ids), dtype=np.str_)}
        if self.record is not None:
            entries[NPZ_KEY] = np.array(record_text(self.record))
        with self._archive:
            for name, array in entries.items():
                with self._archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)

    def _abandon(self) -> None:
        super()._close()
        if self._archive is not None:
            self._archive.close()


def write_header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    """Write the header of a C-ordered uint8 array."""
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})

"""Masks -> submission CSV, .npz, .npy or a folder of palette PNGs; renamed to their goal when complete."""

from __future__ import annotations

import os
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.palette import colours
from engine.sidecar import NPZ_KEY, check_sidecar, record_text, sidecar

FORMATS = ".csv (submission), .npz or .npy (uint8 masks), or a folder (palette PNGs)"


class MaskWriter(ABC):
    """Takes batches of masks in order; the goal appears complete, or not at all.

    Use it as a context manager: leaving without an error puts the result in place, an error removes what there was.
    """

    def __init__(
        self,
        goal: Path,
        ids: Sequence[str],
        size: tuple[int, int],
        classes: int,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember what is to be written; nothing is opened yet.

        Args:
            goal: file or folder to make.
            ids: names of all images, in order.
            size: (height, width) of a mask.
            classes: number of classes.
            record: plain JSON values about the run that go with the masks; None for none.
        """
        self.record = record
        self.goal, self.ids, self.size, self.classes = goal, ids, size, classes
        self.partial = goal.with_name(f".{goal.name}.partial-{os.getpid()}")
        self.written = 0

    def __enter__(self) -> Self:
        """Open the partial result.

        Raises:
            OutputError: it cannot be written there.
        """
        try:
            self._open()
        except OSError as error:
            raise _cannot_write(self.goal, error) from None
        return self

    def write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        """Append masks.

        Args:
            ids: (batch,) names of the images.
            labels: uint8 (batch, pixels).

        Raises:
            OutputError: the disk refuses.
        """
        try:
            self._write(ids, labels)
        except OSError as error:
            raise _cannot_write(self.goal, error) from None
        self.written += len(ids)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the complete result in place, or remove the partial one.

        Raises:
            OutputError: masks are missing, or the disk refuses.
        """
        try:
            self._close()
            if error is None:
                if self.written != len(self.ids):
                    raise OutputError(f"{self.written} of {len(self.ids)} masks came: {self.goal} was not written")
                self._place_all()
        except OSError as refusal:
            if error is None:
                raise _cannot_write(self.goal, refusal) from None
        finally:
            self._remove()

    def _place_all(self) -> None:
        """Put the masks in place and their record beside them; the record is on disk before either is renamed."""
        beside = sidecar(self.goal) if self.record is not None else None
        if beside is None or self.record is None:
            self._place()
            return
        waiting = beside.with_name(f".{beside.name}.partial-{os.getpid()}")
        try:
            waiting.write_text(record_text(self.record), "utf-8")
            self._place()
            waiting.replace(beside)
        finally:
            waiting.unlink(missing_ok=True)

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _place(self) -> None:
        with self.partial.open("rb") as stream:
            os.fsync(stream.fileno())
        self.partial.replace(self.goal)

    def _remove(self) -> None:
        self.partial.unlink(missing_ok=True)


class _StreamWriter(MaskWriter):
    """A result that is one file."""

    stream: IO[bytes] | None = None

    def _open(self) -> None:
        self.stream = self.partial.open("wb")

    def _close(self) -> None:
        if self.stream is not None:
            self.stream.close()


class CsvWriter(_StreamWriter):
    """The submission form: header ``id,0,1,...``, a row an image, row-major labels."""

    def _open(self) -> None:
        super()._open()
        pixels = self.size[0] * self.size[1]
        self._text = np.empty(4 * pixels, np.uint8)
        assert self.stream is not None
        self.stream.write(("id," + ",".join(map(str, range(pixels))) + "\n").encode())

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        from engine.kernels.text import write_digits

        assert self.stream is not None
        for name, row in zip(ids, labels, strict=True):
            length = write_digits(self._text, row)
            # File names need not be UTF-8; their bytes come out as they are.
            self.stream.write(_quoted(name).encode("utf-8", "surrogateescape"))
            self.stream.write(self._text[:length].data)
            self.stream.write(b"\n")


class NpyWriter(_StreamWriter):
    """One uint8 array (images, height, width)."""

    def _header(self, stream: IO[bytes]) -> None:
        shape = (len(self.ids), *self.size)
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def _open(self) -> None:
        super()._open()
        assert self.stream is not None
        self._header(self.stream)

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        assert self.stream is not None
        self.stream.write(np.ascontiguousarray(labels).data)


class NpzWriter(NpyWriter):
    """``masks`` uint8 (images, height, width), ``ids`` (images,) and ``metadata`` (JSON text), compressed."""

    def _open(self) -> None:
        self._archive = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self.stream = self._archive.open("masks.npy", "w", force_zip64=True)
        self._header(self.stream)

    def _close(self) -> None:
        super()._close()
        entries = {"ids": np.array(list(self.ids), dtype=np.str_)}
        if self.record is not None:
            entries[NPZ_KEY] = np.array(record_text(self.record))
        with self._archive:
            for name, array in entries.items():
                with self._archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)


class PngWriter(MaskWriter):
    """A folder with a palette PNG an image, named as the input."""

    def _open(self) -> None:
        self.partial.mkdir()
        self._palette = [value for colour in colours(self.classes) for value in colour]

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        from PIL import Image

        for name, row in zip(ids, labels, strict=True):
            mask = Image.fromarray(row.reshape(self.size))
            mask.putpalette(self._palette)
            mask.save(self.partial / f"{name}.png", optimize=False)

    def _close(self) -> None: ...

    def _place(self) -> None:
        if self.goal.exists():
            aside = self.goal.with_name(f".{self.goal.name}.replaced-{os.getpid()}")
            self.goal.rename(aside)
            self.partial.rename(self.goal)
            shutil.rmtree(aside)
        else:
            self.partial.rename(self.goal)

    def _remove(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)


WRITERS: dict[str, type[MaskWriter]] = {".csv": CsvWriter, ".npy": NpyWriter, ".npz": NpzWriter, "": PngWriter}


def open_writer(
    goal: Path,
    ids: Sequence[str],
    size: tuple[int, int],
    classes: int,
    overwrite: bool = False,
    record: Mapping[str, Any] | None = None,
) -> MaskWriter:
    """Choose the writer by the suffix of the goal.

    Args:
        goal: file or folder to make.
        ids: names of all images, in order.
        size: (height, width) of a mask.
        classes: number of classes.
        overwrite: replace what is there.
        record: what goes with the masks, see :func:`engine.record.run_record`: into an .npz as ``metadata``, beside
            anything else as ``GOAL.json``; None for none.

    Raises:
        OutputError: unknown suffix, no such folder, or something is there and ``overwrite`` is not set.
    """
    check_goal(goal, overwrite)
    if record is not None:
        check_sidecar(goal, overwrite)
    return WRITERS[goal.suffix.lower()](goal, ids, size, classes, record)


def check_goal(goal: Path, overwrite: bool) -> None:
    """Refuse a goal that cannot become a mask file or folder.

    Raises:
        OutputError: unknown suffix, no such folder, or something is there and ``overwrite`` is not set.
    """
    if goal.name in ("", ".."):
        raise OutputError(f"cannot write {goal}: name a file or a folder of its own")
    if goal.suffix.lower() not in WRITERS:
        raise OutputError(f"cannot write {goal.suffix} ({goal}); allowed are {FORMATS}")
    check_replaceable(goal, overwrite)
    if goal.exists() and (goal.suffix == "") != goal.is_dir():
        raise OutputError(f"{goal} is {'a folder' if goal.is_dir() else 'a file'}: choose another name")
    if goal.is_dir() and any(path.suffix.lower() != ".png" for path in goal.iterdir()):
        raise OutputError(f"{goal} holds more than PNG files, so it is not replaced: choose another folder")


def check_replaceable(goal: Path, overwrite: bool) -> None:
    """Refuse a path that exists (unless ``overwrite``) or whose folder cannot be written.

    Raises:
        OutputError: saying which.
    """
    if goal.exists() and not overwrite:
        raise OutputError(f"{goal} exists: add --overwrite to replace it, or choose another name")
    if not goal.parent.is_dir():
        raise OutputError(f"no such folder: {goal.parent}; make it first")
    if not os.access(goal.parent, os.W_OK):
        raise OutputError(f"cannot write into {goal.parent}: choose another folder")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(character in name for character in ',"\r\n') else name


def _cannot_write(goal: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {goal} ({error.strerror or error}): choose another place or make space")

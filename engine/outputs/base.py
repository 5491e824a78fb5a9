"""What all writers share: the result appears complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.sidecar import record_text
from engine.sources.record import sidecar
from engine.utils.files import replacing, temporary_name


class Writer(ABC):
    """Makes one file or folder.

    Use it as a context manager: leaving without an error puts the result in place, an error removes what there was.
    """

    def __init__(self, output: Path, record: Mapping[str, Any] | None = None) -> None:
        """Remember what is to be made; nothing is opened yet.

        Args:
            output: file or folder to make.
            record: plain JSON values about the run that go with the masks; None for none.
        """
        self.output, self.record = output, record
        self.partial = temporary_name(output)

    def __enter__(self) -> Self:
        """Open the partial result.

        Raises:
            OutputError: it cannot be written there.
        """
        try:
            self._open()
        except OSError as error:
            self._give_up()
            raise cannot_write(self.output, error) from None
        except BaseException:
            self._give_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the complete result in place, or remove the partial one.

        Raises:
            OutputError: masks are missing, or the disk refuses.
        """
        try:
            if error is None:
                self._close()
                self._check_complete()
                self._place_all()
        except OSError as refusal:
            raise cannot_write(self.output, refusal) from None
        finally:
            self._give_up()

    def _place_all(self) -> None:
        """Put the masks in place and their record beside them; the record is on disk before either is renamed."""
        beside = sidecar(self.output) if self.record is not None else None
        if beside is None or self.record is None:
            self._place()
            return
        with replacing(beside) as waiting:
            waiting.write_text(record_text(self.record), "utf-8")
            self._place()

    def _give_up(self) -> None:
        """Let go of what is open and remove the partial result; where there was an error, it is told elsewhere."""
        # A full disk refuses the last bytes of a file that is about to be removed.
        with contextlib.suppress(OSError):
            self._abandon()
        self._remove()

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _close(self) -> None:
        """Finish the partial result."""

    def _abandon(self) -> None:
        """Let go of what is open, without finishing it; called at the very end in any case."""
        self._close()

    @abstractmethod
    def _check_complete(self) -> None:
        """Raise OutputError where something is missing."""

    def _place(self) -> None:
        with self.partial.open("rb") as stream:
            os.fsync(stream.fileno())
        self.partial.replace(self.output)

    def _remove(self) -> None:
        self.partial.unlink(missing_ok=True)


class FolderMixin:
    """A result that is a folder; mixed into a :class:`Writer`."""

    output: Path
    partial: Path

    def _place(self) -> None:
        if not self.output.exists():
            self.partial.rename(self.output)
            return
        aside = temporary_name(self.output, "replaced")
        self.output.rename(aside)
        try:
            self.partial.rename(self.output)
        except OSError:
            aside.rename(self.output)
            raise
        shutil.rmtree(aside)

    def _remove(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)


class MaskWriter(Writer):
    """Takes batches of masks of one size, in order.

    Attributes:
        holds: what the form holds, in words.
        needs: the module it imports and the extra of ``maskfuse`` that brings it; None where it needs none.
    """

    holds: ClassVar[str]
    needs: ClassVar[tuple[str, str] | None] = None

    def __init__(
        self,
        output: Path,
        ids: Sequence[str],
        size: tuple[int, ...],
        classes: int,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember what is to be written; nothing is opened yet.

        Args:
            output: file or folder to make.
            ids: names of all images, in order.
            size: (height, width) of a mask; of arrays any further axes before them.
            classes: number of classes.
            record: plain JSON values about the run that go with the masks; None for none.
        """
        super().__init__(output, record)
        self.ids, self.size, self.classes = ids, size, classes
        self.written = 0

    def write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        """Append masks.

        Args:
            ids: (batch,) names of the images.
            labels: uint8 (batch, pixels).

        Raises:
            OutputError: the disk refuses.
        """
        try:
            self._write(ids, np.ascontiguousarray(labels))
        except OSError as error:
            raise cannot_write(self.output, error) from None
        self.written += len(ids)

    def _check_complete(self) -> None:
        if self.written != len(self.ids):
            raise OutputError(f"{self.written} of {len(self.ids)} masks came: {self.output} was not written")

    @abstractmethod
    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None: ...


class StreamWriter(MaskWriter):
    """Masks in one file."""

    stream: IO[bytes] | None = None

    def _open(self) -> None:
        self.stream = self.partial.open("wb")

    def _close(self) -> None:
        if self.stream is not None:
            self.stream.close()


def cannot_write(output: Path, error: OSError) -> OutputError:
    """Return the error that says why the system refuses a result."""
    return OutputError(f"cannot write {output} ({error.strerror or error}): choose another place or make space")

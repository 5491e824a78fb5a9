"""One run per output: a lock that the operating system releases when its process dies, whatever killed it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import lock_descriptor

from engine.errors import OutputError

NAME = "lock"
# Offset of the process number in the file: on Windows others cannot read the locked byte.
NUMBER_AT = 1


class Lock:
    """An exclusive lock on a folder until it is closed or the process dies.

    filelock takes the system's lock on our descriptor. Its own lock objects leave their file in place, so a folder
    could not be removed at the end; and they create a missing file, which :func:`is_locked` must not. The removal is
    made safe here: the file is removed while locked, and a process that locks a removed file starts again.
    Each object has its own descriptor, so two of them exclude each other even in one process and thread.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock; the folder is created if missing.

        Args:
            folder: the folder to lock; its file ``lock`` contains the process number.

        Raises:
            OutputError: another process holds it.
            OSError: the operating system refuses the folder or the file.
        """
        self.path = folder / NAME
        self._descriptor = -1
        while self._descriptor < 0:
            try:
                folder.mkdir()
            except FileExistsError:  # exist_ok=True would check again, and fail if it has been removed since
                if folder.is_symlink() and not folder.is_dir():
                    raise
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # its last holder is just removing the folder
                continue
            try:
                if not lock_descriptor(descriptor, blocking=False):
                    holder = _holder(descriptor)
                    raise OutputError(
                        f"{folder} is in use by {holder}: wait for it, or choose another name for the output"
                    )
                if self._still_there(descriptor):
                    _sign(descriptor)
                    self._descriptor = descriptor
            finally:
                if self._descriptor != descriptor:
                    os.close(descriptor)

    def _still_there(self, descriptor: int) -> bool:
        """Return whether the locked file still has that name: its last holder may just have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self, remove: bool = False) -> None:
        """Release the lock; with ``remove`` also remove the lock file and its folder, which must be empty."""
        if self._descriptor < 0:
            return
        if remove and sys.platform != "win32":  # an open file can be unlinked: no other process gets in between
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1
        if remove:
            with contextlib.suppress(OSError):  # a second run may already use it
                if sys.platform == "win32":  # refused while another run has the file open
                    self.path.unlink(missing_ok=True)
                self.path.parent.rmdir()

    def __enter__(self) -> Self:
        """Return the lock."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""
        self.close()


def is_locked(folder: Path) -> str:
    """Return who holds the lock of a folder, in words; empty if it is free."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return ""
    try:
        return "" if lock_descriptor(descriptor, blocking=False) else _holder(descriptor)
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Write the number of this process into the locked file."""
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b" " * NUMBER_AT + str(os.getpid()).encode())


def _holder(descriptor: int) -> str:
    try:
        os.lseek(descriptor, NUMBER_AT, os.SEEK_SET)
        number = os.read(descriptor, 20)
    except OSError:
        number = b""
    return f"process {int(number)}" if number.isdigit() else "another process"

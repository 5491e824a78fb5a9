"""One run an output: a lock that the system itself takes back when its process dies, whatever killed it."""

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
# Where the number of the process stands in the file: Windows keeps others from reading the byte that is locked.
NUMBER_AT = 1


class Lock:
    """An exclusive lock on a folder, held until it is closed or the process dies.

    filelock takes the system's lock on a descriptor of ours. Its own lock objects leave their file where it is, so a
    folder could not be removed at the end; and they make a missing file, which :func:`is_locked` must not. What keeps
    the removal safe is here: the file goes while it is locked, and whoever locks a file that has gone starts again.
    Each object has a descriptor of its own, so two of them exclude each other in one process and one thread too.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock; the folder is made where it is missing.

        Args:
            folder: what is locked; the file ``lock`` in it holds the number of the process.

        Raises:
            OutputError: another process holds it.
            OSError: the system refuses the folder or the file.
        """
        self.path = folder / NAME
        self._descriptor = -1
        while self._descriptor < 0:
            try:
                folder.mkdir()
            except FileExistsError:  # exist_ok=True would look again, and fail where it has gone since
                if folder.is_symlink() and not folder.is_dir():
                    raise
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # its last holder is removing the folder at this moment
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
        """Return whether the locked file is still the one of that name: its last holder may just have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self, remove: bool = False) -> None:
        """Give the lock back; with ``remove`` the lock file and its folder, which must be empty, go too."""
        if self._descriptor < 0:
            return
        if remove and sys.platform != "win32":  # an open file can be unlinked: nobody gets in between
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1
        if remove:
            with contextlib.suppress(OSError):  # a second run may have made itself at home already
                if sys.platform == "win32":  # refused while another run has the file open
                    self.path.unlink(missing_ok=True)
                self.path.parent.rmdir()

    def __enter__(self) -> Self:
        """Return the lock."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self.close()


def is_locked(folder: Path) -> str:
    """Return who holds the lock of a folder, in words; empty when nobody does."""
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

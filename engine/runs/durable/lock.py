"""One run an output: a lock that the system itself takes back when its process dies, whatever killed it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import OutputError

NAME = "lock"


class Lock:
    """An exclusive lock on a folder, held until it is closed or the process dies."""

    def __init__(self, folder: Path) -> None:
        """Take the lock; the folder is made where it is missing.

        Args:
            folder: what is locked; the file ``lock`` in it holds the number of the process.

        Raises:
            OutputError: another process holds it.
            OSError: the system refuses the folder or the file.
        """
        self.path = folder / NAME
        while True:
            folder.mkdir(exist_ok=True)
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # its last holder is removing the folder at this moment
                continue
            if not _try_lock(self._descriptor):
                holder = _holder(self._descriptor)
                os.close(self._descriptor)
                raise OutputError(f"{folder} is in use by {holder}: wait for it, or choose another name for the output")
            if self._still_there():
                break
            os.close(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0) if hasattr(os, "pwrite") else None

    def _still_there(self) -> bool:
        """Return whether the locked file is still the one of that name: its last holder may just have removed it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
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
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a second run may have made itself at home already
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
        return "" if _try_lock(descriptor) else _holder(descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        number = os.read(descriptor, 20)
    except OSError:
        number = b""
    return f"process {int(number)}" if number.isdigit() else "another process"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        # Far behind the process number: Windows locks bytes against reading too.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

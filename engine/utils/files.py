"""Files that appear complete or not at all, and the temporary files that a killed process leaves."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

# Distinguishes this process from others with the same number: the first process of every container has number 1.
_TOKEN = secrets.token_hex(4)
_NUMBERS = count()
# Start of a temporary name's ending: a process number and that process's token, which older names lack.
_OWNER = re.compile("([0-9]+)(?:-([0-9a-f]+))?")


def temporary_name(path: Path, mark: str = "partial", suffix: str = "") -> Path:
    """Return a hidden name in the same folder, unique to this process, thread and call.

    Args:
        path: the file or folder to write or replace.
        mark: ``partial`` for what is half-written, ``replaced`` for an output that has already been replaced.
        suffix: ending of the name, for writers that require one.
    """
    return path.with_name(f".{path.name}.{mark}-{os.getpid()}-{_TOKEN}-{next(_NUMBERS)}{suffix}")


def followed(path: Path) -> Path:
    """Return what a symbolic link names, which need not exist; any other path unchanged.

    A file that is renamed onto a link replaces the link and leaves its target as it was.
    """
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError):  # a circle of links: opening it gives the reason
        return path


@contextlib.contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it replaces ``path``, else it is removed.

    Args:
        path: the file to write, or a symbolic link to it.
        suffix: ending of the temporary name, for writers that require one.

    Raises:
        OSError: the operating system refuses.
    """
    path = followed(path)
    partial = temporary_name(path, suffix=suffix)
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # the error being raised says more
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears complete or not at all.

    Raises:
        OSError: the operating system refuses.
        UnicodeEncodeError: the text contains lone surrogates (bytes of a file name that are not UTF-8).
    """
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def clear_left_over(output: Path, mark: str) -> None:
    """Remove temporary files of killed processes beside an output; those of running processes stay.

    Call it while holding the lock on the output: it works across containers, process numbers do not.

    Args:
        output: the output.
        mark: ``partial`` for what is half-written, ``replaced`` for an output that has already been replaced.

    Raises:
        OSError: the operating system refuses.
    """
    for name in (output.name, f"{output.name}.json"):
        for path in output.parent.glob(glob.escape(f".{name}.{mark}-") + "*"):
            if _is_stale(path.name.removeprefix(f".{name}.{mark}-")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_stale(owner: str) -> bool:
    """Return whether the process named in the ending of a temporary name has ended."""
    found = _OWNER.match(owner)
    if found is None:
        return False
    number, token = found.groups()
    if number == str(os.getpid()):
        # Another token: an earlier process with the same number, or one in another container.
        return token != _TOKEN
    return _is_dead(number)


def _is_dead(number: str) -> bool:
    """Return whether no process has this number; False where that cannot be determined."""
    if int(number) >= 1 << 31 or os.name == "nt":
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def sync_output(output: Path) -> None:
    """Flush a finished output and its name to disk.

    Raises:
        OSError: the disk refuses.
    """
    if output.is_dir() and hasattr(os, "sync"):
        os.sync()  # thousands of files: one call for all of them
    sync_folder(output.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system supports it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot: the files themselves were synced
        pass
    finally:
        os.close(descriptor)

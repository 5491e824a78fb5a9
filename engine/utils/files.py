"""Files that appear whole or not at all, and what a killed process leaves of them."""

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

# Tells this process from others with its number: the first process of every container has number 1.
_TOKEN = secrets.token_hex(4)
_NUMBERS = count()
# How the end of a temporary name begins: a process number and that process's token, which older names lack.
_OWNER = re.compile("([0-9]+)(?:-([0-9a-f]+))?")


def temporary_name(path: Path, mark: str = "partial", suffix: str = "") -> Path:
    """Return a hidden name beside a path that no other process, thread or call is given.

    Args:
        path: what is written or replaced.
        mark: ``partial`` for what is half-written, ``replaced`` for an output whose successor is in place by now.
        suffix: ending of the name, for writers that insist on one.
    """
    return path.with_name(f".{path.name}.{mark}-{os.getpid()}-{_TOKEN}-{next(_NUMBERS)}{suffix}")


@contextlib.contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it takes the place of ``path``, else it is removed.

    Args:
        path: the file to write in the end.
        suffix: ending of the temporary name, for writers that insist on one.

    Raises:
        OSError: the system refuses.
    """
    partial = temporary_name(path, suffix=suffix)
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # the error that is under way says more
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        OSError: the system refuses.
        UnicodeEncodeError: the text holds lone surrogates (bytes of a file name that are not UTF-8).
    """
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def clear_left_over(output: Path, mark: str) -> None:
    """Remove what killed processes have left beside an output; those that live keep theirs.

    Call it with the lock on the output, which holds across containers: process numbers do not.

    Args:
        output: the output.
        mark: ``partial`` for what is half-written, ``replaced`` for an output whose successor is in place by now.

    Raises:
        OSError: the system refuses.
    """
    for name in (output.name, f"{output.name}.json"):
        for path in output.parent.glob(glob.escape(f".{name}.{mark}-") + "*"):
            if _is_stale(path.name.removeprefix(f".{name}.{mark}-")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_stale(owner: str) -> bool:
    """Return whether the process that the end of a temporary name tells of has ended."""
    found = _OWNER.match(owner)
    if found is None:
        return False
    number, token = found.groups()
    if number == str(os.getpid()):
        # Not of this process: one with the same number had it before, or in another container.
        return token != _TOKEN
    return _is_dead(number)


def _is_dead(number: str) -> bool:
    """Return whether no process has this number; False where that cannot be told."""
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
    """Bring a finished output and its name to disk.

    Raises:
        OSError: the disk refuses.
    """
    if output.is_dir() and hasattr(os, "sync"):
        os.sync()  # thousands of files: one call for all of them
    sync_folder(output.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot: the files themselves were synced
        pass
    finally:
        os.close(descriptor)

"""Files that appear complete or not at all, and the temporary files that a killed process leaves."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

# Names that this process has given out. A process that is forked knows those of its parent, and makes others.
_OURS: set[str] = set()
# Endings of temporary names: a random token, in earlier versions a process number.
_ENDING = re.compile("[0-9a-f]{16}|[0-9]+(-|$)")


def temporary_name(path: Path, mark: str = "partial", suffix: str = "") -> Path:
    """Return a hidden name in the same folder, unique to this call.

    It is random: processes in different containers have the same numbers.

    Args:
        path: the file or folder to write or replace.
        mark: ``partial`` for what is half-written, ``replaced`` for an output that has already been replaced.
        suffix: ending of the name, for writers that require one.
    """
    name = f".{path.name}.{mark}-{secrets.token_hex(8)}{suffix}"
    _OURS.add(name)
    return path.with_name(name)


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
    """Remove temporary files of earlier processes beside an output; those of this process stay.

    Call it while holding the lock on the output: no other process then writes it, in this container or another one.

    Args:
        output: the output.
        mark: ``partial`` for what is half-written, ``replaced`` for an output that has already been replaced.

    Raises:
        OSError: the operating system refuses.
    """
    for name in (output.name, f"{output.name}.json"):
        start = f".{name}.{mark}-"
        for path in output.parent.glob(glob.escape(start) + "*"):
            if _ENDING.match(path.name.removeprefix(start)) and not path.name.startswith(tuple(_OURS)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


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

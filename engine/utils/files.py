"""Files that appear whole or not at all, and what a killed process leaves of them."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        OSError: the system refuses.
        UnicodeEncodeError: the text holds lone surrogates (bytes of a file name that are not UTF-8).
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def clear_left_over(output: Path, mark: str) -> None:
    """Remove what killed processes have left beside an output; those that live keep theirs.

    Args:
        output: the output.
        mark: ``partial`` for what is half-written, ``replaced`` for an output whose successor is in place by now.

    Raises:
        OSError: the system refuses.
    """
    for name in (output.name, f"{output.name}.json"):
        for path in output.parent.glob(glob.escape(f".{name}.{mark}-") + "*"):
            if _is_dead(path.name.rpartition("-")[2]):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_dead(number: str) -> bool:
    """Return whether no process has this number; False where that cannot be told."""
    if not number.isdecimal() or int(number) >= 1 << 31 or os.name == "nt":
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

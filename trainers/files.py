"""Writing results: never a partial file, never a silent overwrite."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine.errors import InputError, OutputError
from engine.utils import files


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it replaces ``path``, otherwise it is removed.

    Args:
        path: the file to write in the end.
        suffix: suffix of the temporary name, for writers that require one.

    Raises:
        OutputError: the file cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path, suffix) as partial:
            yield partial
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None


def refuse_existing(paths: Iterable[Path], overwrite: bool, hint: Mapping[str, str] | None = None) -> None:
    """Refuse to start if a result already exists, or could not be written after hours of work.

    Args:
        paths: the results.
        overwrite: replace existing files.
        hint: what else to do about an existing file, by the end of its name.

    Raises:
        OutputError: a path exists and ``overwrite`` is False, it is a folder, or its folder cannot be written to.
    """
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give the name of a file")
        if path.exists() and not overwrite:
            advice = "give --overwrite to replace it or another --out"
            for ending, text in (hint or {}).items():
                advice = text if path.name.endswith(ending) else advice
            raise OutputError(f"{path}: already exists; {advice}")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise OutputError(f"{path}: {above} is not a writable folder; choose another place")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None

"""Names of files: natural order, patterns, the files of a folder and of those inside it."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def natural(name: str) -> tuple[Any, ...]:
    """Return a key that sorts names as people do: folder by folder, digits by the number they write."""
    parts = [
        tuple(int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", part))
        for part in name.split("/")
    ]
    return (parts, name)


def is_glob(spec: str) -> bool:
    """Return whether a name is a pattern (``tiles/*_rgb.png``) and no file or folder of this machine."""
    return glob.has_magic(spec) and not os.path.lexists(spec)


def pattern_base(spec: Path) -> Path:
    """Return the folder in front of the first part of a pattern that has a star or bracket."""
    parts = spec.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def files_of(spec: Path) -> list[Path]:
    """Return the files that fit a pattern; ``**`` stands for any folders."""
    found = (Path(name) for name in glob.iglob(str(spec), recursive=True))  # noqa: PTH207 (takes any path)
    return [path for path in found if path.is_file()]


def walked(folder: Path, seen: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files of a folder and of those inside it; names that begin with a dot are left out.

    Links to folders are followed, except back into a folder that leads here.
    """
    place = os.path.realpath(folder)
    if place in seen:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from walked(Path(entry.path), seen | {place})
            elif entry.is_file():
                yield Path(entry.path)

"""Which folders are sets of Parquet files, and which files those are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.pictures import AnyFile

SUFFIX = ".parquet"


def tables_of(path: Path) -> list[AnyFile]:
    """Return the Parquet files that a name means: the file, or those of a folder; none for anything else."""
    if path.suffix.lower() == SUFFIX and not path.is_dir():
        return [path]
    return tables_among(path.iterdir()) if path.is_dir() else []


def tables_among(held: Iterable[AnyFile]) -> list[AnyFile]:
    """Return the Parquet files among those of a folder, sorted by name, or by number where all names are numbers.

    None where there are pictures too: there a table only describes them. Names that begin with ``_`` or ``.`` are those
    of programs that are still writing, or that keep notes.
    """
    found: list[AnyFile] = []
    for file in held:
        suffix = file.suffix.lower()
        if suffix in PICTURES:
            return []
        if suffix == SUFFIX and file.name[0] not in "_.":
            found.append(file)
    numbered = all(file.stem.isdecimal() for file in found)
    return sorted(found, key=lambda file: (int(file.stem) if numbered else 0, file.name))

"""Inputs that change while they are read: their sizes and times (at a URL the ETag) at the end against the start."""

from __future__ import annotations

from pathlib import Path, PurePath

from engine.errors import InputChangedError, InputError
from engine.sources.fingerprint import input_files
from engine.sources.naming import is_glob
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.ranges import is_web, web_fingerprint
from engine.sources.rasters import RASTERS, raster_suffix
from engine.sources.remote import fingerprint_of, forget
from engine.sources.spec import is_url, shown, split_key, split_url
from engine.sources.zarr_store import looks_like_zarr

# What is read of a folder, with what stands beside rasters; other files may come and go, such as this run's own output.
_READ = (*PICTURES, *RASTERS, ".parquet", ".msk", ".xml", ".ovr", ".tfw", ".wld", ".pgw", ".jgw", ".prj")
Stamp = tuple[tuple[str, int, int], ...] | str


class Unchanged:
    """Remembers how inputs are, from before they are opened."""

    def __init__(self, *specs: str) -> None:
        """Look at the inputs.

        Args:
            *specs: as of :func:`engine.sources.fingerprint.fingerprint`; empty ones are passed over, and so are those
                that cannot be read, for their readers say why.
        """
        self._before = {spec: stamp for spec in specs if spec and (stamp := _stamp(spec)) is not None}

    def check(self) -> None:
        """Refuse inputs that are no longer what they were.

        Raises:
            InputChangedError: naming the first.
        """
        for spec, before in self._before.items():
            if _stamp(spec) != before:
                raise InputChangedError(
                    f"{shown(spec)} was changed while it was read, so nothing is written: run again once it stays the "
                    "same"
                )


def _stamp(spec: str) -> Stamp | None:
    """Return what tells an input from a changed one; None where it cannot be read."""
    try:
        if is_web(spec) and raster_suffix(spec):
            return web_fingerprint(spec)
        if is_url(spec):
            url, key = split_url(spec)
            forget(url)
            return fingerprint_of(url, key)
        path, _ = split_key(spec)
        several = is_glob(str(path)) or (path.is_dir() and not looks_like_zarr(path))
        found = [file for file in input_files(path) if not several or _is_read(path, file)]
        states = [(str(file), file.stat()) for file in found]
    except (InputError, OSError):
        return None
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


def _is_read(folder: Path, file: Path) -> bool:
    """Return whether a file of a folder may be read."""
    inside = file.relative_to(folder) if folder in file.parents else PurePath(file.name)
    return file.suffix.lower() in _READ and not any(part.startswith(".") for part in inside.parts)

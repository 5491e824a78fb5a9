"""Images behind URLs: each form that is read from disk, without a copy of the whole on this machine."""

from __future__ import annotations

from pathlib import PurePosixPath

from engine.errors import InputError
from engine.images import Source, array_source, pictures_source, zarr_source
from engine.sources.layout import Role
from engine.sources.names import split_url
from engine.sources.parquet import open_parquet
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.pictures import Bad, pictures_among
from engine.sources.remote import RemoteFile, listed, locate
from engine.sources.tables import SUFFIX, tables_among
from engine.sources.zarr_store import MARKS


def open_url(spec: str, role: Role, bad: Bad | None = None) -> Source:
    """Open a URL as :func:`engine.images.open_source` opens a path; arguments as there.

    Raises:
        InputError: nothing there, no access, a form that cannot be read, or a package is missing.
    """
    url, key = split_url(spec)
    place, folder = locate(url)
    held = listed(place) if folder else []
    if folder and (place.suffix.lower() == ".zarr" or any(file.name in MARKS for file in held)):
        return zarr_source(place, key, role)
    if folder:
        tables = tables_among(held)
        if tables:
            return open_parquet(tables, key, role, str(place), bad)
        return pictures_source(str(place), pictures_among(held, str(place)), role, bad)
    return _file(place, key, role, bad)


def _file(file: RemoteFile, key: str, role: Role, bad: Bad | None) -> Source:
    suffix = PurePosixPath(file.name).suffix.lower()
    if suffix == SUFFIX:
        return open_parquet([file], key, role, str(file), bad)
    if suffix in PICTURES:
        if role == "images":
            raise InputError(f"{file} is one picture: name the folder, or copy it to this machine for --tile")
        return pictures_source(str(file), [file], role)
    if suffix not in (".npz", ".npy"):
        known = ", ".join([".npy", ".npz", ".zarr", SUFFIX])
        raise InputError(
            f"{file}: cannot read {suffix or 'a file without suffix'}; give {known} or a folder of pictures"
        )
    return array_source(file, key, role)

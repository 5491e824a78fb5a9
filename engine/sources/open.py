"""Images and labels from .npz, .npy, Zarr, Parquet or a folder, in batches with ids; never the whole set in memory.

One class serves both: an image is (height, width, channels), a label map is (height, width, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source, _source
from engine.sources.layout import Role, layout_of
from engine.sources.numpy_files import ArrayFile, array_files, require_numbers
from engine.sources.parquet import SUFFIX, open_parquet, tables_among, tables_of
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.pictures import AnyFile, Bad, decode, picture_files, pictures_among
from engine.sources.pictures import read_batches as read_pictures
from engine.sources.remote import RemoteFile, listed, locate
from engine.sources.spec import is_url, split_url
from engine.sources.spec import split_key as split_key

# Keys that are found by themselves, in this order; the first two are those of the Mars terrain task.
KEYS: dict[Role, tuple[str, ...]] = {
    "images": ("test_set", "images", "training_set"),
    "labels": ("labels", "masks", "training_set"),
}
PAIRED_KEY = "training_set"


def open_source(spec: str | Path, role: Role = "images", bad: Bad | None = None) -> Source:
    """Open ``file.npz``, ``file.npz:key``, ``file.npy``, ``store.zarr[:key]``, ``file.parquet[:column]`` or a folder.

    Args:
        spec: the file, folder or URL, with the key of an .npz or a Zarr group, or a column, after a colon. A folder
            holds pictures or Parquet files.
        role: whether images or label maps are wanted; decides the key and, for the task's file, the plane. A label map
            may also be one picture, a set of one.
        bad: told the id of each picture that cannot be read, and why; zeros come in its place. None makes it an error.

    Raises:
        InputError: nothing there, wrong key (the message lists the keys), unusable shape or type.
    """
    from engine.sources.zarr_store import looks_like_zarr

    if is_url(str(spec)):
        pass

        return open_url(str(spec), role, bad)
    path, key = split_key(str(spec))
    if looks_like_zarr(path):
        return zarr_source(path, key, role)
    if path.exists() and (tables := tables_of(path)):
        return open_parquet(tables, key, role, str(path), bad)
    if path.is_dir():
        return pictures_source(str(path), picture_files(path), role, bad)
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if suffix in PICTURES:
        if role == "images":
            raise InputError(
                f"{path} is one picture: add --tile HEIGHTxWIDTH to cut it into tiles, as in --tile 64x128"
            )
        return pictures_source(str(path), [path], role)
    if suffix not in FILES:
        known = ", ".join([*FILES, ".zarr", ".parquet"])
        raise InputError(f"{path}: cannot read {suffix or 'a file without suffix'}; give {known} or a folder")
    return FILES[suffix](path, key, role)


def array_source(path: AnyFile, key: str, role: Role) -> Source:
    """Open a .npy or .npz file; arguments and errors as of :func:`open_array`."""
    from engine.sources.remote_rows import RemoteArray

    head = open_array(path, key, role)
    array = head if isinstance(path, Path) else RemoteArray(head, path)
    layout = layout_of(head.shape, role, head.label, paired=head.key == PAIRED_KEY)

    def read(count: int) -> Iterator[NDArray[Any]]:
        return map(layout.arrange, array.chunks(count))

    at = None if head.key else lambda start, stop: layout.arrange(array[start:stop])
    return _source(head.label, head.shape[0], layout, read, at)


def open_array(path: AnyFile, key: str, role: Role) -> ArrayFile:
    """Find the array of a .npy or .npz file that holds images or label maps.

    Raises:
        InputError: no such key, several arrays to choose from, or one that holds no numbers.
    """
    found = array_files(path)
    array = _pick(path, found, key, role) if path.suffix.lower() == ".npz" else found[""]
    require_numbers(array)
    return array


def _pick(path: AnyFile, found: dict[str, ArrayFile], key: str, role: Role) -> ArrayFile:
    listed = ", ".join(f"{name} {array.shape}" for name, array in found.items()) or "none"
    if key:
        if key not in found:
            raise InputError(f"{path} has no array {key!r}; there are: {listed}")
        return found[key]
    for name in KEYS[role]:
        if name in found:
            return found[name]
    usable = [array for array in found.values() if array.holds_numbers] or list(found.values())
    if len(usable) == 1:
        return usable[0]
    raise InputError(f"{path}: which array holds the {role}? Say {path}:KEY; there are: {listed}")


def zarr_source(path: AnyFile, key: str, role: Role) -> Source:
    """Open an array of a Zarr store; errors as of :func:`engine.sources.zarr_store.open_array`."""
    from engine.sources.zarr_store import open_array as open_zarr
    from engine.sources.zarr_store import read_batches, read_part

    array = open_zarr(path, key, KEYS[role])
    label = f"{path}:{key}" if key else str(path)
    layout = layout_of(array.shape, role, label)

    def read(count: int) -> Iterator[NDArray[Any]]:
        return map(layout.arrange, read_batches(array, label, count))

    def at(start: int, stop: int) -> NDArray[Any]:
        return layout.arrange(read_part(array, label, slice(start, stop)))

    return _source(label, array.shape[0], layout, read, at)


def pictures_source(name: str, files: Sequence[AnyFile], role: Role, bad: Bad | None = None) -> Source:
    """Make a set of pictures; arguments as of :func:`engine.sources.pictures.read_batches`.

    Raises:
        InputError: the first cannot be read.
    """
    first = _first_shape(files, role, bad is not None)

    def read(count: int) -> Iterator[NDArray[Any]]:
        return read_pictures(files, role, first, count, bad)

    def at(start: int, stop: int) -> NDArray[Any]:
        return next(read_pictures(files[start:stop], role, first, stop - start, bad))

    return Source(name, [path.stem for path in files], (first[0], first[1]), first[2], read, named=True, at=at)


def _first_shape(files: Sequence[AnyFile], role: Role, lenient: bool) -> tuple[int, ...]:
    """Return the shape of the first picture; with ``lenient`` of the first that can be read."""
    for path in files[:-1]:
        try:
            return decode(path, role).shape
        except InputError:
            if not lenient:
                raise
    return decode(files[-1], role).shape


def open_url(spec: str, role: Role, bad: Bad | None = None) -> Source:
    """Open a URL as :func:`engine.sources.open.open_source` opens a path; arguments as there.

    Raises:
        InputError: nothing there, no access, a form that cannot be read, or a package is missing.
    """
    from engine.sources.zarr_store import MARKS

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
    return _open_remote_file(place, key, role, bad)


def _open_remote_file(file: RemoteFile, key: str, role: Role, bad: Bad | None) -> Source:
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


# What opens a file of this machine, by its suffix: (path, key, role) to a source. A new form is one file and one line
# here, and one line in engine/sources/spec.py where a key may stand behind its name.
FILES: dict[str, Callable[[Path, str, Role], Source]] = {
    ".npz": array_source,
    ".npy": array_source,
}

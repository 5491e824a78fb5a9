"""Images and labels from .npz, .npy, Zarr, Parquet or a folder, in batches with ids; never the whole set in memory.

One class serves both: an image is (height, width, channels), a label map is (height, width, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import InputError
from engine.sources.base import Source, arranged
from engine.sources.decode import AnyFile
from engine.sources.layout import Role, layout_of
from engine.sources.naming import files_of, is_glob, natural
from engine.sources.numpy_files import ArrayFile, array_files, require_numbers
from engine.sources.parquet import SUFFIX, is_partition, open_parquet, tables_among, tables_of
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.pictures import (
    Bad,
    Once,
    first_picture,
    picture_files,
    pictures_among,
    sizes_of,
)
from engine.sources.pictures import read_batches as read_pictures
from engine.sources.ranges import check_ranges, is_web
from engine.sources.reading import PLAIN, Reading, made_grey
from engine.sources.remote import RemoteFile, listed, locate, walked
from engine.sources.spec import is_url, shown, split_url
from engine.sources.spec import split_key as split_key

# Keys that are looked for, in this order; the first two are those of the Mars terrain task.
KEYS: dict[Role, tuple[str, ...]] = {
    "images": ("test_set", "images", "training_set"),
    "labels": ("labels", "masks", "training_set"),
}
PAIRED_KEY = "training_set"


def open_source(spec: str | Path, role: Role = "images", bad: Bad | None = None, reading: Reading = PLAIN) -> Source:
    """Open ``file.npz``, ``file.npz:key``, ``file.npy``, ``store.zarr[:key]``, ``file.parquet[:column]`` or a folder.

    Args:
        spec: the file, folder, pattern or URL, with the key of an .npz or a Zarr group, or a column, after a colon. A
            folder holds pictures, its own and those of folders inside it, or Parquet files; so does a pattern
            (``tiles/*_rgb.png``).
        role: whether it holds images or label maps; decides the key and, for the task's file, the plane. A label map
            may also be one picture, a set of one.
        bad: called with the id of each picture that cannot be read, and why; zeros come in its place. None makes it an
            error.
        reading: what is stated about images.

    Raises:
        InputError: nothing there, wrong key (the message lists the keys), unusable shape or type.
    """
    source = _opened(spec, role, bad, reading)
    return made_grey(source, reading) if role == "images" else source


def _opened(spec: str | Path, role: Role, bad: Bad | None, reading: Reading) -> Source:
    from engine.sources.zarr_store import looks_like_zarr

    if is_url(str(spec)):
        return open_url(str(spec), role, bad, reading)
    path, key = split_key(str(spec))
    if is_glob(str(path)):
        tables = sorted(tables_among(files_of(path)), key=lambda file: natural(str(file)))
        if tables:
            return open_parquet(tables, key, role, str(path), bad, reading)
        return pictures_source(str(path), picture_files(path), role, bad, reading)
    if looks_like_zarr(path):
        return zarr_source(path, key, role, reading)
    if path.exists() and (tables := tables_of(path)):
        return open_parquet(tables, key, role, str(path), bad, reading)
    if path.is_dir():
        return pictures_source(str(path), picture_files(path), role, bad, reading)
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if suffix in PICTURES:
        if role == "images":
            raise InputError(
                f"{path} is one picture: add --tile HEIGHTxWIDTH to cut it into tiles, as in --tile 64x128"
            )
        return pictures_source(str(path), {path.stem: path}, role)
    if suffix not in FILES:
        known = ", ".join([*FILES, ".zarr", ".parquet"])
        raise InputError(f"{path}: cannot read {suffix or 'a file without suffix'}; give {known} or a folder")
    return FILES[suffix](path, key, role, reading)


def array_source(path: AnyFile, key: str, role: Role, reading: Reading = PLAIN) -> Source:
    """Open a .npy or .npz file; arguments and errors as of :func:`open_array`."""
    from engine.sources.remote_rows import RemoteArray

    head = open_array(path, key, role)
    array = head if isinstance(path, Path) else RemoteArray(head, path)
    layout = layout_of(head.shape, role, head.label, paired=head.key == PAIRED_KEY, reading=reading)
    part = None if head.key else lambda start, stop: array[start:stop]
    return arranged(head.label, head.shape, layout, array.chunks, part)


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


def zarr_source(path: AnyFile, key: str, role: Role, reading: Reading = PLAIN) -> Source:
    """Open an array of a Zarr store; errors as of :func:`engine.sources.zarr_store.open_array`."""
    from engine.sources.zarr_store import open_array as open_zarr
    from engine.sources.zarr_store import read_batches, read_part

    array = open_zarr(path, key, KEYS[role], role, reading.missing_chunks)
    label = f"{path}:{key}" if key else str(path)
    layout = layout_of(array.shape, role, label, reading=reading)
    return arranged(
        label,
        array.shape,
        layout,
        partial(read_batches, array, label),
        lambda start, stop: read_part(array, label, slice(start, stop)),
    )


def pictures_source(
    name: str, files: Mapping[str, AnyFile], role: Role, bad: Bad | None = None, reading: Reading = PLAIN
) -> Source:
    """Make a set of pictures; arguments as of :func:`engine.sources.pictures.read_batches`.

    Raises:
        InputError: the first cannot be read, or a layout is stated, which pictures have not.
    """
    if reading.layout and role == "images":
        raise InputError(f"--image-layout {reading.layout}: {name} holds pictures, whose axes are known: leave it out")
    note = Once()
    alike = first_picture(files, role, bad is not None, reading, note)
    ids = list(files)

    sizes = sizes_of(files, alike) if reading.any_size else []

    def part(start: int, stop: int) -> Any:
        return next(read_pictures({name: files[name] for name in ids[start:stop]}, alike, stop - start, bad, note))

    return Source(
        name,
        ids,
        (alike.shape[0], alike.shape[1]),
        alike.shape[2],
        lambda count: read_pictures(files, alike, count, bad, note),
        named=True,
        at=part,
        sizes=sizes if len(set(sizes)) > 1 else (),
    )


def open_url(spec: str, role: Role, bad: Bad | None = None, reading: Reading = PLAIN) -> Source:
    """Open a URL as :func:`engine.sources.open.open_source` opens a path; arguments as there.

    Raises:
        InputError: nothing there, no access, a form that cannot be read, or a package is missing.
    """
    from engine.sources.zarr_store import MARKS

    url, key = split_url(spec)
    if is_web(url):
        _check_web(url)
    place, folder = locate(url)
    found = listed(place) if folder else []
    if folder and (place.suffix.lower() == ".zarr" or any(file.name in MARKS for file in found)):
        return zarr_source(place, key, role, reading)
    if folder:
        files = walked(place)
        tables = tables_among(
            file for name, file in files.items() if all(map(is_partition, PurePosixPath(name).parts[:-1]))
        )
        if tables:
            return open_parquet(tables, key, role, str(place), bad, reading)
        return pictures_source(str(place), pictures_among(files, str(place)), role, bad, reading)
    return _open_remote_file(place, key, role, bad, reading)


def _check_web(url: str) -> None:
    """Refuse what a web server cannot give: it lists no folders, and some send whole files only.

    Raises:
        InputError: saying what can be read.
    """
    suffix = PurePosixPath(shown(url).split("?")[0]).suffix.lower()
    if suffix in ("", ".zarr") or url.split("?")[0].endswith("/"):
        raise InputError(
            f"{shown(url)}: web servers list no folders: .npy, .npz, {SUFFIX} and rasters (with --tile) are read from "
            "http(s)://, folders and Zarr stores from s3://, gs:// and az://: copy it to this machine or into a store"
        )
    if suffix in (".npy", ".npz", SUFFIX):
        check_ranges(url)


def _open_remote_file(file: RemoteFile, key: str, role: Role, bad: Bad | None, reading: Reading) -> Source:
    suffix = PurePosixPath(file.name).suffix.lower()
    if suffix == SUFFIX:
        return open_parquet([file], key, role, str(file), bad, reading)
    if suffix in PICTURES:
        if role == "images":
            raise InputError(f"{file} is one picture: name the folder, or copy it to this machine for --tile")
        return pictures_source(str(file), {file.stem: file}, role)
    if suffix not in (".npz", ".npy"):
        known = ", ".join([".npy", ".npz", ".zarr", SUFFIX])
        raise InputError(
            f"{file}: cannot read {suffix or 'a file without suffix'}; give {known} or a folder of pictures"
        )
    return array_source(file, key, role, reading)


# What opens a file of this machine, by its suffix: (path, key, role, reading) to a source. A new form is one file and
# one line here, and one line in engine/sources/spec.py where a key may stand behind its name.
FILES: dict[str, Callable[[Path, str, Role, Reading], Source]] = {
    ".npz": array_source,
    ".npy": array_source,
}

"""Zarr arrays of images, (images, height, width) with channels or without, read chunk by chunk."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.layout import Role
from engine.sources.remote import RemoteFile, storage_options, telling
from engine.sources.spec import scrubbed
from engine.sources.zarr_chunks import check_chunks, checked_blosc, is_blosc, local_store
from engine.utils.boundary import refusing
from engine.utils.memory import memory_bound, refusal
from engine.utils.optional import require
from engine.utils.threads import ahead

# What tells a Zarr store, of format 3 and 2, from any other folder.
MARKS = ("zarr.json", ".zarray", ".zgroup")
# Images of one chunk are read together up to this size; beyond it the chunk is decoded anew for each batch.
MOST_BLOCK_BYTES = 2**28


def _is_heard(record: logging.LogRecord) -> bool:
    """Return whether a message of asyncio is more than the traceback of an array that nobody waits for any more."""
    message = record.getMessage()
    return not ("exception was never retrieved" in message and "zarr" in message)


# The package opens the arrays of a group at once and raises what the first damaged one raises; asyncio tells the rest.
logging.getLogger("asyncio").addFilter(_is_heard)


def looks_like_zarr(path: Path) -> bool:
    """Return whether a folder is meant as a Zarr store, by its name or by what it holds."""
    return path.is_dir() and (path.suffix.lower() == ".zarr" or is_store(path))


def is_store(path: Path) -> bool:
    """Return whether a folder is a Zarr store."""
    return any((path / mark).is_file() for mark in MARKS)


def open_array(
    path: Path | RemoteFile, key: str, wanted: Sequence[str], role: Role = "images", missing: str = ""
) -> Any:
    """Open one array of a Zarr store; its metadata is read, and its chunks are counted.

    Args:
        path: the store.
        key: the array's path inside a group; empty to look for it.
        wanted: keys that are found by themselves, in this order.
        role: whether it holds images or label maps.
        missing: what is done where chunks are missing, see :func:`engine.sources.zarr_chunks.check_chunks`.

    Raises:
        InputError: damaged, no array there or several, one that holds no numbers, or chunks are missing; or the package
            is missing.
    """
    zarr = require("zarr", "zarr", f"reading {path} needs zarr", InputError)
    with _reading(path):
        held = zarr.open(_store(path), mode="r")
        found = {"": held} if hasattr(held, "shape") else _arrays(held)
    if key and "" in found:
        raise InputError(f"{path} is one array, it has no key {key!r}: name the store alone")
    listed = ", ".join(f"{name} {array.shape}" for name, array in found.items()) or "none"
    if key and key not in found:
        raise InputError(f"{path} has no array {key!r}; there are: {listed}")
    named = key or next((name for name in wanted if name in found), next(iter(found)) if len(found) == 1 else None)
    if named is None:
        advice = f"say {path}:KEY" if found else "a store with an array (images, height, width) is needed"
        raise InputError(f"{path}: which array? There are: {listed}; {advice}")
    array = found[named]
    with _reading(path):  # some of these are read from the metadata only now
        facts = [*array.shape, *array.chunks, array.dtype.itemsize]
    if not all(type(fact) is int and 0 <= fact < 2**62 for fact in facts) or 0 in array.chunks:
        raise InputError(f"{path}:{named} declares a shape or chunks that no array has: it is damaged, copy it again")
    chunk = math.prod(array.chunks) * array.dtype.itemsize
    if chunk > memory_bound():
        raise InputError(refusal(f"{path}:{named}", f"has chunks of {array.chunks}, each of which takes", chunk))
    if array.dtype.kind not in "buif":
        raise InputError(f"{path}:{named} holds {array.dtype}; bool, whole numbers or floats are needed")
    check_chunks(array, path, f"{path}:{key}" if key else str(path), role, missing)
    return zarr.open_array(checked_blosc(_store(path)), path=array.path, mode="r") if is_blosc(array) else array


def attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a store on this machine.

    Raises:
        InputError: damaged, or the package is missing.
    """
    zarr = require("zarr", "zarr", f"reading {path} needs zarr", InputError)
    with _reading(path):
        return dict(zarr.open(_store(path), mode="r").attrs)


def _store(path: Path | RemoteFile) -> Any:
    if isinstance(path, Path):
        return local_store(path)
    storage = require("zarr.storage", "zarr", f"reading {path} needs zarr", InputError)
    with telling(path.url, path.label):
        return storage.FsspecStore.from_url(path.url, storage_options(path.url), read_only=True)


def read_batches(array: Any, label: str, size: int) -> Iterator[NDArray[Any]]:
    """Yield the images ``size`` at a time, as they lie in the array; the next chunk is decoded meanwhile.

    Raises:
        InputError: a chunk is damaged.
    """
    image_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
    block = array.chunks[0] if array.chunks[0] * image_bytes <= MOST_BLOCK_BYTES else size

    def read(start: int) -> NDArray[Any]:
        return read_part(array, label, slice(start, start + block))

    left = np.empty((0, *array.shape[1:]), array.dtype)
    for images in ahead(read, range(0, array.shape[0], block), threads=1, waiting=2):
        held = np.concatenate([left, images]) if len(left) else images
        whole = len(held) // size * size
        for start in range(0, whole, size):
            yield held[start : start + size]
        left = held[whole:]
    if len(left):
        yield left


def read_part(array: Any, label: str, where: Any) -> NDArray[Any]:
    """Return ``array[where]``.

    Raises:
        InputError: a chunk is damaged.
    """
    with refusing(lambda why: f"cannot read {label} ({why}): it is damaged, copy it again"):
        return np.asarray(array[where])


class Checked:
    """A Zarr array whose damage is told in one line, indexed like the array itself."""

    def __init__(self, array: Any, label: str) -> None:
        """Wrap an array; ``label`` is what messages call it."""
        self._array, self._label = array, label

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Return ``array[where]``; errors as :func:`read_part`."""
        return read_part(self._array, self._label, where)


def _arrays(group: Any) -> dict[str, Any]:
    """Return the arrays of a group and of the groups inside it, by path."""
    return {name: member for name, member in group.members(max_depth=None) if hasattr(member, "shape")}


@contextmanager
def _reading(path: Path | RemoteFile) -> Iterator[None]:
    """Turn what the package raises on damaged metadata into one line, without secrets of a URL."""

    def told(why: str) -> str:
        why = scrubbed(why, path.url) if isinstance(path, RemoteFile) else why
        return f"cannot read the Zarr store {path} ({why}): copy it again"

    with refusing(told):
        yield

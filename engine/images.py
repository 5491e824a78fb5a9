"""Images and labels from .npz, .npy or a folder, in batches with ids; never the whole set in memory.

One class serves both: an image is (height, width, channels), a label map is (height, width, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.arrays import ArrayFile, array_files, require_numbers
from engine.errors import InputError

Role = Literal["images", "labels"]

# Keys that are found by themselves, in this order; the first two are those of the Mars terrain task.
KEYS: dict[Role, tuple[str, ...]] = {
    "images": ("test_set", "images", "training_set"),
    "labels": ("labels", "masks", "training_set"),
}
# The task's own training array pairs each image with its mask: (rows, 2, height, width).
PAIRED_KEY = "training_set"
PLANE: dict[Role, int] = {"images": 0, "labels": 1}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")


@dataclass(frozen=True)
class Batch:
    """Consecutive images.

    Attributes:
        start: index of the first.
        ids: (batch,) their names: row numbers for arrays, file stems for folders.
        pixels: (batch, height, width, channels), uint8 or any other plain number type.
    """

    start: int
    ids: list[str]
    pixels: NDArray[Any]

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        return (self.pixels.shape[1], self.pixels.shape[2])


@dataclass(frozen=True)
class Source:
    """A set of images or label maps that is read batch by batch.

    Attributes:
        name: where it comes from, for messages.
        ids: names of all images, in order.
        size: (height, width) in pixels.
        channels: channels of an image.
        read: maps a batch size to the batches' pixels, in order.
        named: whether the ids are names of their own, and not the row numbers of an array.
    """

    name: str
    ids: Sequence[str]
    size: tuple[int, int]
    channels: int
    read: Callable[[int], Iterator[NDArray[Any]]]
    named: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all images in order, ``size`` at a time.

        Raises:
            InputError: the data turns out to be damaged on the way.
        """
        start = 0
        for pixels in self.read(size):
            yield Batch(start, list(self.ids[start : start + len(pixels)]), pixels)
            start += len(pixels)


def open_source(spec: str | Path, role: Role = "images") -> Source:
    """Open ``file.npz``, ``file.npz:key``, ``file.npy`` or a folder of images.

    Args:
        spec: the file or folder, with the key of an .npz after a colon.
        role: whether images or label maps are wanted; decides the key and, for the task's file, the plane.

    Raises:
        InputError: nothing there, wrong key (the message lists the keys), unusable shape or type.
    """
    path, key = split_key(str(spec))
    if path.is_dir():
        return _folder_source(path, role)
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if suffix not in (".npz", ".npy"):
        raise InputError(f"{path}: cannot read {suffix or 'a file without suffix'}; give .npz, .npy or a folder")
    found = array_files(path)
    array = _pick(path, found, key, role) if suffix == ".npz" else found[""]
    require_numbers(array)
    return _array_source(array, role)


def from_array(array: NDArray[Any], role: Role = "images", name: str = "array") -> Source:
    """Make a source of an array in memory: (rows, height, width), or with channels first or last.

    Raises:
        InputError: unusable shape or type.
    """
    if array.dtype.kind not in "buif":
        raise InputError(f"{name} holds {array.dtype}; bool, whole numbers or floats are needed")
    arrange, size, channels = _arrangement(array.shape, role, name, paired=False)

    def read(count: int) -> Iterator[NDArray[Any]]:
        for start in range(0, len(array), count):
            yield arrange(array[start : start + count])

    return Source(name, _numbered(len(array)), size, channels, read)


def split_key(spec: str) -> tuple[Path, str]:
    """Return the path and the key of ``file.npz:key``; the key is empty where none is given."""
    # The whole text first: a folder or file may have a colon in its name, and Windows drives do.
    if Path(spec).exists() or ".npz:" not in spec:
        return Path(spec), ""
    path, _, key = spec.rpartition(".npz:")
    return Path(path + ".npz"), key


def _pick(path: Path, found: dict[str, ArrayFile], key: str, role: Role) -> ArrayFile:
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


def _array_source(array: ArrayFile, role: Role) -> Source:
    arrange, size, channels = _arrangement(array.shape, role, array.label, paired=array.key == PAIRED_KEY)

    def read(count: int) -> Iterator[NDArray[Any]]:
        return map(arrange, array.chunks(count))

    return Source(array.label, _numbered(array.shape[0]), size, channels, read)


def _arrangement(
    shape: tuple[int, ...], role: Role, name: str, paired: bool
) -> tuple[Callable[[NDArray[Any]], NDArray[Any]], tuple[int, int], int]:
    """Return how rows become (rows, height, width, channels), the size and the channels."""
    few = (1, 3) if role == "images" else (1,)
    if min(shape, default=0) > 0:
        if paired and len(shape) == 4 and shape[1] == 2:
            plane = PLANE[role]
            return lambda rows: rows[:, plane, :, :, None], (shape[2], shape[3]), 1
        if len(shape) == 3:
            return lambda rows: rows[..., None], (shape[1], shape[2]), 1
        if len(shape) == 4 and shape[3] in few:
            return lambda rows: rows, (shape[1], shape[2]), shape[3]
        if len(shape) == 4 and shape[1] in few:
            return lambda rows: rows.transpose(0, 2, 3, 1), (shape[2], shape[3]), shape[1]
    wanted = "(rows, height, width)" + (", (rows, height, width, 1 or 3)" if role == "images" else "")
    raise InputError(f"{name} has shape {shape}; {role} need {wanted}, none of them 0")


def _numbered(count: int) -> Sequence[str]:
    return [str(index) for index in range(count)]


def _folder_source(folder: Path, role: Role) -> Source:
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not files:
        raise InputError(f"{folder} holds no images; read are {' '.join(IMAGE_SUFFIXES)}")
    stems = [path.stem for path in files]
    if len(set(stems)) < len(stems):
        twin = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"{folder} holds two images named {twin}: every id must be one image, rename one of them")
    broken = next((stem for stem in stems if "\n" in stem or "\r" in stem), None)
    if broken is not None:
        raise InputError(f"{folder} holds an image with a line break in its name, {broken!r}: rename it")
    if all(stem.isdecimal() for stem in stems):
        files.sort(key=lambda path: int(path.stem))
    first = _decode(files[0], role)
    size, channels = (first.shape[0], first.shape[1]), first.shape[2]

    def read(count: int) -> Iterator[NDArray[Any]]:
        for start in range(0, len(files), count):
            images = [_decode(path, role) for path in files[start : start + count]]
            for path, image in zip(files[start:], images, strict=False):
                if image.shape != first.shape:
                    raise InputError(
                        f"{path} is {_told(image.shape)}, {files[0].name} is {_told(first.shape)}: all must be alike"
                    )
            yield np.stack(images)

    return Source(str(folder), [path.stem for path in files], size, channels, read, named=True)


def _told(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"


def _decode(path: Path, role: Role) -> NDArray[Any]:
    """Return one image as (height, width, channels); label maps keep the palette's indices."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if role == "images" and image.mode in ("P", "RGBA", "CMYK", "YCbCr", "PA", "HSV", "LAB"):
                pixels = np.asarray(image.convert("RGB"))
            elif image.mode == "LA":
                pixels = np.asarray(image.convert("L"))
            else:
                pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {path} ({error}): replace it or take it out") from None
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if role == "labels":
        raise InputError(f"{path} has {pixels.shape[2]} channels; a label image holds one class id a pixel")
    return pixels

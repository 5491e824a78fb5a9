"""Folders of pictures with the folders inside them, in natural order, decoded ahead by a few threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import stacked
from engine.sources.decode import AnyFile, Note, decode, shape_of
from engine.sources.layout import Role
from engine.sources.naming import files_of, is_glob, natural, pattern_base, walked
from engine.sources.reading import PLAIN, Reading
from engine.sources.remote import RemoteFile
from engine.utils import console
from engine.utils.threads import ahead

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")
# Decoders let go of the GIL; more of them would take the cores from the nets.
DECODERS = 2
# Behind a URL the answer is waited for, which costs no processor.
FETCHERS = 16
# Takes the id of a picture that cannot be read, and the reason.
Bad = Callable[[str, object], None]
File = TypeVar("File", Path, RemoteFile)
# Pictures decoded and not asked for yet, at least; a whole batch is always allowed.
WAITING = 8


def picture_files(spec: Path, suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """Return the pictures of a folder and of the folders inside it, or those that fit a pattern.

    Returns:
        Each file by its id, in order, see :func:`pictures_among`.
    """
    if is_glob(str(spec)):
        base = pattern_base(spec)
        return pictures_among(_relative(base, files_of(spec)), str(spec), suffixes)
    return pictures_among(_relative(spec, walked(spec)), str(spec), suffixes)


def _relative(base: Path, files: Iterable[Path]) -> dict[str, Path]:
    return {path.relative_to(base).as_posix(): path for path in files}


def pictures_among(found: Mapping[str, File], folder: str, suffixes: Sequence[str] = SUFFIXES) -> dict[str, File]:
    """Return the pictures among files by their ids, in natural order.

    Args:
        found: files by their place in the folder, as in ``city/b.png``, whose id is ``city/b``.
        folder: what messages call the folder.
        suffixes: of what is read.

    Raises:
        InputError: there are none, two have one id, or a name has a line break.
    """
    places = sorted((place for place in found if PurePosixPath(place).suffix.lower() in suffixes), key=natural)
    if not places:
        raise InputError(f"{folder} holds no images; read are {' '.join(suffixes)}")
    named: dict[str, str] = {}
    for place in places:
        name = str(PurePosixPath(place).with_suffix(""))
        if name in named:
            raise InputError(
                f"{folder} holds {named[name]} and {place}, two images of one name: every id must be one image, "
                "rename one of them"
            )
        if any(category(letter) == "Cc" for letter in name):
            raise InputError(
                f"{folder} holds an image with a line break or another control character in its name, {name!r}: "
                "rename it"
            )
        named[name] = place
    return {name: found[place] for name, place in sorted(named.items(), key=lambda item: natural(item[0]))}


@dataclass
class Once:
    """Says a kind of remark once, however many pictures cause it."""

    _said: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, text: str) -> None:
        """Say it, if nothing was said yet."""
        with self._lock:
            first, self._said = not self._said, True
        if first:
            console.say(text)


@dataclass(frozen=True)
class Alike:
    """What all pictures of a set have in common.

    Attributes:
        name: of the picture that it was found at, for messages.
        shape: (height, width, channels).
        kind: element type.
        role: whether they are images or label maps.
        reading: how they are read.
    """

    name: str
    shape: tuple[int, int, int]
    kind: np.dtype[Any]
    role: Role
    reading: Reading

    @classmethod
    def of(cls, name: str, first: NDArray[Any], role: Role, reading: Reading) -> Alike:
        """Return what a first picture asks of the others."""
        height, width, channels = first.shape
        return cls(name, (height, width, channels), first.dtype, role, reading)

    def of_channels(self, channels: int) -> Alike:
        """Return the same with another number of channels."""
        return replace(self, shape=(*self.shape[:2], channels))

    def made(self, image: NDArray[Any], name: str) -> NDArray[Any]:
        """Return a picture as the others are: a grey one repeated over three channels where that is asked for.

        Raises:
            InputError: another size, number of channels or depth; the message names both pictures.
        """
        if self.reading.grey_as_rgb and image.shape[2] == 1 and self.shape[2] == 3 and self.role == "images":
            image = np.repeat(image, 3, axis=2)
        fits = image.shape[2:] == self.shape[2:] if self.reading.any_size else image.shape == self.shape
        if not fits:
            shapes = f"{name} is {shape_in_words(image.shape)}, {self.name} is {shape_in_words(self.shape)}"
            raise InputError(f"{shapes}: all must be alike{self._advice(image.shape)}")
        # The same numbers mean something else at another depth; ids of label maps do not.
        if self.role == "images" and image.dtype != self.kind:
            raise InputError(
                f"{name} holds {image.dtype}, {self.name} holds {self.kind}: all must have one depth, convert one"
            )
        return image

    def empty(self) -> NDArray[Any]:
        """Return what stands for a picture that cannot be read."""
        return np.zeros(self.shape, self.kind)

    def _advice(self, shape: tuple[int, ...]) -> str:
        if self.role == "labels":
            return ""
        if shape[:2] != self.shape[:2]:
            return ", or cut them into tiles with --tile HEIGHTxWIDTH"
        if {shape[2], self.shape[2]} == {1, 3}:
            return "; --grey-as-rgb makes grey pictures RGB, [input] rgb_as_grey = true in a plan makes RGB grey"
        return ""


def read_batches(
    files: Mapping[str, AnyFile], alike: Alike, size: int, bad: Bad | None = None, note: Note | None = None
) -> Iterator[NDArray[Any]]:
    """Yield the pictures ``size`` at a time, (batch, height, width, channels).

    Args:
        files: the pictures by their ids, in order.
        alike: what they have in common.
        size: pictures per batch.
        bad: called with a picture that is damaged or unlike the others, in whose place zeros come; None makes it an
            error.
        note: see :func:`engine.sources.decode.decode`.

    Raises:
        InputError: a picture is damaged or unlike the others, and ``bad`` is None.
    """

    def read(item: tuple[str, AnyFile]) -> NDArray[Any]:
        name, path = item
        try:
            return alike.made(decode(path, alike.role, reading=alike.reading, note=note), str(path))
        except InputError as error:
            if bad is None:
                raise
            bad(name, error)
            return alike.empty()

    items = list(files.items())
    threads = FETCHERS if items and isinstance(items[0][1], RemoteFile) else DECODERS
    yield from stacked(ahead(read, items, threads, max(WAITING, threads, size)), size)


def sizes_of(files: Mapping[str, AnyFile], alike: Alike) -> list[tuple[int, int]]:
    """Return the (height, width) of pictures: from headers on this machine, else by decoding them.

    Raises:
        InputError: a picture is damaged or unlike the others.
    """

    def size(path: AnyFile) -> tuple[int, int]:
        if isinstance(path, Path):
            height, width, _ = shape_of(path, alike.role, alike.reading)
        else:
            height, width, _ = decode(path, alike.role, reading=alike.reading).shape
        return height, width

    remote = any(isinstance(path, RemoteFile) for path in files.values())
    return list(ahead(size, files.values(), FETCHERS if remote else DECODERS, WAITING + FETCHERS))


def first_picture(
    files: Mapping[str, AnyFile], role: Role, lenient: bool, reading: Reading = PLAIN, note: Note | None = None
) -> Alike:
    """Return what the first picture asks of all; with ``lenient`` the first that can be read.

    With ``grey_as_rgb`` a set on this machine that begins with a grey picture is RGB if any of its headers says so.

    Raises:
        InputError: it cannot be read.
    """
    *others, last = files.items()
    for _, path in others:
        try:
            found = Alike.of(path.name, decode(path, role, None, reading, note), role, reading)
            break
        except InputError:
            if not lenient:
                raise
    else:
        found = Alike.of(last[1].name, decode(last[1], role, None, reading, note), role, reading)
    if reading.grey_as_rgb and role == "images" and found.shape[2] == 1 and _any_rgb(files.values(), lenient):
        return found.of_channels(3)
    return found


def _any_rgb(files: Iterable[AnyFile], lenient: bool) -> bool:
    for path in files:
        try:
            if isinstance(path, Path) and shape_of(path, "images")[2] == 3:
                return True
        except InputError:
            if not lenient:
                raise
    return False


def shape_in_words(shape: Sequence[int]) -> str:
    """Return a picture's shape in words."""
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"

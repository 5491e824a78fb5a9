"""Folders of pictures, decoded ahead by a few threads."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.layout import Role
from engine.sources.remote import RemoteFile
from engine.utils.threads import ahead

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")
# What these suffixes stand for. Pillow goes by the content, and would hand others to programs of the system (EPS).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP")
# Decoders let go of the GIL; more of them would take the cores from the nets.
DECODERS = 2
# Behind a URL the answer is waited for, which costs no processor.
FETCHERS = 16
# Takes the id of a picture that cannot be read, and the reason.
Bad = Callable[[str, object], None]
AnyFile = Path | RemoteFile
File = TypeVar("File", Path, RemoteFile)
# Pictures decoded and not asked for yet, at least; a whole batch is always allowed.
WAITING = 8


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder; order and errors as of :func:`pictures_among`."""
    return pictures_among(sorted(folder.iterdir()), str(folder))


def pictures_among(found: Sequence[File], folder: str, suffixes: Sequence[str] = SUFFIXES) -> list[File]:
    """Return the pictures among files, sorted by name, or by number where all names are numbers.

    Args:
        found: the files of a folder, sorted by name.
        folder: what messages call the folder.
        suffixes: of what is read.

    Raises:
        InputError: there are none, two share a name, or a name holds a line break.
    """
    files = [path for path in found if path.suffix.lower() in suffixes and path.is_file()]
    if not files:
        raise InputError(f"{folder} holds no images; read are {' '.join(suffixes)}")
    stems = [path.stem for path in files]
    if len(set(stems)) < len(stems):
        twin = Counter(stems).most_common(1)[0][0]
        raise InputError(f"{folder} holds two images named {twin}: every id must be one image, rename one of them")
    broken = next((stem for stem in stems if any(category(letter) == "Cc" for letter in stem)), None)
    if broken is not None:
        raise InputError(
            f"{folder} holds an image with a line break or another control character in its name, {broken!r}: rename it"
        )
    if all(stem.isdecimal() for stem in stems):
        files.sort(key=lambda path: int(path.stem))
    return files


def read_batches(
    files: Sequence[AnyFile], role: Role, first: tuple[int, ...], size: int, bad: Bad | None = None
) -> Iterator[NDArray[Any]]:
    """Yield the pictures ``size`` at a time, (batch, height, width, channels).

    Args:
        files: the pictures.
        role: whether images or label maps are wanted.
        first: shape of the first picture, which all must have.
        size: pictures a batch.
        bad: told of a picture that is damaged or has another shape, in whose place zeros come; None makes it an error.

    Raises:
        InputError: a picture is damaged or has another shape, and ``bad`` is None.
    """

    def read(path: AnyFile) -> NDArray[Any]:
        try:
            image = decode(path, role)
            if image.shape == first:
                return image
            advice = "" if role == "labels" else ", or cut them into tiles with --tile HEIGHTxWIDTH"
            told = f"{path} is {told_shape(image.shape)}, {files[0].name} is {told_shape(first)}"
            raise InputError(f"{told}: all must be alike{advice}")
        except InputError as error:
            if bad is None:
                raise
            bad(path.stem, error)
            return np.zeros(first, np.uint8)

    threads = FETCHERS if files and isinstance(files[0], RemoteFile) else DECODERS
    decoded = ahead(read, files, threads, max(WAITING, threads, size))
    for _ in range(0, len(files), size):
        yield np.stack(list(islice(decoded, size)))


def told_shape(shape: tuple[int, ...]) -> str:
    """Return a picture's shape in words."""
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"


def decode(path: AnyFile | str, role: Role, held: bytes | None = None) -> NDArray[Any]:
    """Return one picture as (height, width, channels); label maps keep the palette's indices.

    Args:
        path: the file, or what messages call the picture.
        role: whether an image or a label map is wanted.
        held: the picture's bytes, where they are at hand.

    Raises:
        InputError: damaged, too large for Pillow, or a label map with several channels.
    """
    from PIL import Image, UnidentifiedImageError

    _keep_quiet()
    if isinstance(path, RemoteFile):
        held = path.range(0, path.size)
    try:
        with Image.open(str(path) if held is None else io.BytesIO(held), formats=FORMATS) as image:
            if role == "images" and image.mode in ("P", "RGBA", "CMYK", "YCbCr", "PA", "HSV", "LAB"):
                pixels = np.asarray(image.convert("RGB"))
            elif image.mode == "LA":
                pixels = np.asarray(image.convert("L"))
            else:
                pixels = np.asarray(image)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large to decode whole ({error}): save it as GeoTIFF or Zarr") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"cannot read the image {path} ({error}): replace it or take it out") from None
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if role == "labels":
        raise InputError(f"{path} has {pixels.shape[2]} channels; a label image holds one class id a pixel")
    return pixels


@cache
def _keep_quiet() -> None:
    """Keep Pillow from warning of large pictures; those of more than twice that size it refuses before it decodes."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

"""One picture to pixels: at its full depth, the right way up, with the channels that it shows.

Pillow decodes what it can at full depth. It cuts 16-bit colour to 8 bits, rescales Netpbm files and misreads a few
TIFFs: those are read by rasterio (GDAL), in the extra ``geo``, and refused where that is missing.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, InputError, TooLargeError
from engine.sources.layout import Role
from engine.sources.orientation import BACK, ORIENTATION, orientation, upright
from engine.sources.reading import PLAIN, Reading, grey
from engine.sources.remote import RemoteFile
from engine.utils.console import first_line
from engine.utils.memory import memory_bound, refusal
from engine.utils.optional import require

# What the suffixes of pictures stand for. Pillow goes by the content, and would hand others to programs of the system
# (EPS).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Modes of Pillow that are shown as RGB.
AS_RGB = ("P", "RGBA", "CMYK", "YCbCr", "PA", "HSV", "LAB", "RGBa")
BITS, PHOTOMETRIC, SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 339
UNSIGNED, SIGNED = 1, 2
# RGB, CMYK, YCbCr and Lab: several bands of 8 bits are colours for Pillow in these alone.
BLACK_IS_0, RGB = 1, 2
COLOURS = (RGB, 5, 6, 8)
# The drivers of GDAL for what Pillow calls these formats.
DRIVERS = {"PNG": "PNG", "TIFF": "GTiff", "PPM": "PNM"}
AnyFile = Path | RemoteFile
# Takes what is to be said once for a whole set of pictures.
Note = Callable[[str], None]


def decode(
    path: AnyFile | str,
    role: Role,
    encoded: bytes | None = None,
    reading: Reading = PLAIN,
    note: Note | None = None,
) -> NDArray[Any]:
    """Return one picture as (height, width, channels); label maps keep the palette's indices.

    Images keep their depth. Palettes become RGB, an alpha channel is left out, RGB becomes grey where that is stated.

    Args:
        path: the file, or what messages call the picture.
        role: whether it is an image or a label map.
        encoded: the picture's bytes, where they are at hand.
        reading: whether the EXIF orientation is applied, and whether RGB becomes grey.
        note: called with what a user should know of the picture.

    Raises:
        InputError: damaged, too large for Pillow, a depth that needs a missing package, or a label map with several
            channels.
    """
    from PIL import Image, UnidentifiedImageError

    _keep_quiet()
    if isinstance(path, RemoteFile):
        encoded = path.range(0, path.size)
    try:
        with Image.open(str(path) if encoded is None else io.BytesIO(encoded), formats=FORMATS) as image:
            if role == "labels" and "jpeg" in (str(image.format).lower(), image.info.get("compression")):
                raise InputError(
                    f"{path} is a JPEG, which changes class ids: save the label map as PNG from its source"
                )
            # Modes of more than 8 bits take up to four bytes.
            pixel = len(image.getbands()) * (1 if image.mode in ("1", "L", "P", *AS_RGB, "RGB", "LA") else 4)
            _check_size(path, image.width * image.height * pixel)
            deep, kind, turn = _is_deep(image), str(image.format), orientation(image)
            pixels = _deep(path, encoded, kind, role, note) if deep else _plain(image, path, role, note)
            if deep or kind != "TIFF":
                pixels = upright(pixels, turn if reading.exif == "apply" else 1)
            elif reading.exif == "ignore":  # Pillow has turned a TIFF already
                pixels = upright(pixels, BACK.get(turn, turn))
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{path} is too large to decode whole ({error}): save it as GeoTIFF or Zarr") from None
    except UnidentifiedImageError as error:
        if not _is_tiff(path, encoded):
            raise _unreadable(path, error) from None
        pixels = _deep(path, encoded, "TIFF", role, note)
    except EngineError:
        raise
    except Exception as error:  # Pillow's decoders stumble over damage in many ways
        raise _unreadable(path, error) from None
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if role == "labels" and pixels.shape[2] > 1:
        raise InputError(f"{path} has {pixels.shape[2]} channels; a label image holds one class id per pixel")
    return grey(pixels) if role == "images" and reading.rgb_as_grey and pixels.shape[2] == 3 else pixels


def shape_of(
    path: Path | str, role: Role, reading: Reading = PLAIN, encoded: bytes | None = None
) -> tuple[int, int, int]:
    """Return the (height, width, channels) that :func:`decode` gives, from the picture's header alone.

    Args:
        path: the file, or what messages call the picture.
        role: whether it is an image or a label map.
        reading: as for :func:`decode`.
        encoded: the picture's bytes, where they are at hand.

    Raises:
        InputError: damaged, or too large for Pillow.
    """
    from PIL import Image, UnidentifiedImageError

    _keep_quiet()
    try:
        with Image.open(path if encoded is None else io.BytesIO(encoded), formats=FORMATS) as image:
            height, width, turn = image.height, image.width, orientation(image)
            # Pillow states the turned sides of a TIFF, of anything else the stored ones.
            if turn >= 5 and (reading.exif == "apply") != (image.format == "TIFF"):
                height, width = width, height
            channels = 3 if image.mode in AS_RGB else len(image.getbands()) - (image.mode in ("LA", "La"))
            if image.format == "TIFF" and (image.mode == "RGBA" or _is_deep(image)):
                channels = _samples(image)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{path} is too large to decode whole ({error}): save it as GeoTIFF or Zarr") from None
    except EngineError:
        raise
    except Exception as error:
        if isinstance(error, UnidentifiedImageError) and _is_tiff(path, encoded):
            height, width, channels = decode(path, role, encoded, reading).shape
            return height, width, channels
        raise _unreadable(path, error) from None
    return (height, width, 1 if role == "labels" or (reading.rgb_as_grey and channels == 3) else channels)


def orientation_of(path: Path | IO[bytes]) -> int:
    """Return the EXIF orientation of a picture, 1 to 8; 1 where it states none or Pillow cannot open it.

    Args:
        path: the file, or a stream, of which the header alone is read.
    """
    from PIL import Image

    _keep_quiet()
    try:
        with Image.open(path, formats=FORMATS) as image:
            return orientation(image)
    except Exception:
        return 1


def _plain(image: Any, path: AnyFile | str, role: Role, note: Note | None) -> NDArray[Any]:
    """Return what Pillow reads at full depth."""
    mode = image.mode
    # The last band of a TIFF is often tagged as alpha and is none (near infrared): it stays a band.
    if role == "images" and image.format == "TIFF" and mode == "RGBA":
        return np.asarray(image)
    if mode in ("LA", "La"):
        _alpha_left_out(path, role, note)
        return np.asarray(image.convert("L"))
    if role == "images" and mode in AS_RGB:
        if mode in ("RGBA", "RGBa", "PA") or (mode == "P" and "transparency" in image.info):
            _alpha_left_out(path, role, note)
        return np.asarray(image.convert("RGB"))
    return np.asarray(image)


def _alpha_left_out(path: AnyFile | str, role: Role, note: Note | None) -> None:
    if note is not None and role == "images":
        note(f"{path} has an alpha channel, which is left out of every image")


def _is_deep(image: Any) -> bool:
    """Return whether Pillow would cut or change the values of a picture that it opened; nothing is decoded."""
    if image.format == "TIFF":
        bits, form = image.tag_v2.get(BITS, (1,)), image.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))
        if image.tag_v2.get(ORIENTATION, 1) >= 5 and image.tile and image.tile[0][0] == "raw":
            # Pillow 12 and 13 turn the sides of an uncompressed TIFF twice.
            if image.tag_v2.get(PHOTOMETRIC) not in (BLACK_IS_0, RGB):
                raise ValueError("its colours are not RGB and it is to be turned: save it upright")
            return True
        if _samples(image) > 1:
            return max(bits) > 8 or form[0] != UNSIGNED or image.tag_v2.get(PHOTOMETRIC) not in COLOURS
        return (bits[0], form[0]) in ((8, SIGNED), (32, UNSIGNED))
    codec, arguments = (image.tile[0][0], image.tile[0][3]) if image.tile else ("", "")
    if image.format == "PPM":
        # These decoders bring the values to 0..255 or 0..65535.
        return codec in ("ppm", "ppm_plain") and isinstance(arguments, tuple) and arguments[-1] != 255
    return image.format == "PNG" and "16" in str(arguments) and not image.mode.startswith("I")


def _samples(image: Any) -> int:
    """Return how many bands a TIFF declares."""
    return int(image.tag_v2.get(SAMPLES, 1))


def _deep(path: AnyFile | str, encoded: bytes | None, kind: str, role: Role, note: Note | None) -> NDArray[Any]:
    """Return what rasterio reads, (height, width, channels), as stored and without the alpha channel of a PNG.

    Raises:
        InputError: rasterio is missing, or cannot read it either.
    """
    rasterio = require("rasterio", "geo", f"reading {path} at its full depth needs rasterio", InputError)
    from rasterio.io import MemoryFile

    _keep_rasterio_quiet()
    driver = DRIVERS[kind]
    try:
        # Without the listing of the folder, which takes longer than the picture where there are many.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            if encoded is None:
                with rasterio.open(path, driver=driver) as dataset:
                    pixels = _bands(dataset, path, role, note)
            else:
                with MemoryFile(encoded) as memory, memory.open(driver=driver) as dataset:
                    pixels = _bands(dataset, path, role, note)
    except EngineError:
        raise
    except Exception as error:  # of rasterio, or of GDAL where rasterio lets it through
        raise _unreadable(path, error.__cause__ or error) from None
    return pixels


def _bands(dataset: Any, path: AnyFile | str, role: Role, note: Note | None) -> NDArray[Any]:
    from PIL import Image

    if dataset.width * dataset.height > 2 * (Image.MAX_IMAGE_PIXELS or 0):
        raise TooLargeError(f"{path} is too large to decode whole: save it as GeoTIFF or Zarr")
    _check_size(path, dataset.width * dataset.height * dataset.count * np.dtype(dataset.dtypes[0]).itemsize)
    bands = list(dataset.indexes)
    if dataset.driver == "PNG" and dataset.colorinterp[-1].name == "alpha":
        _alpha_left_out(path, role, note)
        bands.pop()
    if np.dtype(dataset.dtypes[0]).kind not in "buif":
        raise InputError(f"{path} holds {dataset.dtypes[0]}; whole numbers or floats are needed")
    pixels: NDArray[Any] = dataset.read(bands)
    return pixels.transpose(1, 2, 0)


def _check_size(path: AnyFile | str, size: int) -> None:
    if size > memory_bound():
        raise TooLargeError(refusal(str(path), "is one picture, which takes", size))


def is_encoded(data: bytes) -> bool:
    """Return whether bytes are a picture, and not pixels that happen to begin as one does.

    The first bytes of a PNG or TIFF are enough, even if it is damaged; of the others Pillow must find a header.
    """
    from PIL import Image, UnidentifiedImageError

    if data.startswith(PNG_SIGNATURE) or data[:4] in TIFF_MAGIC:
        return True
    _keep_quiet()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return False


def _is_tiff(path: AnyFile | str, encoded: bytes | None) -> bool:
    if encoded is None and isinstance(path, Path):
        with path.open("rb") as stream:
            encoded = stream.read(4)
    return encoded is not None and encoded[:4] in TIFF_MAGIC


def _unreadable(path: AnyFile | str, error: BaseException) -> InputError:
    # Pillow names the object that it was given.
    told = re.sub(r" <_io\.BytesIO [^>]*>", "", first_line(error))
    return InputError(f"cannot read the image {path} ({told}): replace it or take it out")


@cache
def _keep_rasterio_quiet() -> None:
    """Keep rasterio from warning of pictures without coordinates, for good: filters of a moment are not for threads."""
    from rasterio.errors import NotGeoreferencedWarning

    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@cache
def _keep_quiet() -> None:
    """Keep Pillow from warning of large and of torn pictures.

    Those of more than twice the size that it warns of it refuses before it decodes; torn ones end in an error.
    """
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")

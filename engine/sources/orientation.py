"""Which way round a picture is shown: its EXIF orientation."""

from __future__ import annotations

import os
import struct
from typing import Any

from numpy.typing import NDArray

ORIENTATION = 274
# Where the chunks of a PNG begin.
PNG_CHUNKS = 8
# Orientations that do not undo themselves.
BACK = {6: 8, 8: 6}


def orientation(image: Any) -> int:
    """Return the EXIF orientation of an opened picture, 1 to 8; 1 where it states none. Nothing is decoded for it."""
    from PIL import Image

    # Pillow decodes a PNG to look for EXIF behind its pixels.
    late = image.format == "PNG" and _exif_behind_pixels(image.fp)
    found = (image.getexif() if late else Image.Image.getexif(image)).get(ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def _exif_behind_pixels(stream: Any) -> bool:
    place, pixels = stream.tell(), False
    try:
        stream.seek(PNG_CHUNKS)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf" and pixels:
                return True
            pixels = pixels or kind == b"IDAT"
            stream.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        stream.seek(place)


def upright(pixels: NDArray[Any], turn: int) -> NDArray[Any]:
    """Return stored pixels (height, width, ...) as a viewer shows them, for an EXIF orientation (EXIF 2.32, 4.6.4)."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down = turn in (3, 4, 7, 8)
    across = turn in (2, 3, 6, 7)
    return pixels[:: -1 if down else 1, :: -1 if across else 1]

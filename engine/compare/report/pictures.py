"""The gallery's tiles as data URIs: palette PNGs for masks, the smaller of PNG and JPEG for photographs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from engine.fusion.evidence import MOST_DOUBT
from engine.utils.palette import colours

# Wider tiles are shown smaller: a page must not be as large as its data.
MOST_SIDE = 1024
# Photographs with more pixels than this are stored as JPEG.
LOSSLESS_PIXELS = 256 * 256
DISPUTE, DOUBT = (0, 114, 178), (150, 30, 110)
VOID_COLOUR = (255, 255, 255)


def photograph(image: NDArray[np.uint8]) -> str:
    """Return uint8 (height, width, 1 or 3) pixels as a data URI."""
    from PIL import Image

    held = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    held = _fitted(held, Image.Resampling.LANCZOS)
    return _uri(held, "PNG" if held.width * held.height <= LOSSLESS_PIXELS else "JPEG")


def mask(labels: NDArray[np.uint8], classes: int) -> str:
    """Return uint8 (height, width) labels in the classes' colours; what is no class (void) is white."""
    from PIL import Image

    held = Image.fromarray(labels, "P")
    shown = [*colours(classes), *[VOID_COLOUR] * (256 - classes)]
    held.putpalette([value for colour in shown for value in colour])
    return _uri(_fitted(held, Image.Resampling.NEAREST), "PNG")


def dispute(against: NDArray[np.floating]) -> str:
    """Return a picture of the share of members that disagree (height, width), transparent (none) to blue (all)."""
    from PIL import Image

    pixels = np.empty((*against.shape, 4), np.uint8)
    pixels[..., :3] = DISPUTE
    pixels[..., 3] = np.rint(np.clip(against, 0, 1) * 255)
    return _uri(_fitted(Image.fromarray(pixels, "RGBA"), Image.Resampling.NEAREST), "PNG")


def doubt(entropy: NDArray[np.uint8]) -> str:
    """Return a picture of doubt, uint8 (height, width) up to 254, transparent (none) to purple (all there can be)."""
    from PIL import Image

    pixels = np.empty((*entropy.shape, 4), np.uint8)
    pixels[..., :3] = DOUBT
    pixels[..., 3] = np.minimum(entropy, MOST_DOUBT).astype(np.uint16) * 255 // MOST_DOUBT
    return _uri(_fitted(Image.fromarray(pixels, "RGBA"), Image.Resampling.NEAREST), "PNG")


def _fitted(image, how):  # type: ignore[no-untyped-def]
    most = max(image.size)
    if most <= MOST_SIDE:
        return image
    return image.resize(tuple(max(1, side * MOST_SIDE // most) for side in image.size), how)


def _uri(image, form: str) -> str:  # type: ignore[no-untyped-def]
    held = io.BytesIO()
    image.save(held, form, **({"optimize": True} if form == "PNG" else {"quality": 88}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(held.getvalue()).decode()}"

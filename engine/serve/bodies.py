"""The body of a request: read up to a limit, and turned into raw pixels. No name in it is ever opened."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request

from engine.errors import InputError
from engine.serve.bounds import Bounds, Place, too_large
from engine.serve.plan import UPLOAD, ServedPlan
from engine.serve.refusals import Refused
from engine.sources.decode import decode, shape_of
from engine.sources.numpy_files import array_in

NUMPY_MAGIC, JPEG_MAGIC = b"\x93NUMPY", b"\xff\xd8"
# How long the next part of a body may take, in seconds.
PATIENCE = 30.0
# Bytes of a pixel's channel while its picture is decoded: what deep pictures take.
DEEPEST = 4


@dataclass
class Upload:
    """The images of a request.

    Attributes:
        images: raw pixels (n, height, width, channels).
        alone: whether it is one image, and not a set of them.
        is_array: whether it came as an array, and not as a picture.
        notes: what a user should know of how it was read.
    """

    images: NDArray[Any]
    alone: bool
    is_array: bool
    notes: list[str] = field(default_factory=list)


def declared_length(request: Request) -> int | None:
    """Return the stated length of the body in bytes; None if it comes in chunks.

    Raises:
        Refused: 415 for a body that is compressed.
    """
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() not in ("", "identity"):
        raise Refused(415, f"Content-Encoding {coding[:40]} is not read: send the body as it is")
    stated = request.headers.get("content-length", "")
    return int(stated) if stated.isdecimal() else None


async def read_body(request: Request, place: Place, bounds: Bounds) -> bytes:
    """Return the whole body.

    Raises:
        Refused: 413 for one that is too large, 408 for one that stops arriving, 400 for none, 503 for no room.
    """
    parts, size = [], 0
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(PATIENCE) as limit:
            async for part in request.stream():
                if not part:
                    continue
                limit.reschedule(clock() + PATIENCE)
                size += len(part)
                if size > bounds.upload:
                    raise too_large(bounds.upload)
                place.hold(len(part))
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"{UPLOAD} stopped after {size} bytes: send it again") from None
    except ClientDisconnect:
        raise Refused(400, f"{UPLOAD} ended after {size} bytes: send it again") from None
    if not parts:
        raise Refused(400, f"{UPLOAD} is empty: send a picture or a .npy file as the body")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def is_numpy(body: bytes) -> bool:
    """Return whether a body is a .npy file."""
    return body.startswith(NUMPY_MAGIC)


def picture(body: bytes, plan: ServedPlan, place: Place, bounds: Bounds) -> Upload:
    """Decode a picture, once its header says that it is small enough.

    Raises:
        InputError: damaged, or no picture.
        Refused: 413 or 503 for one that takes too much memory.
    """
    notes: list[str] = []
    reading = plan.reading
    height, width, channels = shape_of(UPLOAD, "images", reading, body)
    bounds.check_image((height, width), channels, 1)
    # Channels that are left out are decoded too.
    place.hold(height * width * (channels + 1) * (1 if body[:2] == JPEG_MAGIC else DEEPEST))
    pixels = decode(UPLOAD, "images", body, reading, notes.append)
    return Upload(pixels[None], True, False, notes)


def array(body: bytes, plan: ServedPlan, bounds: Bounds) -> Upload:
    """Return the images of a .npy file, without a copy.

    Raises:
        InputError: damaged, or an impossible shape.
        Refused: 413 for images that take too much memory.
    """
    images, alone = plan.arranged(array_in(body, UPLOAD))
    if not images.size:
        raise InputError(f"{UPLOAD} holds no images")
    bounds.check_image((images.shape[1], images.shape[2]), images.shape[3], images.dtype.itemsize)
    return Upload(images, alone, True)

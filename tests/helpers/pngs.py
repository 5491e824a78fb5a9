"""PNGs of every kind that the specification allows, also those that no library writes: interlaced, with any filters."""

from __future__ import annotations

import struct
import zlib

import numpy as np

GREY, RGB, INDEXED, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
VALUES = {GREY: 1, RGB: 3, INDEXED: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), INDEXED: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
KINDS = [(kind, depth) for kind, depths in DEPTHS.items() for depth in depths]
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def random_png(draw: np.random.Generator, kind: int, depth: int, interlaced: bool, transparent: bool = False) -> bytes:
    """Return a small picture of random values, each line with a random filter, the stream cut into several chunks."""
    height, width = draw.integers(1, 20, 2)
    values = draw.integers(0, 2**depth, (height, width, VALUES[kind]))
    parts = PASSES if interlaced else ((0, 0, 1, 1),)
    raw = b""
    for left, top, across, down in parts:
        raw += _filtered(draw, values[top::down, left::across], depth)
    packed = zlib.compress(raw)
    middle = int(draw.integers(0, len(packed)))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced)))]
    if kind == INDEXED:
        chunks.append((b"PLTE", draw.integers(0, 256, 3 * 2**depth, np.uint8).tobytes()))
    if transparent:
        chunks.append((b"tRNS", {INDEXED: b"\x80", GREY: b"\0\1", RGB: b"\0\1\0\1\0\1"}[kind]))
    chunks += [(b"IDAT", packed[:middle]), (b"IDAT", packed[middle:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, *zip(*chunks, strict=True)))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _filtered(draw: np.random.Generator, values: np.ndarray, depth: int) -> bytes:
    height, width = values.shape[:2]
    if not height or not width:
        return b""
    if depth < 8:
        bits = (values.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
        lines = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        lines = values.astype(">u2" if depth == 16 else np.uint8).reshape(height, -1).view(np.uint8)
    step = max(1, values.shape[2] * depth // 8)
    above = np.zeros(lines.shape[1], np.int64)
    out = b""
    for line in lines.astype(np.int64):
        left = np.concatenate([np.zeros(step, np.int64), line])[: len(line)]
        corner = np.concatenate([np.zeros(step, np.int64), above])[: len(line)]
        guess = left + above - corner
        a, b, c = abs(guess - left), abs(guess - above), abs(guess - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        kind = int(draw.integers(0, 5))
        out += (
            bytes([kind])
            + ((line - (0, left, above, (left + above) // 2, paeth)[kind]) % 256).astype(np.uint8).tobytes()
        )
        above = line
    return out

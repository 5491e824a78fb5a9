"""The wire format of protocol buffers, as far as ONNX files need it: the engine does without the onnx package.

Only references into the file are handed out; nothing is copied but numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_BITS = 64


def fields(message: memoryview) -> Iterator[tuple[int, memoryview | int | None]]:
    """Yield number and content of every field: bytes of messages, texts and bytes; integers; None for other numbers.

    Raises:
        ValueError: the bytes end early or are no fields.
    """
    for number, value, _ in _fields(message):
        yield number, value


def pieces(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of every field, its tag and length among them: all of them in a row are the message.

    Raises:
        ValueError: the bytes end early or are no fields.
    """
    for number, _, piece in _fields(message):
        yield number, piece


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int | None, memoryview]]:
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        wire = tag & 7
        value: memoryview | int | None = None
        if wire == BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("ends early")
            value = message[at : at + length]
            at += length
        elif wire == VARINT:
            number, at = _varint(message, at)
            value = signed(number)
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise ValueError("no wire type")
        yield tag >> 3, value, message[begin:at]


def messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields that are messages, texts or bytes; pass over the others.

    Raises:
        ValueError: the bytes end early or are no fields.
    """
    for number, value in fields(message):
        if isinstance(value, memoryview):
            yield number, value


def packed(values: memoryview) -> Iterator[int]:
    """Yield the integers of a packed field.

    Raises:
        ValueError: the bytes end within a number.
    """
    at = 0
    while at < len(values):
        value, at = _varint(values, at)
        yield signed(value)


def signed(value: int) -> int:
    """Return a number of the wire, 64 bits without a sign, as int64."""
    value &= (1 << _BITS) - 1
    return value - (1 << _BITS) if value >> (_BITS - 1) else value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < _BITS:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("no number")

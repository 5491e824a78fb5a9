"""Changes to ONNX files without the onnx package: messages are taken apart, and put together again around a change.

The field numbers are those of onnx.proto3; :mod:`engine.models.wire` reads the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.models.wire import BYTES, VARINT, messages, pieces

INT64 = 7

Bytes = bytes | memoryview


def number_field(number: int, value: int) -> bytes:
    """Return a field that holds an integer of no sign."""
    return _varint(number << 3 | VARINT) + _varint(value)


def bytes_field(number: int, content: Bytes) -> bytes:
    """Return a field that holds a message, a text or bytes."""
    return _varint(number << 3 | BYTES) + _varint(len(content)) + bytes(content)


def with_fields(message: memoryview, changed: dict[int, Sequence[Bytes]]) -> bytes:
    """Return a message whose fields of some numbers are others; all the rest stays as it is, byte for byte.

    Args:
        message: the message.
        changed: the new contents by the field's number, which come in the place of the first of that number, or at the
            end; none to drop the field.
    """
    waiting = dict(changed)
    found = []
    for number, piece in pieces(message):
        if number not in changed:
            found.append(bytes(piece))
        else:
            found += [bytes_field(number, content) for content in waiting.pop(number, ())]
    found += [bytes_field(number, content) for number, contents in waiting.items() for content in contents]
    return b"".join(found)


def node(kind: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: int) -> bytes:
    """Return a NodeProto with attributes that are integers of no sign."""
    parts = [bytes_field(1, name.encode()) for name in inputs]
    parts += [bytes_field(2, name.encode()) for name in outputs]
    parts.append(bytes_field(4, kind.encode()))
    for name, value in attributes.items():
        parts.append(bytes_field(5, bytes_field(1, name.encode()) + number_field(3, value) + number_field(20, 2)))
    return b"".join(parts)


def tensor(name: str, values: NDArray[np.int64]) -> bytes:
    """Return a TensorProto of integers."""
    dims = b"".join(number_field(1, size) for size in values.shape)
    data = values.astype("<i8").tobytes()
    return dims + number_field(2, INT64) + bytes_field(8, name.encode()) + bytes_field(9, data)


def text(message: memoryview, number: int) -> str:
    """Return the first text of that number, or an empty one."""
    return next((bytes(value).decode("utf-8", "replace") for found, value in messages(message) if found == number), "")


def all_of(message: memoryview, number: int) -> list[memoryview]:
    """Return the contents of every field of that number that is a message, a text or bytes."""
    return [value for found, value in messages(message) if found == number]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)

"""Thrift's compact protocol, as far as Parquet's footers and page headers need it.

pyarrow looks at a damaged footer column by column, and ends the process on some (26.0.1). What bounds memory is read
here instead, where damage is an error like any other.
"""

from __future__ import annotations

from typing import Any

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_NUMBERS = (_I16, _I32, _I64)
# Parquet nests seven deep.
_DEEPEST = 16

Fields = dict[int, Any]


def read_struct(data: bytes | memoryview, at: int = 0) -> tuple[Fields, int]:
    """Return a struct's fields by number, and where it ends.

    Integers come as int, texts and bytes as memoryview, lists and sets as list, structs as dict; maps are passed over.

    Raises:
        ValueError: the bytes end early, or are no struct.
    """
    return _struct(memoryview(data), at, 0)


def _struct(data: memoryview, at: int, depth: int) -> tuple[Fields, int]:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    found: Fields = {}
    number = 0
    while True:
        head, at = _byte(data, at)
        if not head:
            return found, at
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        kind = head & 15
        if kind in (_TRUE, _FALSE):
            found[number] = kind == _TRUE
        else:
            found[number], at = _value(data, at, kind, depth)


def _value(data: memoryview, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _NUMBERS:
        return _integer(data, at)
    if kind == _BINARY:
        size, at = _unsigned(data, at)
        return data[at : _inside(data, at, size)], at + size
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind in (_LIST, _SET):
        return _list(data, at, depth + 1)
    if kind in (_TRUE, _FALSE, _BYTE):
        return _byte(data, at)
    if kind == _DOUBLE:
        return None, _inside(data, at, 8)
    if kind == _MAP:
        return _map(data, at, depth + 1)
    raise ValueError(f"no type {kind}")


def _list(data: memoryview, at: int, depth: int) -> tuple[list[Any], int]:
    head, at = _byte(data, at)
    count = head >> 4
    if count == 15:
        count, at = _unsigned(data, at)
    _inside(data, at, count)  # no element takes less than a byte
    found = []
    for _ in range(count):
        value, at = _value(data, at, head & 15, depth)
        found.append(value)
    return found, at


def _map(data: memoryview, at: int, depth: int) -> tuple[None, int]:
    count, at = _unsigned(data, at)
    if not count:
        return None, at
    _inside(data, at, count)
    kinds, at = _byte(data, at)
    for _ in range(count):
        _, at = _value(data, at, kinds >> 4, depth)
        _, at = _value(data, at, kinds & 15, depth)
    return None, at


def _byte(data: memoryview, at: int) -> tuple[int, int]:
    _inside(data, at, 1)
    return data[at], at + 1


def _integer(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at


def _unsigned(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte, at = _byte(data, at)
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("no number")


def _inside(data: memoryview, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("ends early")
    return at + size

"""Thrift's compact protocol against an encoder of the tests' own; bytes of no sense raise ValueError alone."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sources.thrift import read_struct

NUMBER = st.integers(-(2**62), 2**62)
VALUES: Any = st.recursive(
    st.one_of(st.booleans(), NUMBER, st.binary(max_size=40)),
    lambda inner: st.one_of(
        st.lists(NUMBER, max_size=40), st.dictionaries(st.integers(1, 300), inner, min_size=1, max_size=6)
    ),
    max_leaves=12,
)


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def zigzag(value: int) -> bytes:
    return varint(2 * value if value >= 0 else -2 * value - 1)


def encoded(fields: dict[int, Any]) -> bytes:
    found, last = b"", 0
    for number, value in sorted(fields.items()):
        kind, body = kind_and_body(value)
        step = number - last
        found += (bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + zigzag(number)) + body
        last = number
    return found + b"\0"


def kind_and_body(value: Any) -> tuple[int, bytes]:
    match value:
        case bool():
            return (1 if value else 2), b""
        case int():
            return 6, zigzag(value)
        case bytes():
            return 8, varint(len(value)) + value
        case list():
            size = len(value)
            head = bytes([size << 4 | 6]) if size < 15 else b"\xf6" + varint(size)
            return 9, head + b"".join(map(zigzag, value))
        case _:
            return 12, encoded(value)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {number: plain(inner) for number, inner in value.items()}
    return bytes(value) if isinstance(value, memoryview) else value


@given(fields=st.dictionaries(st.integers(1, 300), VALUES, max_size=8), before=st.binary(max_size=5))
def test_what_was_encoded_is_read(fields: dict[int, Any], before: bytes) -> None:
    data = before + encoded(fields)
    found, end = read_struct(data + b"more", len(before))
    assert plain(found) == fields
    assert end == len(data)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_struct(data)


def test_a_struct_in_a_struct_without_end() -> None:
    with pytest.raises(ValueError, match="too deep"):
        read_struct(b"\x1c" * 1000)


def test_a_list_of_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="ends early"):
        read_struct(b"\x19\xf6" + varint(2**40))

"""Tensors of the Open Inference Protocol, version 2: as JSON lists, or as bytes behind the JSON (binary extension)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.serve.refusals import Refused

LENGTH_HEADER = "inference-header-content-length"
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind).newbyteorder("<")
    for name, kind in {
        "BOOL": "?",
        "UINT8": "u1",
        "UINT16": "u2",
        "UINT32": "u4",
        "UINT64": "u8",
        "INT8": "i1",
        "INT16": "i2",
        "INT32": "i4",
        "INT64": "i8",
        "FP16": "f2",
        "FP32": "f4",
        "FP64": "f8",
    }.items()
}
BINARY_ALONE = ("FP16",)
MOST_AXES = 8
MOST_SIDE = 2**31


def bad(told: str) -> Refused:
    """Return the refusal of a request that breaks the protocol."""
    return Refused(400, told)


def split(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """Return a request's JSON object and the bytes behind it.

    Args:
        body: the whole body.
        length: the header Inference-Header-Content-Length; None if there is none.

    Raises:
        Refused: a length that is not that of the JSON, or no JSON object.
    """
    if length is not None:
        if not (length.isascii() and length.isdecimal()) or int(length) > len(body):
            raise bad(f"Inference-Header-Content-Length {length[:20]}: the body has {len(body)} bytes")
        head, rest = body[: int(length)], body[int(length) :]
    else:
        head, rest = body, b""
    try:
        found = json.loads(head, parse_constant=_no_number)
    except RecursionError:
        raise bad("the body's JSON is nested too deeply") from None
    except ValueError as error:  # of the decoder, of UTF-8, or of a number with too many digits
        raise bad(f"the body is no JSON ({str(error)[:120]}): correct it") from None
    if not isinstance(found, dict):
        raise bad('the body\'s JSON is no object: send {"inputs": [...]}')
    return found, rest


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


class Binary:
    """Hands out the bytes behind the JSON, tensor by tensor, in their order."""

    def __init__(self, data: bytes) -> None:
        """Begin at the first byte."""
        self._data, self._at = data, 0

    def take(self, size: int, name: str) -> memoryview:
        """Return the next bytes.

        Raises:
            Refused: fewer are left.
        """
        if size > len(self._data) - self._at:
            left = len(self._data) - self._at
            raise bad(f"input {name}: binary_data_size {size}, but {left} bytes are left behind the JSON")
        self._at += size
        return memoryview(self._data)[self._at - size : self._at]

    def finish(self) -> None:
        """Refuse bytes that belong to no tensor.

        Raises:
            Refused: saying how many.
        """
        left = len(self._data) - self._at
        if left:
            told = "1 byte behind the JSON belongs" if left == 1 else f"{left} bytes behind the JSON belong"
            raise bad(f"{told} to no input: state binary_data_size")


def tensor(held: Mapping[str, Any], binary: Binary) -> NDArray[Any]:
    """Return an input tensor.

    Raises:
        Refused: naming the field that is missing or does not fit.
    """
    name = held["name"]
    datatype, shape = held.get("datatype"), held.get("shape")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise bad(f"input {name}: datatype {str(datatype)[:20]!r}; allowed are {', '.join(DTYPES)}")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= MOST_AXES
        or not all(type(side) is int and 0 < side < MOST_SIDE for side in shape)
    ):
        raise bad(f"input {name}: shape {str(shape)[:60]}; a list of numbers above 0 is needed")
    kind, count = DTYPES[datatype], math.prod(shape)
    size = parameters(held, f"input {name}").get("binary_data_size")
    if size is None:
        return _from_json(held.get("data"), name, datatype, shape)
    if "data" in held:
        raise bad(f"input {name}: data and binary_data_size: send one of them")
    if type(size) is not int or size != count * kind.itemsize:
        needed = count * kind.itemsize
        raise bad(f"input {name}: binary_data_size {str(size)[:20]}; shape and datatype make {needed} bytes")
    return np.frombuffer(binary.take(size, name), kind).reshape(shape)


def _from_json(data: Any, name: str, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    if datatype in BINARY_ALONE:
        raise bad(f"input {name}: datatype {datatype} has no form in JSON: send it as binary data")
    if not isinstance(data, list):
        raise bad(f"input {name}: data is missing: send a list, or binary_data_size and bytes behind the JSON")
    try:
        held = np.array(data)
    except ValueError:
        raise bad(f"input {name}: data is a list of lists of different lengths: send them all alike, or flat") from None
    kind, count = DTYPES[datatype], math.prod(shape)
    if held.size != count or (held.ndim > 1 and list(held.shape) != list(shape)):
        raise bad(f"input {name}: data has shape {list(held.shape)}; shape says {list(shape)}")
    allowed = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[kind.kind]
    if held.dtype.kind not in allowed:
        raise bad(f"input {name}: data holds {_held(held)}, the datatype is {datatype}")
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        if held.min() < bounds.min or held.max() > bounds.max:
            raise bad(f"input {name}: data holds {held.min()} to {held.max()}, {datatype} {bounds.min} to {bounds.max}")
    with np.errstate(over="ignore"):
        made = held.astype(kind)
    if kind.kind == "f" and not np.isfinite(made).all():
        raise bad(f"input {name}: data holds numbers beyond {datatype}")
    return made.reshape(shape)


def _held(data: NDArray[Any]) -> str:
    return {"b": "booleans", "f": "fractions", "i": "whole numbers", "u": "whole numbers"}.get(
        data.dtype.kind, "something that is no number"
    )


def parameters(held: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output; none is an empty dictionary.

    Raises:
        Refused: they are no object.
    """
    found = held.get("parameters", {})
    if not isinstance(found, dict):
        raise bad(f"{where}: parameters are no object")
    return found


def flag(found: Mapping[str, Any], key: str, where: str, otherwise: bool) -> bool:
    """Return a parameter that is true or false.

    Raises:
        Refused: it is neither.
    """
    value = found.get(key, otherwise)
    if not isinstance(value, bool):
        raise bad(f"{where}: {key} {str(value)[:20]!r}; allowed are true and false")
    return value


def datatype_of(array: NDArray[Any]) -> str:
    """Return the protocol's name of a dtype."""
    return next(name for name, kind in DTYPES.items() if kind == array.dtype.newbyteorder("<"))


def written(outputs: Sequence[tuple[str, NDArray[Any], bool]], head: Mapping[str, Any]) -> tuple[bytes, int | None]:
    """Return the body of a response and the length of its JSON; None where all of it is JSON.

    Args:
        outputs: name, tensor and whether it goes behind the JSON as bytes.
        head: further fields of the response.
    """
    told, parts = [], []
    for name, array, binary in outputs:
        one: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
        if binary:
            data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            one["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            one["data"] = array.reshape(-1).tolist()
        told.append(one)
    text = json.dumps({**head, "outputs": told}, allow_nan=False).encode()
    return (b"".join((text, *parts)), len(text)) if parts else (text, None)

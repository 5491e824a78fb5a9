"""Weights that an ONNX file keeps in files beside it: where they are, that they stay there, and their part in the hash.

The field numbers are those of onnx.proto3; :mod:`engine.models.wire` reads the bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from engine.errors import ModelError
from engine.models.wire import messages

# The ways from a message to the tensors below it: ModelProto.graph -> GraphProto.initializer and so on.
_MODEL = {7: "graph", 25: "function"}
_GRAPH = {1: "node", 5: "tensor", 15: "sparse"}
_FUNCTION = {7: "node"}
_NODE = {5: "attribute"}
_ATTRIBUTE = {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
_SPARSE = {1: "tensor", 2: "tensor"}
_BELOW = {
    "model": _MODEL,
    "graph": _GRAPH,
    "function": _FUNCTION,
    "node": _NODE,
    "attribute": _ATTRIBUTE,
    "sparse": _SPARSE,
}
_EXTERNAL_DATA, _KEY, _VALUE = 13, 1, 2
# Graphs within graphs, as of If and Loop, deeper than any net has them.
MOST_DEPTH = 64


def external_files(path: Path, raw: bytes) -> list[Path]:
    """Return the files beside a model that hold weights of it, each once, in the order of their names.

    Args:
        path: the model.
        raw: its content. What is no ONNX file names no files: that is for the runtime to say.

    Raises:
        ModelError: a file lies outside the model's folder.
    """
    names = set()
    try:
        for tensor in _tensors(memoryview(raw), "model", 0):
            for number, entry in messages(tensor):
                if number == _EXTERNAL_DATA:
                    held = dict(messages(entry))
                    if bytes(held.get(_KEY, b"")) == b"location":
                        names.add(bytes(held.get(_VALUE, b"")).decode("utf-8", "surrogateescape"))
    except ValueError:
        return []
    folder = path.parent.resolve()
    found = []
    for name in sorted(names):
        try:
            file = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError):
            file = Path("/")
        if not name or folder not in file.parents:
            raise ModelError(f"{path} keeps weights in {name[:80]!r}, outside its own folder: export it again")
        found.append(file)
    return found


def model_checksum(path: Path) -> str:
    """Return the SHA-256, hexadecimal, of a model; of one with weights beside it, over those files too.

    Raises:
        ModelError: it or a file with weights of it cannot be read, is not there, or lies outside the model's folder.
    """
    try:
        raw = path.read_bytes()
        digest = hashlib.sha256(raw)
        for file in external_files(path, raw):
            if not file.is_file():
                raise ModelError(f"{path} keeps weights in {file.name}, which is not there: copy it too")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise ModelError(
            f"cannot read {path} ({error.strerror or error}): see to its rights, or copy it again"
        ) from None
    return digest.hexdigest()


def model_size(path: Path) -> int:
    """Return the bytes of a model with the weights beside it; a file that is not there counts nothing.

    Raises:
        ModelError: a file with weights lies outside the model's folder.
        OSError: the model cannot be read.
    """
    raw = path.read_bytes()
    return len(raw) + sum(file.stat().st_size for file in external_files(path, raw) if file.is_file())


def _tensors(message: memoryview, kind: str, depth: int) -> Iterator[memoryview]:
    """Yield every TensorProto below a message.

    Raises:
        ValueError: the bytes are no such message.
    """
    if depth > MOST_DEPTH:
        raise ValueError("too deep")
    below = _BELOW[kind]
    for number, value in messages(message):
        inner = below.get(number)
        if inner == "tensor":
            yield value
        elif inner is not None:
            yield from _tensors(value, inner, depth + 1)

"""Nodes and inputs of an ONNX file, read without the onnx package and without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from engine.models.wire import fields, packed

Dimension = int | str | None

# A file with more fields than a thousand ordinary layers have is not read on.
MOST_FIELDS = 1_000_000
MOST_INTEGERS = 64


@dataclass(frozen=True)
class Node:
    """One node: its operator (``domain.operator`` where the domain is not ONNX's own), name, values and integers."""

    operator: str
    name: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    integers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """The nodes of a file's main graph, in its order, and the shapes that its inputs declare."""

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[Dimension, ...]]

    @property
    def any_size(self) -> bool:
        """Return whether an input of rank 4 leaves one of its axes behind the batch open."""
        shapes = (shape[1:] for shape in self.inputs.values() if len(shape) == 4)
        return any(not isinstance(size, int) or size < 1 for shape in shapes for size in shape)


def read_graph(raw: bytes) -> Graph:
    """Return nodes and inputs of the main graph of an ONNX file's content; no weights are looked at.

    Raises:
        ValueError: it is no ONNX file, is cut short, or has more than :data:`MOST_FIELDS` fields.
    """
    return _Reader().graph(memoryview(raw))


class _Reader:
    """Reads messages by the field numbers of onnx.proto3, and counts what it reads."""

    def __init__(self) -> None:
        self.left = MOST_FIELDS

    def _fields(self, message: memoryview) -> Iterator[tuple[int, memoryview | int | None]]:
        for item in fields(message):
            self.left -= 1
            if self.left < 0:
                raise ValueError("too many fields")
            yield item

    def _below(self, message: memoryview, *way: int) -> Iterator[memoryview]:
        """Yield the messages that a way of field numbers leads to."""
        for number, value in self._fields(message):
            if number == way[0] and isinstance(value, memoryview):
                if way[1:]:
                    yield from self._below(value, *way[1:])
                else:
                    yield value

    def graph(self, model: memoryview) -> Graph:
        nodes: list[Node] = []
        inputs: dict[str, tuple[Dimension, ...]] = {}
        for graph in self._below(model, 7):
            for number, value in self._fields(graph):
                if isinstance(value, memoryview) and number == 1:
                    nodes.append(self._node(value))
                elif isinstance(value, memoryview) and number == 11:
                    name = "".join(_text(text) for text in islice(self._below(value, 1), 1))
                    # ValueInfoProto.type, TypeProto.tensor_type, Tensor.shape, TensorShapeProto.dim
                    inputs[name] = tuple(self._dimension(size) for size in self._below(value, 2, 1, 2, 1))
        return Graph(tuple(nodes), inputs)

    def _node(self, message: memoryview) -> Node:
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
        integers: dict[str, tuple[int, ...]] = {}
        for number, value in self._fields(message):
            if not isinstance(value, memoryview):
                continue
            if number in texts:
                texts[number].append(_text(value))
            elif number == 5:
                name, numbers = self._attribute(value)
                if numbers:
                    integers[name] = numbers
        domain = (texts[7] or [""])[-1]
        operator = (texts[4] or [""])[-1]
        operator = operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"
        return Node(operator, (texts[3] or [""])[-1], tuple(texts[1]), tuple(texts[2]), integers)

    def _attribute(self, message: memoryview) -> tuple[str, tuple[int, ...]]:
        name = ""
        numbers: list[int] = []
        for number, value in self._fields(message):
            if number == 1 and isinstance(value, memoryview):
                name = _text(value)
            elif number in (3, 8) and isinstance(value, int):
                numbers.append(value)
            elif number == 8 and isinstance(value, memoryview):
                numbers += islice(packed(value), MOST_INTEGERS)
        return name, tuple(numbers[:MOST_INTEGERS])

    def _dimension(self, message: memoryview) -> Dimension:
        found: Dimension = None
        for number, value in self._fields(message):
            if number == 1 and isinstance(value, int):
                found = value
            elif number == 2 and isinstance(value, memoryview):
                found = _text(value)
        return found


def _text(value: memoryview) -> str:
    return str(value, "utf-8", "replace")

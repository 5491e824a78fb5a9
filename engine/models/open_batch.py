"""Graphs that declare one number of images alone: the same graph for any number, where that computes the same.

PyTorch's default export traces one batch and declares its size. A graph that takes more images at once reads its
weights once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.models.wire import fields, packed
from engine.models.wire_edit import INT64, all_of, bytes_field, node, tensor, text, with_fields

BATCH = b"batch"
# Outputs this close, relative to the greatest of them, are equal within rounding: kernels differ with the batch.
_ROUNDING = 1e-5
_MODEL_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
# Where a node names the shape of its output, which holds the batch.
_PLACES = {"Reshape": 1, "Resize": 3, "Expand": 1}


def opened_batches(model: bytes, image_input: str, group: int) -> Iterator[bytes]:
    """Yield models that may take any number of images, the one with the fewest changes first.

    The first forgets what the image input and the outputs declare, and the shapes of inner tensors. In the second, the
    targets of Reshape and Expand and the sizes of Resize that begin with the batch follow their input's as well.

    Args:
        model: an ONNX file's content.
        image_input: name of the input that takes the images.
        group: the number of images that it declares.

    Raises:
        ValueError: the bytes are no model.
    """
    whole = memoryview(model)
    graph = all_of(whole, _MODEL_GRAPH)[-1:]
    if not graph:
        return
    declared = with_fields(
        graph[0],
        {
            _INPUT: [
                _open(value, group) if text(value, 1) == image_input else value for value in all_of(graph[0], _INPUT)
            ],
            _OUTPUT: [_open(value, group) for value in all_of(graph[0], _OUTPUT)],
            _VALUE_INFO: [],
        },
    )
    yield with_fields(whole, {_MODEL_GRAPH: [declared]})
    followed = _following(memoryview(declared), group)
    if followed is not None:
        yield with_fields(whole, {_MODEL_GRAPH: [followed]})


def same_outputs(found: NDArray, expected: NDArray) -> bool:
    """Return whether outputs are equal: labels exactly, numbers within rounding of the greatest."""
    expected = expected[: len(found)]
    if found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool((found == expected).all())
    peak = max(1.0, float(np.abs(expected, dtype=np.float64).max(initial=0)))
    rounding = max(_ROUNDING, 4 * float(np.finfo(found.dtype).eps))
    return bool((np.abs(found.astype(np.float64) - expected) <= rounding * peak).all())


def _open(value: memoryview, group: int) -> bytes:
    """Return a ValueInfoProto whose first axis is open, if it was ``group``."""
    for kind in all_of(value, 2)[:1]:
        for sizes in all_of(kind, 1)[:1]:
            for shape in all_of(sizes, 2)[:1]:
                axes = all_of(shape, 1)
                if axes and dict(fields(axes[0])).get(1) == group:
                    opened = with_fields(shape, {1: [bytes_field(2, BATCH), *axes[1:]]})
                    return with_fields(value, {2: [with_fields(kind, {1: [with_fields(sizes, {2: [opened]})]})]})
    return bytes(value)


def _following(graph: memoryview, group: int) -> bytes | None:
    """Return a graph whose nodes take the batch of their target shapes from their input; None where none has one."""
    nodes, known = all_of(graph, _NODE), _shapes(graph)
    made: list[bytes | memoryview] = []
    constants: list[bytes | memoryview] = [tensor("open_batch_first", np.zeros(1, np.int64))]
    for index, item in enumerate(nodes):
        inputs = [bytes(name).decode("utf-8", "replace") for name in all_of(item, 1)]
        at = _PLACES.get(text(item, 4), len(inputs))
        target = known.get(inputs[at]) if at < len(inputs) else None
        if target is None or len(target) < 2 or target[0] != group:
            made.append(item)
            continue
        name = f"open_batch_{index}"
        constants.append(tensor(f"{name}_rest", target[1:]))
        made += [
            node("Shape", [inputs[0]], [f"{name}_shape"]),
            node("Gather", [f"{name}_shape", "open_batch_first"], [f"{name}_batch"]),
            node("Concat", [f"{name}_batch", f"{name}_rest"], [name], axis=0),
            with_fields(item, {1: [*all_of(item, 1)[:at], name.encode(), *all_of(item, 1)[at + 1 :]]}),
        ]
    if len(made) == len(nodes):
        return None
    return with_fields(graph, {_NODE: made, _INITIALIZER: [*all_of(graph, _INITIALIZER), *constants]})


def _shapes(graph: memoryview) -> dict[str, NDArray[np.int64]]:
    """Return the constants of a graph that are integers in a row, by name."""
    found = {}
    for value in all_of(graph, _INITIALIZER):
        found[text(value, 8)] = _integers(value)
    for item in all_of(graph, _NODE):
        if text(item, 4) == "Constant":
            for attribute in all_of(item, 5):
                for value in all_of(attribute, 5) if text(attribute, 1) == "value" else []:
                    found[text(item, 2)] = _integers(value)
    return {name: values for name, values in found.items() if values is not None}


def _integers(value: memoryview) -> NDArray[np.int64] | None:
    """Return a TensorProto's values; None unless they are int64, in one row, and kept in the file itself."""
    sizes: list[int] = []
    loose: list[int] = []
    kind, raw = 0, None
    for number, content in fields(value):
        if number == 1:
            sizes += packed(content) if isinstance(content, memoryview) else [content or 0]
        elif number == 2 and isinstance(content, int):
            kind = content
        elif number == 7:
            loose += packed(content) if isinstance(content, memoryview) else [content or 0]
        elif number == 9 and isinstance(content, memoryview):
            raw = content
    if kind != INT64 or len(sizes) != 1:
        return None
    values = np.frombuffer(raw, "<i8") if raw is not None and len(raw) == 8 * sizes[0] else np.array(loose, np.int64)
    return values if len(values) == sizes[0] else None

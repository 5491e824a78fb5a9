"""Nets in every form that other tools export, whose right labels NumPy gives without running them.

Each looks at one channel of the pixel, as 0..1, and says which of LEVELS is nearest; what differs is how it takes
images and how it puts that out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.nets import IR_VERSION, OPSET
from tests.helpers.reference import bilinear

LEVELS = np.array([20.0, 120.0, 220.0])
MIDDLE = 120.0
GAIN = 12.0
SIZE = (32, 48)
SCALED = ("--scale", "1/255")
# Pixels on the edge of a decision are left out: float16 rounds them to one side or the other.
EDGES = (70, 120, 170)
PIXELS = np.array([value for value in range(256) if min(abs(value - edge) for edge in EDGES) > 2], np.uint8)
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


@dataclass
class Form:
    """How a net takes images and outputs what it found.

    Attributes:
        ending: ``logits``, ``softmax``, ``sigmoid`` (a share a class), ``logit`` or ``share`` (one map), ``labels3`` or
            ``labels4`` (of that rank).
        batch: a number for a fixed batch.
        size: (height, width) it declares; texts where any will do.
        channels: of the input.
        channel: the one that it looks at.
        layout: of the input.
        output_layout: of the output.
        takes: element type of the input.
        gives: element type of the output.
        raw: whether it takes 0..255 and scales them itself.
        reduced: the factor by which the maps are smaller.
        divides: what the sides must divide by.
        shrinks: by what sides are reduced and enlarged again: maps come out smaller where it does not divide them.
        auxiliary: whether a wrong output, ``aux``, comes first.
        constants: shapes of further inputs by name; their sums are added to the first map.
        classes: order of the levels among its classes.
        metadata: custom metadata.
    """

    ending: str = "logits"
    batch: int | str = "n"
    size: Sequence[int | str] = ("h", "w")
    channels: int | str = 1
    channel: int = 0
    layout: str = "NCHW"
    output_layout: str = "NCHW"
    takes: str = "float32"
    gives: str = ""
    raw: bool = False
    reduced: int = 1
    divides: int = 1
    shrinks: int = 1
    auxiliary: bool = False
    constants: Mapping[str, Sequence[int]] = field(default_factory=dict)
    classes: Sequence[int] = (0, 1, 2)
    metadata: Mapping[str, str] = field(default_factory=dict)


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **options: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **options))
        return name

    def constant(self, value: Any) -> str:
        name = f"c{len(self.held)}"
        self.held.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def save_foreign(path: Path, form: Form | None = None, **fields: Any) -> Path:
    """Write a net of a form."""
    form = form or Form(**fields)
    graph, single = _Graph(), form.ending in ("logit", "share")
    x = "pixels"
    if form.takes != "float32":
        x = graph.add("Cast", x, to=TensorProto.FLOAT)
    if form.layout == "NHWC":
        x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    if form.raw:
        x = graph.add("Mul", x, graph.constant(np.float32(1 / 255)))
    levels = (np.array([MIDDLE]) if single else LEVELS[list(form.classes)]) / 255
    kernel = np.zeros((len(levels), form.channels if isinstance(form.channels, int) else 1, 1, 1), np.float32)
    kernel[:, form.channel, 0, 0] = GAIN if single else 2 * GAIN * levels
    x = graph.add("Conv", x, graph.constant(kernel), graph.constant(_biases(levels, single)))
    for name in form.constants:
        total = graph.add("ReduceSum", name, keepdims=0)
        first = np.eye(len(levels), 1, dtype=np.float32).reshape(1, -1, 1, 1)
        x = graph.add("Add", x, graph.add("Mul", total, graph.constant(first)))
    if form.divides > 1:
        side = form.divides
        small = graph.add("MaxPool", x, kernel_shape=[side, side], strides=[side, side])
        wide = graph.add("Resize", small, "", graph.constant(np.array([1, 1, side, side], np.float32)), mode="nearest")
        x = graph.add("Add", x, graph.add("Mul", wide, graph.constant(np.float32(0))))
    if form.shrinks > 1:
        side = form.shrinks
        x = graph.add("MaxPool", x, kernel_shape=[side, side], strides=[side, side])
        x = graph.add("Resize", x, "", graph.constant(np.array([1, 1, side, side], np.float32)), mode="nearest")
    if form.reduced > 1:
        side = form.reduced
        x = graph.add("AveragePool", x, kernel_shape=[side, side], strides=[side, side])
    maps, gives = len(levels), form.gives or "float32"
    aux = x
    if form.ending in ("sigmoid", "share"):
        x = graph.add("Sigmoid", x)
    elif form.ending == "softmax":
        x = graph.add("Softmax", x, axis=1)
    elif form.ending.startswith("labels"):
        x, maps, gives = (
            graph.add("ArgMax", x, axis=1, keepdims=int(form.ending == "labels4")),
            1,
            form.gives or "int64",
        )
    rank4 = form.ending != "labels3"
    if form.output_layout == "NHWC" and rank4:
        x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    graph.nodes.append(helper.make_node("Cast", [x], ["out"], to=TYPES[gives]))
    sides = list(form.size) if form.reduced == form.shrinks == 1 else ["p", "q"]
    shape = [form.batch, *sides, maps] if form.output_layout == "NHWC" else [form.batch, maps, *sides]
    shape = shape if rank4 else [form.batch, *sides]
    outputs = [helper.make_tensor_value_info("out", TYPES[gives], shape)]
    if form.auxiliary:
        graph.nodes.append(helper.make_node("Neg", [aux], ["aux"]))
        outputs.insert(0, helper.make_tensor_value_info("aux", TensorProto.FLOAT, [form.batch, len(levels), *sides]))
    takes = (
        [form.batch, form.channels, *form.size] if form.layout == "NCHW" else [form.batch, *form.size, form.channels]
    )
    inputs = [helper.make_tensor_value_info("pixels", TYPES[form.takes], takes)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(s)) for name, s in form.constants.items()]
    made = helper.make_graph(graph.nodes, "net", inputs, outputs, graph.held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    if form.metadata:
        helper.set_model_props(model, dict(form.metadata))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def _biases(levels: np.ndarray, single: bool) -> np.ndarray:
    return (-GAIN * levels if single else -GAIN * levels**2).astype(np.float32)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Return uint8 pixels that are not on the edge of a decision."""
    return np.random.default_rng(seed).choice(PIXELS, shape)


def smooth(count: int, size: tuple[int, int] = SIZE, block: int = 8, seed: int = 0) -> np.ndarray:
    """Return uint8 images of squares of one value each."""
    small = drawn(count, -(-size[0] // block), -(-size[1] // block), seed=seed)
    return small.repeat(block, 1).repeat(block, 2)[:, : size[0], : size[1]]


def nearest_level(pixels: np.ndarray, classes: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """Return the right labels of uint8 pixels."""
    return np.abs(pixels[..., None] - LEVELS[list(classes)]).argmin(-1).astype(np.uint8)


def above_middle(pixels: np.ndarray, probability: float = 0.5) -> np.ndarray:
    """Return 1 where the foreground's probability is above the one given."""
    share = 1 / (1 + np.exp(-GAIN * (pixels - MIDDLE) / 255))
    return (share > probability).astype(np.uint8)


def enlarged_labels(pixels: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of bilinear, half-pixel enlarged logits, and where float32 cannot change them."""
    levels = LEVELS / 255
    logits = 2 * GAIN * levels[:, None, None] * pixels[:, None] / 255 - GAIN * levels[:, None, None] ** 2
    count, classes, height, width = logits.shape
    pooled = logits.reshape(count, classes, height // factor, factor, width // factor, factor).mean(axis=(3, 5))
    scores = np.sort(wide := bilinear(pooled, (height, width)), axis=1)
    return wide.argmax(axis=1).astype(np.uint8), scores[:, -1] - scores[:, -2] > 1e-4

"""Nets as other tools export them, one for each way in which they differ from the engine's own form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.helpers.nets import save_graph

SIZE = (12, 20)
THREE = ("soil", "rock", "sand")
Dimension = int | str


def save_foreign(
    path: Path,
    seed: int = 0,
    *,
    classes: int = 3,
    channels: int = 1,
    head: str = "logits",
    kind: int = TensorProto.FLOAT,
    batch: Dimension = "n",
    size: tuple[Dimension, Dimension] = ("h", "w"),
    layout: str = "NCHW",
    reshape: bool = False,
    stride: int = 0,
    pool: int = 0,
    failing: bool = False,
    auxiliary: bool = False,
    gain: bool = False,
) -> Path:
    """Write conv 3x3, relu, conv 1x1 on pixels that are scaled as the contract says.

    Args:
        path: the file to write.
        seed: decides the weights.
        classes: maps of the last convolution.
        channels: of the input.
        head: ``logits``, ``sigmoid``, ``argmax`` (labels of rank 3) or ``argmax4`` (one map of labels).
        kind: element type of the input; of uint8 the net scales itself.
        batch: a number for a fixed one.
        size: (height, width); numbers for fixed sides.
        layout: axes of the input.
        reshape: give the hidden maps a Reshape to a constant shape with the batch in it (fixed sizes alone).
        stride: sides must divide by it: pooled, enlarged again and added.
        pool: the maps come at one part in so many of the input's sides.
        failing: compute NaN for images without a pixel above 0.1.
        auxiliary: put out another map of another size before the real one.
        gain: take a further input that the maps are multiplied with.
    """
    draw = np.random.default_rng(seed)
    weights = {
        "w1": draw.normal(0, 1, (4, channels, 3, 3)),
        "b1": draw.normal(0, 0.5, 4),
        "w2": draw.normal(0, 1, (classes, 4, 1, 1)),
        "b2": draw.normal(0, 0.5, classes),
    }
    whole: dict[str, np.ndarray] = {}
    nodes: list[Any] = []

    def add(kind: str, *inputs: str, **options: Any) -> str:
        name = f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **options))
        return name

    planar = "pixels" if kind == TensorProto.FLOAT else add("Cast", "pixels", to=TensorProto.FLOAT)
    if kind == TensorProto.UINT8:
        weights["factor"] = np.array(1 / 255)
        planar = add("Mul", planar, "factor")
    if layout == "NHWC":
        planar = add("Transpose", planar, perm=[0, 3, 1, 2])
    last = add("Relu", add("Conv", planar, "w1", "b1", pads=[1, 1, 1, 1]))
    if reshape:
        whole["target"] = np.array([batch, 4, *size], np.int64)
        last = add("Reshape", last, "target")
    last = add("Conv", last, "w2", "b2")
    if stride:
        down = add("AveragePool", last, kernel_shape=[stride] * 2, strides=[stride] * 2)
        weights["up"] = np.array([1, 1, stride, stride])
        last = add("Add", last, add("Resize", down, "", "up", mode="nearest"))
    if gain:
        last = add("Mul", last, "gain")
    if failing:
        weights |= {"limit": np.array(0.1), "none": np.array(0.0)}
        root = add("Sqrt", add("Sub", add("ReduceMax", planar, axes=[1, 2, 3]), "limit"))
        last = add("Add", last, add("Mul", root, "none"))
    wide = last
    if pool:
        last = add("AveragePool", last, kernel_shape=[pool] * 2, strides=[pool] * 2)
    if head == "sigmoid":
        last = add("Sigmoid", last)
    labels = head.startswith("argmax")
    if labels:
        last = add("ArgMax", last, axis=1, keepdims=int(head == "argmax4"))
    made = TensorProto.INT64 if labels else TensorProto.FLOAT
    if kind == TensorProto.FLOAT16 and not labels:
        last, made = add("Cast", last, to=kind), kind
    nodes.append(helper.make_node("Identity", [last], ["maps"]))
    sides = list(size) if not pool else [s // pool if isinstance(s, int) else f"{s} small" for s in size]
    maps = [] if head == "argmax" else [1 if labels else classes]
    outputs = [helper.make_tensor_value_info("maps", made, [batch, *maps, *sides])]
    if auxiliary:
        nodes.append(helper.make_node("GlobalAveragePool", [wide], ["means"]))
        outputs.insert(0, helper.make_tensor_value_info("means", TensorProto.FLOAT, [batch, classes, "one", "two"]))
    taken = [batch, channels, *size] if layout == "NCHW" else [batch, *size, channels]
    inputs = [helper.make_tensor_value_info("pixels", kind, taken)]
    if gain:
        inputs.insert(0, helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]))
    held = {name: value.astype(np.float32) for name, value in weights.items()} | whole
    return save_graph(path, nodes, inputs, outputs, held)


@dataclass(frozen=True)
class Case:
    """One way in which a foreign net differs.

    Attributes:
        shape: arguments of :func:`save_foreign`.
        facts: what must be stated of it.
        channels: of the images.
        sizes: (height, width) of images that it must be right on.
        strategy: how it is fused.
    """

    shape: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    channels: int = 1
    sizes: Sequence[tuple[int, int]] = (SIZE, (9, 13))
    strategy: str = "mean-prob"


GREY: dict[str, Any] = {"scale": 1 / 255, "classes": list(THREE), "activation": "logits"}
# Of sides this small, three maps could be rows or columns as well.
SMALL = {**GREY, "output_layout": "NCHW"}
BINARY = {"scale": 1 / 255, "classes": ["background", "rock"]}
CASES: dict[str, Case] = {
    "batch of 1": Case({"batch": 1}, GREY),
    "batch of 3": Case({"batch": 3, "size": SIZE}, GREY, sizes=(SIZE,)),
    "batch in a reshape": Case({"batch": 2, "size": SIZE, "reshape": True}, GREY, sizes=(SIZE,)),
    "float16": Case({"kind": TensorProto.FLOAT16}, GREY),
    "uint8": Case({"kind": TensorProto.UINT8}, {"classes": list(THREE), "activation": "logits"}),
    "uint8 NHWC": Case({"kind": TensorProto.UINT8, "layout": "NHWC"}, {"classes": list(THREE), "activation": "logits"}),
    "stride": Case({"stride": 8}, {**GREY, "stride": 8}, sizes=(SIZE, (9, 13), (16, 24), (3, 1))),
    "half maps": Case({"pool": 2}, SMALL, sizes=(SIZE, (10, 18))),
    "uneven maps": Case({"pool": 3, "stride": 3}, {**SMALL, "stride": 3}, sizes=(SIZE, (10, 17))),
    "nearest maps": Case({"pool": 4}, {**SMALL, "maps_resize": "nearest"}, sizes=(SIZE,)),
    "resized": Case({"size": (8, 8)}, {**GREY, "fit": "resize"}, sizes=(SIZE, (5, 30), (8, 8))),
    "resized uint8": Case(
        {"size": (8, 8), "kind": TensorProto.UINT8},
        {"classes": list(THREE), "activation": "logits", "fit": "resize"},
    ),
    "windows": Case({"size": (8, 8)}, {**GREY, "fit": "pad"}, sizes=(SIZE, (5, 30), (8, 8))),
    "windows of half maps": Case({"size": (8, 8), "pool": 2, "batch": 1}, {**SMALL, "fit": "pad"}),
    "binary logit": Case({"classes": 1}, {**BINARY, "activation": "logits"}),
    "binary sigmoid": Case(
        {"classes": 1, "head": "sigmoid"}, {**BINARY, "activation": "probabilities", "foreground_threshold": 0.3}
    ),
    "labels": Case({"head": "argmax"}, {"scale": 1 / 255, "classes": list(THREE)}, strategy="vote"),
    "small labels": Case(
        {"head": "argmax4", "pool": 2}, {"scale": 1 / 255, "classes": list(THREE)}, sizes=(SIZE,), strategy="vote"
    ),
    "bgr": Case({"channels": 3}, {**GREY, "channel_order": "bgr", "mean": [0.4, 0.5, 0.6]}, channels=3),
    "bands": Case({"channels": 2}, {**GREY, "bands": [3, 1]}, channels=3),
    "grey": Case({"channels": 3}, {**GREY, "grey_as_rgb": True}),
    "two outputs": Case({"auxiliary": True}, {**GREY, "output_name": "maps"}),
    "constant": Case({"gain": True}, {**GREY, "constants": {"gain": 0.5}}),
}


def pixels_of(case: Case, size: tuple[int, int] = SIZE, count: int = 7, seed: int = 4) -> np.ndarray:
    """Return raw uint8 images (image, height, width, channels) for a case: light and dark blocks with noise."""
    draw = np.random.default_rng(seed)
    height, width = size
    blocks = draw.integers(0, 2, (count, height // 6 + 1, width // 6 + 1, case.channels)) * 180
    blocks = blocks.repeat(6, axis=1).repeat(6, axis=2)[:, :height, :width]
    return (blocks + draw.integers(0, 76, blocks.shape)).astype(np.uint8)

"""Tiny ONNX nets of every shape a user may bring, built with the onnx package; the engine itself never imports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.models.contract import METADATA_KEY, ModelContract

# What onnxruntime 1.22 reads for certain, whatever the installed onnx package would write by default.
OPSET, IR_VERSION = 17, 8
HIDDEN = 4
FIVE = ("background", "soil", "bedrock", "sand", "big rock")
# A poisoned net computes NaN for images that hold a pixel (scaled by 1/255) above this.
POISON_ABOVE = 0.99
Dimension = int | str


def save_net(
    path: Path,
    classes: int = len(FIVE),
    *,
    seed: int = 0,
    channels: int = 1,
    input_layout: str = "NCHW",
    output_layout: str = "NCHW",
    end: str = "logits",
    batch: Dimension = "N",
    size: tuple[Dimension, Dimension] = ("H", "W"),
    metadata: ModelContract | str | None = None,
    poisoned: bool = False,
    two_outputs: bool = False,
    declared: Sequence[Dimension] | None = None,
) -> Path:
    """Write conv 3x3, relu, conv 1x1 with seeded weights; the same seed gives the same logits in every layout.

    Args:
        path: the file to write.
        classes: output maps of the net.
        seed: decides the weights.
        channels: channels of the input.
        input_layout: ``NCHW`` or ``NHWC``.
        output_layout: ``NCHW`` or ``NHWC``.
        end: ``logits``, ``softmax`` or ``sigmoid``.
        batch: a number for a fixed batch.
        size: (height, width); numbers for a fixed size.
        metadata: contract, or any text to stand in its place.
        poisoned: compute NaN for images with a pixel above :data:`POISON_ABOVE`.
        two_outputs: put out ``aux`` as well, before ``out``.
        declared: shape of the output as the graph declares it; the true one by default.
    """
    draw = np.random.default_rng(seed)
    weights = {
        "w1": draw.normal(0, 1, (HIDDEN, channels, 3, 3)),
        "b1": draw.normal(0, 0.5, HIDDEN),
        "w2": draw.normal(0, 1, (classes, HIDDEN, 1, 1)),
        "b2": draw.normal(0, 0.5, classes),
    }
    nodes = [helper.make_node("Transpose", ["image"], ["planar"], perm=[0, 3, 1, 2])] if input_layout == "NHWC" else []
    planar = "planar" if nodes else "image"
    nodes += [
        helper.make_node("Conv", [planar, "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["z"]),
    ]
    last = "z"
    if poisoned:
        weights |= {"limit": np.array(POISON_ABOVE), "none": np.array(0.0)}
        nodes += [
            helper.make_node("ReduceMax", [planar], ["peak"], axes=[1, 2, 3]),
            helper.make_node("Sub", ["limit", "peak"], ["room"]),
            helper.make_node("Sqrt", ["room"], ["root"]),
            helper.make_node("Mul", ["root", "none"], ["zero or NaN"]),
            helper.make_node("Add", [last, "zero or NaN"], ["poisoned"]),
        ]
        last = "poisoned"
    if end != "logits":
        options = {"axis": 1} if end == "softmax" else {}
        nodes.append(helper.make_node(end.capitalize(), [last], ["p"], **options))
        last = "p"
    turned = output_layout == "NHWC"
    nodes.append(helper.make_node("Transpose", [last], ["out"], perm=[0, 2, 3, 1] if turned else [0, 1, 2, 3]))
    if two_outputs:
        nodes.append(helper.make_node("Neg", ["out"], ["aux"]))
    put_in = (batch, channels, *size) if input_layout == "NCHW" else (batch, *size, channels)
    put_out = declared or ((batch, *size, classes) if turned else (batch, classes, *size))
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, list(put_out))]
    if two_outputs:
        outputs.insert(0, helper.make_tensor_value_info("aux", TensorProto.FLOAT, list(put_out)))
    save_graph(
        path,
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(put_in))],
        outputs,
        {name: value.astype(np.float32) for name, value in weights.items()},
        metadata,
    )
    return path


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    metadata: ModelContract | str | None = None,
) -> Path:
    """Write any graph, with a contract or another text in its metadata."""
    held = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "net", list(inputs), list(outputs), held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    if metadata is not None:
        text = metadata.to_json() if isinstance(metadata, ModelContract) else metadata
        helper.set_model_props(model, {METADATA_KEY: text})
    path.write_bytes(model.SerializeToString())
    return path


def save_member(path: Path, seed: int = 0, classes: Sequence[str] = FIVE, **options: object) -> Path:
    """Write a net that carries a contract: grey images scaled by 1/255, class 0 ignored unless told otherwise."""
    promised = dict(options.pop("promised", {}))  # type: ignore[call-overload]
    contract = ModelContract(
        **{
            "classes": tuple(classes),
            "input_layout": options.get("input_layout", "NCHW"),
            "output_layout": options.get("output_layout", "NCHW"),
            "activation": "logits" if options.get("end", "logits") == "logits" else "probabilities",
            "channels": options.get("channels", 1),
            "scale": 1 / 255,
            "ignored_class": 0,
            **promised,
        }
    )
    return save_net(path, contract.outputs, seed=seed, metadata=contract, **options)  # type: ignore[arg-type]


def save_specialists(folder: Path, wanted: Sequence[int] = range(len(FIVE)), seed: int = 50, **options: object) -> Path:
    """Write a folder with one one-class net a wanted class."""
    folder.mkdir(parents=True, exist_ok=True)
    for class_id in wanted:
        promised = {"kind": "specialist", "class_id": class_id, "group": "set"}
        save_member(folder / f"only_{class_id}.onnx", seed + class_id, promised=promised, **options)
    return folder

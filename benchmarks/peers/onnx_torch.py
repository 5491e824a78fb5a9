"""An ONNX graph as a PyTorch module: the operators in the exporters' nets, each as torch's own function.

onnx2torch, the converter on the package index, had its last release in 2024 and does not know this Python's onnx; the
nets here need two dozen operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional


class GraphModule(torch.nn.Module):
    """Runs the nodes in sequence; traced, it is a plain net of torch operators."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        model = onnx.load(path)
        self.nodes = [(node.op_type, node.input, node.output, _attributes(node)) for node in model.graph.node]
        self.held: dict[str, torch.Tensor] = {}
        # Shapes, axes and the like are read while tracing; weights become parameters.
        self.constants: dict[str, np.ndarray] = {}
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor).copy()
            self.constants[tensor.name] = array
            if array.dtype.kind == "f":
                self.held[tensor.name] = torch.nn.Parameter(torch.from_numpy(array), requires_grad=False)
        for index, value in enumerate(self.held.values()):
            self.register_parameter(f"weight_{index}", value)
        self.input, self.output = model.graph.input[0].name, model.graph.output[0].name

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values: dict[str, Any] = {**self.held, self.input: images}
        for kind, inputs, outputs, attributes in self.nodes:
            given = [values.get(name) for name in inputs]
            fixed = [self.constants.get(name) for name in inputs]
            if kind not in OPERATORS:
                raise NotImplementedError(f"the torch peer does not support the ONNX operator {kind}")
            values[outputs[0]] = OPERATORS[kind](given, fixed, attributes)
        return values[self.output]


def _attributes(node: Any) -> dict[str, Any]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _padded(x: torch.Tensor, pads: list[int], value: float = 0.0) -> tuple[torch.Tensor, list[int]]:
    """Return the input and torch's symmetric padding; where the sides differ, the input padded here and none."""
    if pads[:2] == pads[2:]:
        return x, list(pads[:2])
    return functional.pad(x, (pads[1], pads[3], pads[0], pads[2]), value=value), [0, 0]


def _conv(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    x, pads = _padded(given[0], a.get("pads", [0, 0, 0, 0]))
    bias = given[2] if len(given) > 2 else None
    return functional.conv2d(
        x, given[1], bias, a.get("strides", [1, 1]), pads, a.get("dilations", [1, 1]), a.get("group", 1)
    )


def _conv_transpose(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    pads, bias = a.get("pads", [0, 0, 0, 0]), given[2] if len(given) > 2 else None
    if pads[:2] != pads[2:]:
        raise NotImplementedError(f"ConvTranspose with pads {pads}")
    extra = a.get("output_padding", [0, 0])
    return functional.conv_transpose2d(given[0], given[1], bias, a.get("strides", [1, 1]), pads[:2], extra)


def _max_pool(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    x, pads = _padded(given[0], a.get("pads", [0, 0, 0, 0]), -float("inf"))
    return functional.max_pool2d(x, a["kernel_shape"], a.get("strides"), pads)


def _resize(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    mode = {b"linear": "bilinear", b"nearest": "nearest"}[a["mode"]]
    if mode == "bilinear" and a.get("coordinate_transformation_mode") != b"half_pixel":
        raise NotImplementedError("bilinear Resize of another convention than half_pixel")
    if len(fixed) > 3 and fixed[3] is not None:
        return functional.interpolate(given[0], size=[int(side) for side in fixed[3][2:]], mode=mode)
    return functional.interpolate(given[0], scale_factor=[float(value) for value in fixed[2][2:]], mode=mode)


def _reshape(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    wanted = [int(side) for side in fixed[1]]
    return given[0].reshape([given[0].shape[axis] if side == 0 else side for axis, side in enumerate(wanted)])


def _unsqueeze(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    x = given[0]
    for axis in sorted(int(axis) for axis in fixed[1]):
        x = x.unsqueeze(axis)
    return x


def _squeeze(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    return given[0].squeeze(tuple(int(axis) for axis in fixed[1]))


def _mean(given: list[Any], fixed: list[Any], a: dict[str, Any]) -> torch.Tensor:
    axes = [int(axis) for axis in (a["axes"] if "axes" in a else fixed[1])]
    return given[0].mean(axes, keepdim=bool(a.get("keepdims", 1)))


OPERATORS: dict[str, Any] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "Resize": _resize,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "ReduceMean": _mean,
    "GlobalAveragePool": lambda g, f, a: g[0].mean(tuple(range(2, g[0].ndim)), keepdim=True),
    "Transpose": lambda g, f, a: g[0].permute(a["perm"]),
    "Concat": lambda g, f, a: torch.cat(g, a["axis"]),
    "Softmax": lambda g, f, a: torch.softmax(g[0], a.get("axis", -1)),
    "Relu": lambda g, f, a: torch.relu(g[0]),
    "Sigmoid": lambda g, f, a: torch.sigmoid(g[0]),
    "Tanh": lambda g, f, a: torch.tanh(g[0]),
    "Erf": lambda g, f, a: torch.erf(g[0]),
    "Add": lambda g, f, a: g[0] + g[1],
    "Sub": lambda g, f, a: g[0] - g[1],
    "Mul": lambda g, f, a: g[0] * g[1],
    "Div": lambda g, f, a: g[0] / g[1],
    "Pow": lambda g, f, a: g[0] ** g[1],
    "Sqrt": lambda g, f, a: torch.sqrt(g[0]),
    "Reciprocal": lambda g, f, a: torch.reciprocal(g[0]),
    "Neg": lambda g, f, a: -g[0],
    "MatMul": lambda g, f, a: g[0] @ g[1],
    "Identity": lambda g, f, a: g[0],
}

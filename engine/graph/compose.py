"""Merges whole ONNX models into one graph: unique names, one operator set, no unused nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.graph.nodes import live_nodes, names_read, reach_weights
from engine.graph.package import load_onnx
from engine.utils.console import first_line

# Below 13, Softmax, ReduceSum and per-channel quantisation have other semantics.
LEAST_OPSET = 13
# Smaller weights are shapes and the like, which some operators must find as constants.
SHARED_BYTES = 1024


def read_model(path: Path) -> Any:
    """Load an ONNX file with its external data, if it has any.

    Raises:
        ModelError: not an ONNX file, or its data are missing.
        PlanError: the package ``onnx`` is missing.
    """
    onnx = load_onnx()
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf, file system and the checker of external data share no base class
        why = first_line(error, kind=True)
        raise ModelError(f"{path}: not readable as ONNX ({why}); export or copy it again") from None
    if not model.graph.node:
        raise ModelError(f"{path}: it contains no graph; export or copy it again")
    return model


def opset_of(model: Any) -> int:
    """Return the version of the standard operator set of a model."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def at_opset(model: Any, opset: int, path: Path) -> Any:
    """Return the model converted to another version of the standard operator set; unchanged if it has that one.

    Raises:
        ModelError: one of its operators cannot be converted.
    """
    if opset_of(model) == opset:
        return model
    onnx = load_onnx()
    own = [(entry.domain, entry.version) for entry in model.opset_import if entry.domain not in ("", "ai.onnx")]
    try:
        converted = onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own kinds alike
        why = first_line(error, kind=True)
        raise ModelError(
            f"{path}: no conversion from opset {opset_of(model)} to {opset} ({why}); export it again"
        ) from None
    present = {entry.domain for entry in converted.opset_import}
    converted.opset_import.extend(onnx.helper.make_opsetid(*pair) for pair in own if pair[0] not in present)
    return converted


class Softmax(NamedTuple):
    """Tensors of a softmax over the classes.

    Attributes:
        below: logit - greatest logit.
        terms: exp of that.
        inverse: one over their sum.
        shares: terms x inverse, the probabilities.
    """

    below: str
    terms: str
    inverse: str
    shares: str


class Composer:
    """Builds one graph from whole models and single nodes.

    Every method that adds something returns the name of the tensor it computes.
    """

    def __init__(self, opset: int) -> None:
        """Start an empty graph in a version of the standard operator set."""
        self._onnx = load_onnx()
        self.opset = opset
        self._ir_version = 0
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._sparse: list[Any] = []
        self._functions: list[Any] = []
        self._imports = {"": opset}
        self._softmaxes: dict[str, Softmax] = {}
        # Holds the models themselves: the id of one that is gone may be another's.
        self._absorbed: dict[int, tuple[Any, str]] = {}

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a constant tensor."""
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(self._onnx.numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def row(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add one value per class (or channel), shaped (1, classes, 1, 1) to match NCHW maps."""
        return self.constant(np.asarray(values, dtype).reshape(1, -1, 1, 1), dtype)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.call(kind, inputs, f"{kind.lower()}_{len(self._nodes)}", **attributes)

    def call(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one named output."""
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def cast(self, tensor: str, dtype: npt.DTypeLike) -> str:
        """Add a conversion to another type."""
        return self.add("Cast", tensor, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def greatest(self, tensor: str) -> str:
        """Add the maximum over the classes, kept as an axis of length 1."""
        if self.opset >= 18:
            return self.add("ReduceMax", tensor, self.constant([1], np.int64))
        return self.add("ReduceMax", tensor, axes=[1])

    def best(self, scores: str, allowed: npt.NDArray[np.bool_], keep: bool = False) -> str:
        """Add the best of the allowed classes, int64, the lowest where several are; ``keep`` keeps the axis."""
        if allowed.all():
            return self.add("ArgMax", scores, axis=1, keepdims=int(keep))
        ids = self.constant(np.flatnonzero(allowed), np.int64)
        place = self.add("ArgMax", self.add("Gather", scores, ids, axis=1), axis=1, keepdims=int(keep))
        return self.add("Gather", ids, place, axis=0)

    def weighted_sum(self, parts: Sequence[str], weights: npt.NDArray[Any]) -> str:
        """Add the sum of weight x part, in order; ``weights`` (parts, classes) is of the parts' type."""
        total = ""
        for part, row in zip(parts, weights, strict=True):
            same = bool((row == row[0]).all())
            factor = self.constant(row[0], row.dtype) if same else self.row(row, row.dtype)
            term = self.add("Mul", part, factor)
            total = self.add("Add", total, term) if total else term
        return total

    def softmax(self, tensor: str) -> Softmax:
        """Add a softmax over the classes, once per tensor."""
        if tensor not in self._softmaxes:
            below = self.add("Sub", tensor, self.greatest(tensor))
            terms = self.add("Exp", below)
            inverse = self.add("Reciprocal", self.add("ReduceSum", terms, self.constant([1], np.int64)))
            self._softmaxes[tensor] = Softmax(below, terms, inverse, self.add("Mul", terms, inverse))
        return self._softmaxes[tensor]

    def side(self, tensor: str, axis: int) -> str:
        """Add the length of an axis, a scalar int64."""
        return self.add("Gather", self.add("Shape", tensor), self.constant(axis, np.int64), axis=0)

    def shape(self, *sides: int | str) -> str:
        """Add a shape, int64, out of numbers and scalars that are computed."""
        zero = self.constant([0], np.int64)
        parts = [
            self.constant([side], np.int64) if isinstance(side, int) else self.add("Unsqueeze", side, zero)
            for side in sides
        ]
        return self.add("Concat", *parts, axis=0)

    def absorb(self, model: Any, prefix: str, feeds: Mapping[str, str], outputs: Sequence[str]) -> list[str]:
        """Insert a whole model, with a prefix on each of its names; of one inserted again the weights are shared.

        Args:
            model: of this composer's operator set; not modified before :meth:`finish`.
            prefix: unique to this model, and not the beginning of another name here.
            feeds: the tensors that its inputs read, by the inputs' names.
            outputs: the tensors needed from it.

        Returns:
            The names of those tensors here.
        """
        weights = {item.name for item in model.graph.initializer}
        copy = type(model)()
        copy.CopyFrom(model)
        del copy.graph.value_info[:]
        # Files of IR version 3 list their weights among the inputs; a second source of them would be ambiguous here.
        real = [item for item in copy.graph.input if item.name not in weights]
        del copy.graph.input[:]
        copy.graph.input.extend(real)
        self._onnx.compose.add_prefix(copy, prefix, inplace=True)
        for node in copy.graph.node:
            reach_weights(node, weights, prefix)
        for name, feed in feeds.items():
            place = prefix + name
            self._nodes.append(self._onnx.helper.make_node("Identity", [feed], [place], name=f"feed_{place}"))
        _, first = self._absorbed.setdefault(id(model), (model, prefix))
        for item in copy.graph.initializer:
            if first == prefix or item.ByteSize() < SHARED_BYTES:
                self._initializers.append(item)
            else:
                self.call("Identity", [first + item.name.removeprefix(prefix)], item.name)
        self._nodes.extend(copy.graph.node)
        self._sparse.extend(copy.graph.sparse_initializer)
        self._functions.extend(copy.functions)
        self._ir_version = max(self._ir_version, int(copy.ir_version))
        for entry in copy.opset_import:
            if entry.domain not in ("", "ai.onnx"):
                self._imports[entry.domain] = max(self._imports.get(entry.domain, 0), entry.version)
        return [prefix + name for name in outputs]

    def finish(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Return the model, without the nodes and weights that no output needs.

        Args:
            inputs: inputs of the graph, as ``ValueInfoProto``.
            outputs: its outputs.
        """
        make = self._onnx.helper
        nodes = live_nodes(self._nodes, [item.name for item in outputs])
        used = {name for node in nodes for name in names_read(node)}
        graph = make.make_graph(nodes, "maskfuse", list(inputs), list(outputs))
        graph.initializer.extend(item for item in self._initializers if item.name in used)
        graph.sparse_initializer.extend(item for item in self._sparse if item.values.name in used)
        imports = [make.make_opsetid(*pair) for pair in self._imports.items()]
        least = make.find_min_ir_version_for(imports, ignore_unknown=True)
        model = make.make_model(graph, opset_imports=imports, ir_version=max(self._ir_version, least))
        model.functions.extend(self._functions)
        return model

"""How a float32 graph becomes int8 or float16: thin calls to the libraries that do it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.graph.compose import read_model
from engine.graph.half import in_float16
from engine.graph.rebatch import constants_of
from engine.models.net import Net
from engine.models.open_session import batch_of
from engine.utils.console import first_line
from exporters.backend import load_onnx

CALIBRATION_TILES = 128
BATCH = 8


@dataclass(frozen=True)
class Recipe:
    """One way to lower the precision.

    Attributes:
        name: for information.
        method: how int8 ranges are found: ``MinMax`` or ``Percentile``; empty for float16.
        floating: which convolutions stay in float: ``first`` (those that read the images), ``last`` (those after which
            no other follows).
    """

    name: str
    method: str = ""
    floating: tuple[str, ...] = ()


def lowered_graph(model: Any, net: Net, recipe: Recipe, images: npt.NDArray[Any], folder: Path) -> Any:
    """Return a model in lower precision.

    Args:
        model: the float32 model; not modified.
        net: the same, opened.
        recipe: how.
        images: raw tiles (tile, height, width, channel); ranges are found on up to :data:`CALIBRATION_TILES` of them.
        folder: folder for temporary files.

    Raises:
        ModelError: the library fails on this graph.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    try:
        lowered = _int8(copy, net, recipe, images, folder) if recipe.method else in_float16(copy)
    except Exception as error:  # the converters raise whatever a graph makes them raise
        why = first_line(error, kind=True)
        raise ModelError(f"{net.path}: {recipe.name} fails ({why}); keep the float32 file") from None
    if not recipe.floating and not _is_lowered(lowered):
        raise ModelError(f"{net.path}: {recipe.name} finds no float32 layers in it to lower; keep the file as it is")
    return lowered


def _is_lowered(model: Any) -> bool:
    halves = any(item.data_type == load_onnx().TensorProto.FLOAT16 for item in model.graph.initializer)
    return halves or any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def _int8(model: Any, net: Net, recipe: Recipe, images: npt.NDArray[Any], folder: Path) -> Any:
    from onnxruntime import quantization

    _name_nodes(model)
    target = folder / "int8.onnx"
    with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
        quantization.quantize_static(
            model,
            target,
            _reader(net, images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[name for end in recipe.floating for name in _end(model, end)],
            calibrate_method=quantization.CalibrationMethod[recipe.method],
        )
    return read_model(target)


def _reader(net: Net, images: npt.NDArray[Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    chosen = np.unique(np.linspace(0, len(images) - 1, min(CALIBRATION_TILES, len(images))).round().astype(int))

    # A graph of a fixed batch takes just as many; the last ones are filled up with the last image.
    step = batch_of(net) or BATCH

    class Reader(CalibrationDataReader):
        """Feeds prepared tiles to the calibration, a few at a time."""

        def __init__(self) -> None:
            self._batches = self._prepared()

        def _prepared(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
            constants = constants_of(net)
            for start in range(0, len(chosen), BATCH):
                fed = net.windows(net.prepare(images[chosen[start : start + BATCH]]))
                for at in range(0, len(fed), step):
                    places = np.minimum(np.arange(at, at + step), len(fed) - 1)
                    part = fed[places] if batch_of(net) else fed[at : at + step]
                    yield {**constants, net.session.input_name: part}

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            """Return the next batch, or None at the end."""
            return next(self._batches, None)

    return Reader()


def _name_nodes(model: Any) -> None:
    """Give every node a unique name: exclusion works by name, and names are optional in ONNX."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


def _end(model: Any, end: str) -> list[str]:
    """Return the convolutions that read the images (``first``) or that the output reads (``last``)."""
    graph = model.graph
    weights = {item.name for item in graph.initializer}
    forward = end == "first"
    reached = {item.name for item in (graph.input if forward else graph.output)} - weights
    found = []
    for node in graph.node if forward else reversed(graph.node):
        near, far = (node.input, node.output) if forward else (node.output, node.input)
        if not reached.intersection(near):
            continue
        if node.op_type in ("Conv", "ConvTranspose"):
            found.append(node.name)
        else:
            reached.update(name for name in far if name not in weights)
    return found

"""float32 -> int8 or float16: written only when the score on given tiles keeps, with the speed measured beside it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.contract import ModelContract
from engine.errors import ContractError, InputError, ModelError, PlanError
from engine.sessions import Member, open_member
from engine.version import VERSION
from exporters.backend import load_onnx
from exporters.compose import LEAST_OPSET, at_opset, first_line, opset_of, read_model
from exporters.files import check_free, stamp, write_atomically
from exporters.measures import Measured, miou, speed
from exporters.tiles import LabelledTiles

PRECISIONS = ("int8", "fp16")
CALIBRATION_TILES = 128
MAX_LOSS = 0.005


@dataclass(frozen=True)
class Recipe:
    """One way to lower the precision.

    Attributes:
        name: for people to read.
        method: how int8 ranges are found: ``MinMax`` or ``Percentile``; empty for float16.
        floating: which convolutions stay in float: ``first`` (those that read the images), ``last`` (those after which
            no other follows).
    """

    name: str
    method: str = ""
    floating: tuple[str, ...] = ()


# From the fastest to the most careful; the first that keeps the score is taken.
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "int8": (
        Recipe("int8", "MinMax"),
        Recipe("int8, first in float", "MinMax", ("first",)),
        Recipe("int8, first and last in float", "MinMax", ("first", "last")),
        Recipe("int8, percentile ranges, first and last in float", "Percentile", ("first", "last")),
    ),
    "fp16": (Recipe("fp16"),),
}


@dataclass(frozen=True)
class Lowered:
    """What was written.

    Attributes:
        path: the ONNX file.
        contract: the contract stamped into it.
        recipe: how it was made.
        measured: speed and score against the float32 file.
        size: bytes of the file.
        refused: what was tried before and lost too much, one line each.
    """

    path: Path
    contract: ModelContract
    recipe: str
    measured: Measured
    size: int
    refused: tuple[str, ...]


def lower(
    source: str | Path,
    out: str | Path,
    tiles: LabelledTiles | Callable[[ModelContract], LabelledTiles],
    *,
    to: str = "int8",
    max_loss: float = MAX_LOSS,
    overwrite: bool = False,
    recipes: Sequence[Recipe] | None = None,
) -> Lowered:
    """Write a model in a lower precision, if its MIoU on labelled tiles falls by no more than ``max_loss``.

    int8 is static quantisation (QDQ; weights int8 a channel, activations uint8), float16 keeps float32 inputs and
    outputs. The score is the MIoU ``labelled`` with the ignored class suppressed; of one specialist, the mean IoU of
    its class and the rest. Speed is measured on one thread, both files in turn.

    Args:
        source: an ONNX file with a contract.
        out: the file to write.
        tiles: raw tiles with labels, or what reads them once the contract is known; int8 ranges are found on up to
            :data:`CALIBRATION_TILES` of them, the score on all.
        to: ``int8`` or ``fp16``.
        max_loss: largest fall of the MIoU.
        overwrite: replace ``out`` when it exists.
        recipes: what to try, in order; by default :data:`RECIPES`.

    Raises:
        ContractError: the file has no contract.
        InputError: the tiles do not fit.
        ModelError: the file cannot be read or lowered, is lowered already, or loses too much.
        OutputError: ``out`` exists or cannot be written.
        PlanError: unknown precision, or the ``export`` extra is missing.
    """
    source, out = Path(source), Path(out)
    if to not in PRECISIONS:
        raise PlanError(f"--to {to}; allowed are {' and '.join(PRECISIONS)}")
    check_free(out, overwrite)
    load_onnx()
    member = _opened(source)
    model = _floating(source)
    held = tiles(member.contract) if callable(tiles) else tiles
    before = miou(member, held)
    if np.isnan(before):
        raise InputError(f"no labelled pixel in the {len(held)} tiles: give tiles whose labels can be scored")
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes or RECIPES[to]:
            trial = Path(folder) / "lowered.onnx"
            data = stamp(_lowered(model, member, recipe, held, Path(folder), source), member.contract)
            trial.write_bytes(data.SerializeToString(deterministic=True))
            lowered = open_member(trial)
            after = miou(lowered, held)
            if before - after <= max_loss:
                measured = Measured(before, after, *speed(member, lowered, held.images), len(held))
                return _written(out, data, member, recipe, measured, refused)
            refused.append(f"{recipe.name}: MIoU {before:.4f} -> {after:.4f}")
    raise ModelError(
        f"{source}: the MIoU falls by more than {max_loss:g} ({'; '.join(refused)}); nothing was written: "
        "calibrate on more tiles, or allow it with --max-loss"
    )


def _written(
    out: Path, model: Any, member: Member, recipe: Recipe, measured: Measured, refused: Sequence[str]
) -> Lowered:
    contract = replace(member.contract, version=VERSION).noted(
        precision=recipe.name,
        precision_of_sha256=hashlib.sha256(member.path.read_bytes()).hexdigest(),
        precision_miou_before=round(measured.before, 6),
        precision_miou_after=round(measured.after, 6),
        precision_tiles=measured.tiles,
        precision_speed_ratio=round(measured.ratio, 3),
    )
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    return Lowered(out, contract, recipe.name, measured, len(data), tuple(refused))


def _opened(source: Path) -> Member:
    try:
        member = open_member(source)
    except ContractError as error:
        if "no contract" not in str(error):
            raise
        raise ContractError(f"{source}: no contract in it; export it with `exporters onnx` first") from None
    if member.contract.kind == "packed":
        raise ModelError(f"{source}: a packed ensemble; quantise its members, then pack them")
    return member


def _floating(source: Path) -> Any:
    """Return the model, of an operator set that quantisation a channel needs.

    Raises:
        ModelError: it is not float32 throughout.
    """
    onnx = load_onnx()
    model = read_model(source)
    lowered = {"QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
    halves = any(item.data_type == onnx.TensorProto.FLOAT16 for item in model.graph.initializer)
    if halves or any(node.op_type in lowered for node in model.graph.node):
        raise ModelError(f"{source}: its precision is lowered already; start from the float32 file")
    return at_opset(model, max(LEAST_OPSET, opset_of(model)), source)


def _lowered(model: Any, member: Member, recipe: Recipe, tiles: LabelledTiles, folder: Path, source: Path) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    try:
        if recipe.method:
            return _int8(copy, member, recipe, tiles, folder)
        return _fp16(copy)
    except Exception as error:  # the converters raise whatever a graph makes them raise
        raise ModelError(f"{source}: {recipe.name} fails ({first_line(error)}); keep the float32 file") from None


def _fp16(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def _int8(model: Any, member: Member, recipe: Recipe, tiles: LabelledTiles, folder: Path) -> Any:
    from onnxruntime import quantization

    _name_nodes(model)
    target = folder / "int8.onnx"
    with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
        quantization.quantize_static(
            model,
            target,
            _reader(member, tiles.images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[name for end in recipe.floating for name in _end(model, end)],
            calibrate_method=quantization.CalibrationMethod[recipe.method],
        )
    return read_model(target)


def _reader(member: Member, images: npt.NDArray[Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    chosen = np.unique(np.linspace(0, len(images) - 1, min(CALIBRATION_TILES, len(images))).round().astype(int))

    class Reader(CalibrationDataReader):
        """Feeds the calibration with prepared tiles, a few at a time."""

        def __init__(self) -> None:
            self._batches = self._prepared()

        def _prepared(self) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
            name = member.session.get_inputs()[0].name
            for start in range(0, len(chosen), 8):
                yield {name: member.prepare(images[chosen[start : start + 8]])}

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            """Return the next batch, or None at the end."""
            return next(self._batches, None)

    return Reader()


def _name_nodes(model: Any) -> None:
    """Give every node a name of its own: exclusion works by name, and names are optional in ONNX."""
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

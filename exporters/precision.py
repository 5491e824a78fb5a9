"""float32 -> int8 or float16: written only when the score on given tiles keeps, with the speed measured beside it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ContractError, InputError, ModelError, PlanError
from engine.models.contract import ModelContract
from engine.models.net import Net
from engine.models.opening import open_net
from engine.version import VERSION
from exporters.backend import load_onnx
from exporters.compose import LEAST_OPSET, at_opset, opset_of, read_model
from exporters.files import check_free, stamp, write_atomically
from exporters.lowering import Recipe, lowered_graph
from exporters.measures import Measured, miou, speed
from exporters.tiles import LabelledTiles

PRECISIONS = ("int8", "fp16")
MAX_LOSS = 0.005


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
            :data:`exporters.lowering.CALIBRATION_TILES` of them, the score on all.
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
    net = _opened(source)
    model = _floating(source)
    held = tiles(net.contract) if callable(tiles) else tiles
    before = miou(net, held)
    if np.isnan(before):
        raise InputError(f"no labelled pixel in the {len(held)} tiles: give tiles whose labels can be scored")
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes or RECIPES[to]:
            trial = Path(folder) / "lowered.onnx"
            data = stamp(lowered_graph(model, net, recipe, held.images, Path(folder)), net.contract)
            trial.write_bytes(data.SerializeToString(deterministic=True))
            lowered = open_net(trial)
            after = miou(lowered, held)
            if before - after <= max_loss:
                measured = Measured(before, after, *speed(net, lowered, held.images), len(held))
                return _written(out, data, net, recipe, measured, refused)
            refused.append(f"{recipe.name}: MIoU {before:.4f} -> {after:.4f}")
    raise ModelError(
        f"{source}: the MIoU falls by more than {max_loss:g} ({'; '.join(refused)}); nothing was written: "
        "calibrate on more tiles, or allow it with --max-loss"
    )


def _written(out: Path, model: Any, net: Net, recipe: Recipe, measured: Measured, refused: Sequence[str]) -> Lowered:
    contract = replace(net.contract, version=VERSION).noted(
        precision=recipe.name,
        precision_of_sha256=hashlib.sha256(net.path.read_bytes()).hexdigest(),
        precision_miou_before=round(measured.before, 6),
        precision_miou_after=round(measured.after, 6),
        precision_tiles=measured.tiles,
        precision_speed_ratio=round(measured.ratio, 3),
    )
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    return Lowered(out, contract, recipe.name, measured, len(data), tuple(refused))


def _opened(source: Path) -> Net:
    try:
        net = open_net(source)
    except ContractError as error:
        if "no contract" not in str(error):
            raise
        raise ContractError(f"{source}: no contract in it; export it with `exporters onnx` first") from None
    if net.contract.kind == "packed":
        raise ModelError(f"{source}: a packed ensemble; quantise its members, then pack them")
    return net


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

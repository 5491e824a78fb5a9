"""float32 -> int8 or float16: written only if the score on the given tiles holds; the speed is measured as well."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ContractError, InputError, ModelError, PlanError
from engine.graph.compose import LEAST_OPSET, at_opset, opset_of, read_model
from engine.graph.nodes import with_one_output
from engine.models.contract import ModelContract
from engine.models.net import Net
from engine.models.opening import inspect_net, open_net
from engine.utils.console import one_line
from engine.version import VERSION
from exporters.backend import load_onnx
from exporters.files import check_free, stamp, write_atomically
from exporters.lowering import Recipe, lowered_graph
from exporters.measures import Measured, miou, speed
from exporters.tiles import LabelledTiles

PRECISIONS = ("int8", "fp16")
MAX_LOSS = 0.005


# From the fastest to the most conservative; the first that keeps the score is used.
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
        contract: the contract stored in it.
        recipe: how it was made.
        measured: speed and score against the float32 file.
        size: bytes of the file.
        refused: earlier attempts that lost too much, one line each.
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
    """Write a model in a lower precision, if its MIoU on labelled tiles drops by no more than ``max_loss``.

    int8 is static quantisation (QDQ; weights int8 per channel, activations uint8), float16 keeps float32 inputs and
    outputs. The score is the MIoU ``labelled`` with the ignored class suppressed; of one specialist, the mean IoU of
    its class and the rest. Speed is measured on one thread, alternating between the files.

    Args:
        source: an ONNX file with a contract, or with a NAME.toml beside it that says all that is needed.
        out: the file to write.
        tiles: raw tiles with labels, or a function that reads them given the contract; int8 ranges are found on up to
            :data:`exporters.lowering.CALIBRATION_TILES` of them, the score on all.
        to: ``int8`` or ``fp16``.
        max_loss: largest drop of the MIoU.
        overwrite: replace ``out`` if it exists.
        recipes: what to try, in order; by default :data:`RECIPES`.

    Raises:
        ContractError: what the file is stays open.
        InputError: the tiles do not fit.
        ModelError: the file cannot be read or lowered, already has a lower precision, or loses too much.
        OutputError: ``out`` exists or cannot be written.
        PlanError: unknown precision, or the ``export`` extra is missing.
    """
    source, out = Path(source), Path(out)
    if to not in PRECISIONS:
        raise PlanError(f"--to {to}; allowed are {' and '.join(PRECISIONS)}")
    check_free(out, overwrite)
    load_onnx()
    net = _opened(source)
    model = with_one_output(_floating(source), net.output_name)
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
        f"{source}: the MIoU drops by more than {max_loss:g} ({'; '.join(refused)}); nothing was written: "
        "calibrate on more tiles, or allow it with --max-loss"
    )


def _written(out: Path, model: Any, net: Net, recipe: Recipe, measured: Measured, refused: Sequence[str]) -> Lowered:
    contract = replace(net.contract, version=VERSION).noted(
        precision=recipe.name,
        precision_of_sha256=net.checksum,
        precision_miou_before=round(measured.before, 6),
        precision_miou_after=round(measured.after, 6),
        precision_tiles=measured.tiles,
        precision_speed_ratio=round(measured.ratio, 3),
    )
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    return Lowered(out, contract, recipe.name, measured, len(data), tuple(refused))


def _opened(source: Path) -> Net:
    opened = inspect_net(source)
    if opened.contract is None:
        raise ContractError(
            f"{source}: {'; and '.join(opened.questions)}: write that into the file first, with "
            f"`exporters adopt {source.name} ... --out FILE`, or into {source.with_suffix('.toml').name} beside it"
        )
    net = opened.net(one_line(source.stem))
    if net.contract.kind == "packed":
        raise ModelError(f"{source}: a packed ensemble; quantise its members, then pack them")
    return net


def _floating(source: Path) -> Any:
    """Return the model, in an operator set that supports per-channel quantisation.

    Raises:
        ModelError: it is not float32 throughout.
    """
    onnx = load_onnx()
    model = read_model(source)
    lowered = {"QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
    halves = any(item.data_type == onnx.TensorProto.FLOAT16 for item in model.graph.initializer)
    if halves or any(node.op_type in lowered for node in model.graph.node):
        raise ModelError(f"{source}: its precision is already lowered; start from the float32 file")
    return at_opset(model, max(LEAST_OPSET, opset_of(model)), source)

"""A whole ensemble -> one ONNX file: raw pixels in, label maps out, the same as the engine's.

The file needs nothing but an ONNX runtime. It cannot check what the engine checks per batch (NaN, sizes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from engine.errors import EngineError, InputError, ModelError, PlanError
from engine.inference.ensemble import Ensemble
from engine.models.contract import LABELS, MAX_STRIDE, ModelContract
from engine.runs.options import Options, open_ensemble
from engine.runs.plan import read_plan
from engine.sources.base import from_array
from engine.utils.sides import nearest_sizes, told_size
from engine.version import VERSION
from exporters.backend import load_onnx
from exporters.compose import LEAST_OPSET, Composer, at_opset, opset_of, read_model
from exporters.files import check_free, stamp, write_atomically
from exporters.fusion_graph import Inputs, add_fusion, add_voter, check_packable
from exporters.parity import DEFAULT_SIZE, random_tiles
from exporters.self_check import SelfCheck, compare

INPUT, SCORES = "images", "scores"
# The largest protobuf message, minus room for the fusion.
MOST_BYTES = 2**31 - 2**20


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        path: the ONNX file.
        contract: the contract stored in it.
        check: the comparison with the engine.
        members: names of the ensemble's members.
        size: bytes of the file.
        nodes: nodes of the graph.
    """

    path: Path
    contract: ModelContract
    check: SelfCheck
    members: tuple[str, ...]
    size: int
    nodes: int


def pack(
    plan: str | Path,
    out: str | Path,
    *,
    tiles: npt.NDArray[Any] | None = None,
    scores: bool = False,
    grey_as_rgb: bool = False,
    overwrite: bool = False,
) -> Packed:
    """Write the ensemble of a plan as one ONNX file, if it gives the engine's labels.

    The file takes ``images``, float32 (batch, channels, height, width) of raw pixels 0 to 255, and gives ``labels``,
    uint8 (batch, height, width).

    Args:
        plan: an ``ensemble.toml``.
        out: the file to write.
        tiles: raw tiles (tile, height, width, channel) for the comparison with the engine, besides random ones; foreign
            members may need them to detect layout and activation.
        scores: also give ``scores``, float32 (batch, classes, height, width): what the argmax decides on, -infinity for
            suppressed classes.
        grey_as_rgb: take grey images, and repeat them for members of three channels.
        overwrite: replace ``out`` if it exists.

    Raises:
        ContractError: members disagree, or are unclear.
        InputError: the tiles do not fit the members.
        ModelError: a member cannot be opened or rewritten, or the packed labels are not the engine's.
        OutputError: ``out`` exists or cannot be written.
        PlanError: the plan cannot be read or packed, or the ``export`` extra is missing.
    """
    plan, out = Path(plan), Path(out)
    check_free(out, overwrite)
    load_onnx()
    ensemble = _opened(plan, tiles, grey_as_rgb)
    check_packable(ensemble)
    channels, size = _input(ensemble, grey_as_rgb)
    stride = _stride(plan, ensemble, size)
    model = build(ensemble, channels, size, scores)
    own = nearest_sizes(DEFAULT_SIZE, stride)[1] if tiles is None else (tiles.shape[1], tiles.shape[2])
    trials = [random_tiles(size or own, channels)]
    if tiles is not None:
        trials.insert(0, tiles)
    try:
        check = compare(ensemble, model.SerializeToString(), trials)
    except ModelError as error:
        raise ModelError(f"{plan}: {error}; nothing was written") from None
    contract = _contract(ensemble, channels, size, stride, check)
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    names = tuple(member.name for member in ensemble.members)
    return Packed(out, contract, check, names, len(data), len(model.graph.node))


def build(ensemble: Ensemble, channels: int, size: tuple[int, int] | None, scores: bool = False) -> Any:
    """Return the graph of an ensemble, without a contract.

    Args:
        ensemble: the members, opened, with their strategy and decoding.
        channels: channels of the raw images.
        size: (height, width), or None where the members take any.
        scores: whether to output the scores as well.

    Raises:
        ModelError: a member cannot be read or converted to the operator set of the others, or all are too large for one
            file.
    """
    onnx = load_onnx()
    nets = {net.checksum: net for member in ensemble.members for net in member.nets}
    total = sum(net.path.stat().st_size for net in nets.values())
    if total > MOST_BYTES:
        raise ModelError(f"the members have {total:,} bytes; one ONNX file can have at most {MOST_BYTES:,}: pack fewer")
    models = {checksum: read_model(net.path) for checksum, net in nets.items()}
    opset = max(LEAST_OPSET, *map(opset_of, models.values()))
    models = {checksum: at_opset(model, opset, nets[checksum].path) for checksum, model in models.items()}
    graph = Composer(opset)
    inputs = Inputs(graph, INPUT, channels)
    decoding = ensemble.variant.decoding
    # The engine sums members in the order of their checksums; float32 sums depend on it in the last bit.
    ranked = sorted(range(len(ensemble.members)), key=lambda index: ensemble.members[index].checksum)
    logits = [
        add_voter(graph, ensemble.members[index], models, inputs, f"m{index}_", decoding.suppress) for index in ranked
    ]
    strategy, weights = ensemble.variant.strategy, ensemble.weights[ranked]
    decided, scored = add_fusion(graph, logits, strategy, weights, decoding)
    graph.call("Cast", [decided], LABELS, to=onnx.TensorProto.UINT8)
    height, width = size or ("height", "width")
    make, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    outputs = [make(LABELS, types.UINT8, ["batch", height, width])]
    if scores:
        graph.call("Identity", [scored], SCORES)
        outputs.append(make(SCORES, types.FLOAT, ["batch", len(ensemble.classes), height, width]))
    return graph.finish([make(INPUT, types.FLOAT, ["batch", channels, height, width])], outputs)


def _opened(plan: Path, tiles: npt.NDArray[Any] | None, grey_as_rgb: bool) -> Ensemble:
    read = read_plan(plan)
    source = None if tiles is None else from_array(tiles, name="the tiles")
    try:
        ensemble = open_ensemble(read, Options(grey_as_rgb=grey_as_rgb), source)
    except EngineError as error:
        raise type(error)(f"{plan}: {error}") from None
    if any(member.contract.kind == "packed" for member in ensemble.members):
        raise PlanError(f"{plan}: {ensemble.members[0].name} is already packed; list its members in the plan")
    return ensemble


def _input(ensemble: Ensemble, grey_as_rgb: bool) -> tuple[int, tuple[int, int] | None]:
    """Return the channels and the size that all nets take."""
    nets = [net for member in ensemble.members for net in member.nets]
    counts = sorted({net.contract.channels for net in nets})
    if grey_as_rgb and counts[-1] == 3:
        counts = [1]
    if len(counts) > 1:
        told = ", ".join(f"{net.path.name} {net.contract.channels}" for net in nets)
        raise InputError(f"the members take different channels ({told}): give --grey-as-rgb to feed grey images to all")
    sizes = sorted({net.contract.size for net in nets if net.contract.size is not None})
    return counts[0], sizes[0] if sizes else None


def _stride(plan: Path, ensemble: Ensemble, size: tuple[int, int] | None) -> int:
    """Return the stride that suits every member; 1 where the size is fixed, which it must divide."""
    strides = {net.path.name: net.contract.stride for member in ensemble.members for net in member.nets}
    stride = math.lcm(*strides.values())
    told = ", ".join(f"{name} {value}" for name, value in strides.items() if value > 1)
    if size is None:
        if stride > MAX_STRIDE:
            raise PlanError(f"{plan}: the strides ({told}) have {stride} in common, above {MAX_STRIDE}: pack fewer")
        return stride
    if any(side % stride for side in size):
        raise PlanError(
            f"{plan}: members take {told_size(size)}, which strides do not divide ({told}): pack them apart"
        )
    return 1


def _contract(
    ensemble: Ensemble, channels: int, size: tuple[int, int] | None, stride: int, check: SelfCheck
) -> ModelContract:
    variant = ensemble.variant
    contract = ModelContract(
        classes=ensemble.classes,
        kind="packed",
        input_layout="NCHW",
        size=size,
        stride=stride,
        channels=channels,
        ignored_class=ensemble.ignored_class,
        version=VERSION,
    )
    return replace(contract, architecture=f"{len(ensemble.members)} members").noted(
        strategy=variant.strategy,
        vote_stage=variant.decoding.vote_stage,
        suppressed=_listed(sorted(variant.decoding.suppress)),
        bias=_listed(variant.decoding.bias),
        prior=_listed(variant.decoding.prior),
        members=_listed(member.name for member in ensemble.members),
        member_sha256=_listed(member.checksum for member in ensemble.members),
        weights=_listed(f"{value:.6g}" for value in ensemble.weights.mean(axis=1)),
        check_tiles=check.tiles,
        check_pixels=check.pixels,
        check_ties=check.ties,
    )


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))

"""A whole ensemble -> one ONNX file: raw pixels in, label maps out, the same as the engine's.

The file needs nothing but an ONNX runtime. Where a member computes NaN or infinity for an image, all its labels are
255; the engine, which runs such a file too, then names the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from engine.errors import EngineError, ModelError, NotFiniteError, PlanError
from engine.inference.ensemble import Ensemble
from engine.models.contract import LABELS, ModelContract
from engine.models.members import ground_resolution
from engine.models.net import Net
from engine.runs.options import Options, open_ensemble
from engine.runs.plan import read_plan
from engine.version import VERSION
from exporters.backend import load_onnx
from exporters.compose import LEAST_OPSET, Composer, at_opset, opset_of, read_model
from exporters.files import check_free, stamp, write_atomically
from exporters.fusion_graph import add_fusion, add_marks, check_packable
from exporters.input_graph import Inputs
from exporters.member_graph import Part, add_voter, part_of
from exporters.packed_form import Form, form_of
from exporters.parity import random_tiles
from exporters.rebatch import group_of, rebatched
from exporters.self_check import SelfCheck, compare
from exporters.tiles import tiles_source

INPUT, SCORES = "images", "scores"
# The largest protobuf message, minus room for the fusion.
MOST_BYTES = 2**31 - 2**20
ODD_TILES = 4


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

    The file takes ``images``, float32 (batch, channels, height, width) of raw pixels 0 to 255 (uint8 where a member
    takes uint8), and gives ``labels``, uint8 (batch, height, width); 255 in all pixels of an image for which a member
    computes NaN or infinity. The batch is fixed where a member's is and its graph cannot take another.

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
    form = form_of(ensemble, grey_as_rgb, tiles)
    model = build(ensemble, form, scores)
    trials = _trials(ensemble, form, tiles)
    try:
        check = compare(ensemble, model.SerializeToString(), trials)
    except ModelError as error:
        raise ModelError(f"{plan}: {error}; nothing was written") from None
    contract = _contract(ensemble, form, check)
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    names = tuple(member.name for member in ensemble.members)
    return Packed(out, contract, check, names, len(data), len(model.graph.node))


def build(ensemble: Ensemble, form: Form, scores: bool = False) -> Any:
    """Return the graph of an ensemble, without a contract.

    Args:
        ensemble: the members, opened, with their strategy and decoding.
        form: what the graph takes.
        scores: whether to give the scores as well.

    Raises:
        ModelError: a member cannot be read or converted to the operator set of the others, or all are too large for one
            file.
        PlanError: two members take batches of different fixed sizes.
    """
    onnx = load_onnx()
    parts, opset, batch = _parts(ensemble, form)
    graph = Composer(opset)
    inputs = Inputs(graph, INPUT, form.kind, form.channels, form.size)
    decoding = ensemble.variant.decoding
    # The engine sums members in the order of their checksums; float32 sums depend on it in the last bit.
    ranked = sorted(range(len(ensemble.members)), key=lambda index: ensemble.members[index].checksum)
    logits = [
        add_voter(graph, ensemble.members[index], parts, inputs, f"m{index}_", decoding.suppress) for index in ranked
    ]
    strategy, weights = ensemble.variant.strategy, ensemble.weights[ranked]
    decided, scored = add_fusion(graph, logits, strategy, weights, decoding)
    graph.call("Cast", [add_marks(graph, decided, logits)], LABELS, to=onnx.TensorProto.UINT8)
    height, width = form.size or ("height", "width")
    make, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    outputs = [make(LABELS, types.UINT8, [batch, height, width])]
    if scores:
        graph.call("Identity", [scored], SCORES)
        outputs.append(make(SCORES, types.FLOAT, [batch, len(ensemble.classes), height, width]))
    kind = types.UINT8 if form.kind == "uint8" else types.FLOAT
    return graph.finish([make(INPUT, kind, [batch, form.channels, height, width])], outputs)


def _parts(ensemble: Ensemble, form: Form) -> tuple[dict[str, Part], int, int | str]:
    """Return the nets by checksum, the operator set of all, and the batch: ``batch`` for any, or a number.

    A graph that declares one number of images is made to take any where that computes the same.
    """
    nets = {net.checksum: net for net in ensemble.nets}
    total = sum(net.path.stat().st_size for net in nets.values())
    if total > MOST_BYTES:
        raise ModelError(f"the members have {total:,} bytes; one ONNX file can have at most {MOST_BYTES:,}: pack fewer")
    models = {checksum: read_model(net.path) for checksum, net in nets.items()}
    opset = max(LEAST_OPSET, *map(opset_of, models.values()))
    images = random_tiles(form.trial, form.channels, tiles=3)
    parts: dict[str, Part] = {}
    fixed: dict[int, Net] = {}
    for checksum, net in nets.items():
        model = at_opset(models[checksum], opset, net.path)
        group = group_of(net)
        if group:
            opened = rebatched(model, net, images)
            model = model if opened is None else opened
            if opened is None:
                fixed[group] = net
                if net.contract.fit == "pad" and net.contract.size != form.size:
                    raise PlanError(
                        f"{net.path.name} takes batches of {group} alone, so windows of a larger image cannot be "
                        "packed: export it with an open batch, or leave it out"
                    )
        parts[checksum] = part_of(model, net, images)
    if len(fixed) > 1:
        told = ", ".join(f"{net.path.name} takes batches of {group} alone" for group, net in sorted(fixed.items()))
        raise PlanError(f"{told}: one graph cannot run them; export them with an open batch, or leave one out")
    return parts, opset, next(iter(fixed), "batch")


def _opened(plan: Path, tiles: npt.NDArray[Any] | None, grey_as_rgb: bool) -> Ensemble:
    read = read_plan(plan)
    source = None if tiles is None else tiles_source(tiles)
    try:
        ensemble = open_ensemble(read, Options(grey_as_rgb=grey_as_rgb), source)
    except EngineError as error:
        raise type(error)(f"{plan}: {error}") from None
    if any(member.contract.kind == "packed" for member in ensemble.members):
        raise PlanError(f"{plan}: {ensemble.members[0].name} is already packed; list its members in the plan")
    return ensemble


def _trials(ensemble: Ensemble, form: Form, tiles: npt.NDArray[Any] | None) -> list[npt.NDArray[Any]]:
    """Return raw tiles for the comparison: real ones, random ones, and of members of any size ones of odd sides too."""
    trials = [random_tiles(form.trial, form.channels)]
    if tiles is not None:
        trials.insert(0, tiles)
    adapted = any(net.contract.fit or net.contract.stride > 1 for net in ensemble.nets)
    if form.size is None and adapted:
        odd = random_tiles((form.trial[0] + 3, form.trial[1] + 5), form.channels, ODD_TILES, seed=1)
        try:
            ensemble.logits(next(tiles_source(odd).batches(1)))
        except NotFiniteError:
            pass
        except EngineError:  # a member takes no such sides, so nobody can ask for them
            return trials
        trials.append(odd)
    return trials


def _contract(ensemble: Ensemble, form: Form, check: SelfCheck) -> ModelContract:
    variant = ensemble.variant
    contract = ModelContract(
        classes=ensemble.classes,
        kind="packed",
        input_layout="NCHW",
        size=form.size,
        channels=form.channels,
        ignored_class=ensemble.ignored_class,
        resolution=ground_resolution(ensemble.members),
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

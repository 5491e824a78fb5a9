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
from engine.fusion.evidence import Evidence
from engine.graph.fusion import STRATEGIES, add_marks
from engine.graph.trial import random_tiles
from engine.graph.whole import INPUT, Form
from engine.graph.whole import build as build_whole
from engine.inference.ensemble import Ensemble
from engine.models.adapt.labels import NOT_FINITE
from engine.models.contract import LABELS, ModelContract
from engine.models.members import ground_resolution
from engine.models.views import FLIPS, VIEW_MEANS, check_views, told_views
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.version import VERSION
from exporters.backend import load_onnx
from exporters.evidence_graph import add_doubt, add_probabilities
from exporters.files import check_free, stamp, write_atomically
from exporters.packed_form import form_of
from exporters.self_check import SelfCheck, compare
from exporters.tiles import tiles_source

SCORES, DOUBT = "scores", "doubt"
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
    doubt: str = "",
    grey_as_rgb: bool = False,
    uint8: bool = False,
    overwrite: bool = False,
) -> Packed:
    """Write the ensemble of a plan as one ONNX file, if it gives the engine's labels.

    The file takes ``images``, float32 (batch, channels, height, width) of raw pixels 0 to 255 (uint8 where a member
    takes uint8, or ``uint8`` is set), and gives ``labels``, uint8 (batch, height, width); 255 in all pixels of an image
    for which a member computes NaN or infinity. The batch is fixed where a member's is and its graph cannot take
    another.

    Args:
        plan: an ``ensemble.toml``.
        out: the file to write.
        tiles: raw tiles (tile, height, width, channel) for the comparison with the engine, besides random ones; foreign
            members may need them to detect layout and activation.
        scores: also give ``scores``, float32 (batch, classes, height, width): the probability of each class as the
            engine writes it, 0 for suppressed classes; NaN for an image that a member fails on.
        doubt: also give ``doubt``, float32 (batch, height, width), of that name from
            :data:`engine.fusion.evidence.DOUBTS`; empty for none.
        grey_as_rgb: take grey images, and repeat them for members of three channels.
        uint8: take uint8 images: a quarter of the bytes to a GPU.
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
    form = form_of(ensemble, grey_as_rgb, tiles, uint8)
    for net in ensemble.nets:
        check_views(net, ensemble.views, form.size or form.trial)
    evidence = Evidence("float32" if scores else "", doubt, "float32")
    model = build(ensemble, form, evidence)
    trials = _trials(ensemble, form, tiles)
    try:
        check = compare(ensemble, model.SerializeToString(), trials, evidence)
    except ModelError as error:
        raise ModelError(f"{plan}: {error}; nothing was written") from None
    contract = _contract(ensemble, form, check)
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    names = tuple(member.name for member in ensemble.members)
    return Packed(out, contract, check, names, len(data), len(model.graph.node))


def build(ensemble: Ensemble, form: Form, evidence: Evidence | None = None) -> Any:
    """Return the graph of an ensemble, without a contract.

    Args:
        ensemble: the members, opened, with their strategy and decoding.
        form: what the graph takes.
        evidence: what to give beside labels; None for nothing.

    Raises:
        ModelError: a member cannot be read or converted to the operator set of the others, or all are too large for one
            file.
        PlanError: two members take batches of different fixed sizes.
    """
    onnx = load_onnx()
    built = build_whole(ensemble.whole, form)
    graph, fused = built.graph, built.fused[0]
    graph.call("Cast", [add_marks(graph, fused.labels, built.flags)], LABELS, to=onnx.TensorProto.UINT8)
    height, width = form.size or ("height", "width")
    make, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    outputs = [make(LABELS, types.UINT8, [built.batch, height, width])]
    if evidence:
        strategy, decoding, classes = ensemble.variant.strategy, ensemble.variant.decoding, len(ensemble.classes)
        # Probabilities of images that a member fails on are NaN by themselves: their scores are.
        shares = add_probabilities(graph, strategy, fused.scores, fused.labels, classes, decoding.temperature)
        if evidence.scores:
            graph.call("Identity", [shares], SCORES)
            outputs.append(make(SCORES, types.FLOAT, [built.batch, classes, height, width]))
        if evidence.doubt:
            whole = ensemble.whole
            found = add_doubt(graph, evidence.doubt, shares, fused.labels, built.logits, whole.weights, decoding)
            graph.call("Identity", [found], DOUBT)
            outputs.append(make(DOUBT, types.FLOAT, [built.batch, height, width]))
    kind = types.UINT8 if form.kind == "uint8" else types.FLOAT
    return graph.finish([make(INPUT, kind, [built.batch, form.channels, height, width])], outputs)


def check_packable(ensemble: Ensemble) -> None:
    """Refuse what one graph cannot express.

    Raises:
        PlanError: naming it and what can be packed.
    """
    strategy, decoding = ensemble.variant.strategy, ensemble.variant.decoding
    if strategy not in STRATEGIES:
        raise PlanError(f"strategy {strategy!r} cannot be packed; those that can are {', '.join(STRATEGIES)}")
    kept_out = {
        "min_region": decoding.min_region > 0,
        "cleanup": bool(decoding.cleanup),
        f"decode {decoding.decode}": decoding.decode != "argmax",
        "a multi-label member": ensemble.is_multilabel,
        "unknown": ensemble.unknown is not None,
        **{f"view {view.name}": True for view in ensemble.views if not view.is_symmetry},
    }
    for name, held in kept_out.items():
        if held:
            raise PlanError(f"{name} cannot be packed; remove it from the plan, or run the plan with the engine")
    if len(ensemble.classes) > NOT_FINITE:
        raise PlanError(
            f"{len(ensemble.classes)} classes cannot be packed; at most {NOT_FINITE} can: the label {NOT_FINITE} says "
            "that a member computes NaN or infinity"
        )


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
        **({"threshold": variant.decoding.threshold} if variant.decoding.threshold is not None else {}),
        **_viewed(ensemble),
        members=_listed(member.name for member in ensemble.members),
        member_sha256=_listed(member.checksum for member in ensemble.members),
        weights=_listed(f"{value:.6g}" for value in ensemble.weights.mean(axis=1)),
        check_tiles=check.tiles,
        check_pixels=check.pixels,
        check_ties=check.ties,
    )


def _viewed(ensemble: Ensemble) -> dict[str, str]:
    """Return the notes on the views that members also run on."""
    if len(ensemble.views) == 1:
        return {}
    told = told_views(ensemble.views)
    means = {"view_mean": ensemble.view_mean} if ensemble.view_mean != VIEW_MEANS[0] else {}
    return {"flips" if told in FLIPS else "views": told, **means}


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))

"""One-class nets -> one calibrated file with one map per class and a shared input, plus the single files."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ContractError, ModelError, PlanError
from engine.graph.compose import Composer, read_model
from engine.graph.trial import random_tiles
from engine.models.contract import ModelContract
from engine.models.net import Net
from engine.models.opening import open_net
from engine.version import VERSION
from exporters.any_size import export_any_size
from exporters.archive import read_contract
from exporters.backend import load_keras, load_onnx
from exporters.calibration import Calibration, fit_calibration
from exporters.files import check_free, stamp, write_atomically
from exporters.graph import INPUT, OPSET, OUTPUT, check_opset
from exporters.keras_to_onnx import export_onnx
from exporters.measures import logits_of, miou
from exporters.parity import Tolerance, default_size
from exporters.tiles import LabelledTiles


@dataclass(frozen=True)
class Specialists:
    """What was written.

    Attributes:
        path: the file with all maps.
        singles: the single files, in the order of their classes.
        contract: the contract of the file with all maps.
        calibration: the fitted calibration, or None without tiles.
        miou: MIoU on the tiles before and after calibration, or None without tiles.
        difference: largest difference of a map from its single file's.
        size: bytes of the file with all maps.
    """

    path: Path
    singles: tuple[Path, ...]
    contract: ModelContract
    calibration: Calibration | None
    miou: tuple[float, float] | None
    difference: float
    size: int


def export_specialists(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    tiles: Callable[[ModelContract], LabelledTiles] | None = None,
    opset: int = OPSET,
    tolerance: Tolerance | None = None,
    overwrite: bool = False,
    any_size: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Specialists:
    """Export a set of specialists as one file, and each as a single file into a folder of the same name.

    Args:
        sources: ``.keras`` archives with contracts, one per class, in any order.
        out: the file to write, ``NAME.onnx``; the single files become ``NAME/k0.onnx`` and so on.
        tiles: reads labelled validation tiles for calibration, once the contract is known.
        opset: version of the ONNX operator set.
        tolerance: how far each net may deviate from its Keras net.
        overwrite: replace existing files.
        any_size: leave height and width open; the file's stride is one that suits every net.
        report: called with one line per skipped step.

    Raises:
        ContractError: an archive is no specialist, or two of them disagree, or a class is missing or duplicated.
        InputError: the tiles do not fit.
        ModelError: an archive cannot be read or converted, or parity is missed.
        OutputError: a file exists or cannot be written.
        PlanError: the ``export`` extra is missing.
    """
    out = Path(out)
    check_opset(opset)
    ordered = order_specialists([Path(source) for source in sources])
    singles = check_outputs(out, len(ordered), overwrite)
    load_keras()
    with tempfile.TemporaryDirectory() as temporary:
        drafts = []
        for source, single in zip(ordered, singles, strict=True):
            draft = Path(temporary) / single.name
            _draft(source, draft, any_size, opset=opset, tolerance=tolerance, report=report)
            drafts.append(open_net(draft))
        contract, held = _shared(drafts), None
        if tiles is not None:
            held = tiles(contract)
        calibration = None if held is None else _calibrated(drafts, held)
        contract = _with(contract, calibration, None)
        model = stamp(_joined(drafts, contract, opset), contract)
        whole = Path(temporary) / out.name
        whole.write_bytes(model.SerializeToString(deterministic=True))
        opened = open_net(whole)
        difference = _difference(opened, drafts, tolerance or Tolerance())
        scores = None if held is None else (miou(_plain(opened), held), miou(opened, held))
        return _written(out, singles, drafts, model, contract, calibration, scores, difference)


def check_outputs(out: Path, classes: int, overwrite: bool) -> tuple[Path, ...]:
    """Return the single files that go beside the file with all maps, after checking that all can be written.

    Raises:
        OutputError: a file exists or cannot be written.
        PlanError: the name does not end in .onnx.
    """
    if out.suffix != ".onnx":
        raise PlanError(f"{out}: the name of the file must end in .onnx")
    singles = tuple(out.with_suffix("") / f"k{class_id}.onnx" for class_id in range(classes))
    for path in (out, *singles):
        check_free(path, overwrite)
    return singles


def order_specialists(sources: Sequence[Path]) -> list[Path]:
    """Return archives of specialists in the order of their classes.

    Raises:
        ContractError: one has no contract or is no specialist, they disagree, or a class is missing or duplicated.
        ModelError: a file is missing or not a Keras archive.
    """
    found: dict[int, tuple[Path, ModelContract]] = {}
    for source in sources:
        contract = read_contract(source)
        if contract is None or contract.class_id is None:
            what = "no contract" if contract is None else "the contract of a multi-class net"
            raise ContractError(f"{source}: it has {what}; specialists are required: train them with fit-specialists")
        if contract.class_id in found:
            twin = found[contract.class_id][0]
            raise ContractError(f"{source} and {twin} have the same class {contract.class_id}; keep one")
        if found:
            first, other = next(iter(found.values()))
            for name in ("classes", "size", "channels", "scale", "mean", "std", "ignored_class", "activation"):
                if getattr(contract, name) != getattr(other, name):
                    told = f"{getattr(other, name)} against {getattr(contract, name)}"
                    raise ContractError(f"{first} and {source} disagree on {name} ({told}); they must share one input")
        found[contract.class_id] = (source, contract)
    if not found:
        raise ContractError("no specialists; give one .keras archive per class")
    names = next(iter(found.values()))[1].classes
    missing = [f"{class_id} ({name})" for class_id, name in enumerate(names) if class_id not in found]
    if missing:
        raise ContractError(f"no specialist of class {', '.join(missing)}; give one archive per class")
    return [found[class_id][0] for class_id in sorted(found)]


def _draft(source: Path, draft: Path, any_size: bool, **options: Any) -> None:
    if any_size:
        export_any_size(source, draft, measured=False, **options)
    else:
        export_onnx(source, draft, **options)


def _shared(drafts: Sequence[Net]) -> ModelContract:
    first = drafts[0].contract
    worst = max(float(draft.contract.notes["parity_max_difference"]) for draft in drafts)
    least = min(float(draft.contract.notes["parity_agreement"]) for draft in drafts)
    contract = replace(
        first, kind="specialists", class_id=None, group="", bias=0.0, temperature=1.0, version=VERSION, notes={}
    )
    contract = replace(contract, stride=math.lcm(*(draft.contract.stride for draft in drafts)))
    return contract.noted(parity_max_difference=worst, parity_agreement=least)


def _calibrated(drafts: Sequence[Net], tiles: LabelledTiles) -> Calibration:
    odds = np.concatenate([logits_of(draft, tiles.images) for draft in drafts], axis=1)
    return fit_calibration(odds, tiles.labels, drafts[0].contract.ignored_class)


def _with(contract: ModelContract, found: Calibration | None, class_id: int | None) -> ModelContract:
    """Return a contract with a calibration: the whole set's, or that of one class."""
    if found is None:
        return contract
    if class_id is None:
        contract = replace(contract, bias=found.bias, temperature=found.temperature)
    else:
        contract = replace(contract, bias=found.bias[class_id], temperature=found.temperature[class_id])
    return contract.noted(
        calibration_pixels=found.pixels,
        calibration_loss_before=round(found.before, 6),
        calibration_loss_after=round(found.after, 6),
    )


def _joined(drafts: Sequence[Net], contract: ModelContract, opset: int) -> Any:
    """Return one graph: the shared input, every net, their maps concatenated in class order."""
    onnx = load_onnx()
    graph = Composer(opset)
    maps = [
        graph.absorb(read_model(draft.path), f"k{index}_", {draft.session.input_name: INPUT}, [draft.output_name])[0]
        for index, draft in enumerate(drafts)
    ]
    graph.call("Concat", maps, OUTPUT, axis=1)
    height, width = contract.size or ("height", "width")
    make, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    return graph.finish(
        [make(INPUT, kind, ["batch", contract.channels, height, width])],
        [make(OUTPUT, kind, ["batch", len(drafts), height, width])],
    )


def _difference(whole: Net, drafts: Sequence[Net], tolerance: Tolerance) -> float:
    """Return how far the combined maps deviate from those of the single files.

    Raises:
        ModelError: too far.
    """
    held = whole.contract
    tiles = random_tiles(default_size(held), held.channels)
    expected = np.concatenate([logits_of(draft, tiles) for draft in drafts], axis=1)
    difference = float(np.abs(logits_of(_plain(whole), tiles) - expected).max())
    if not difference <= tolerance.difference * max(1.0, float(np.abs(expected).max())):
        raise ModelError(f"the combined file deviates from the single ones by {difference:.2e}; nothing was written")
    return difference


def _plain(net: Net) -> Net:
    """Return the net without its calibration."""
    return replace(net, contract=replace(net.contract, bias=0.0, temperature=1.0))


def _written(
    out: Path,
    singles: tuple[Path, ...],
    drafts: Sequence[Net],
    model: Any,
    contract: ModelContract,
    calibration: Calibration | None,
    scores: tuple[float, float] | None,
    difference: float,
) -> Specialists:
    notes: dict[str, str | float] = {
        "single_sha256": hashlib.sha256("".join(draft.checksum for draft in drafts).encode()).hexdigest()
    }
    if scores is not None:
        notes |= {"calibration_miou_before": round(scores[0], 6), "calibration_miou_after": round(scores[1], 6)}
    contract = contract.noted(**notes)
    for class_id, (draft, single) in enumerate(zip(drafts, singles, strict=True)):
        held = _with(replace(draft.contract, group=draft.contract.group or out.stem), calibration, class_id)
        write_atomically(single, stamp(read_model(draft.path), held).SerializeToString(deterministic=True))
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    return Specialists(out, singles, contract, calibration, scores, difference, len(data))

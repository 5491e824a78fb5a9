"""One ``.keras`` archive -> one self-describing ONNX file with measured parity."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.models.contract import ModelContract
from engine.version import VERSION
from exporters import parity
from exporters.archive import ending_activation, load_net, net_shape, read_contract
from exporters.backend import load_keras
from exporters.files import check_free, stamp, write_atomically
from exporters.graph import OPSET, STEPS, GraphStep, check_opset, convert, count, name_axes
from exporters.parity import Parity, Tolerance
from exporters.promise import ContractOptions, promise


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the ONNX file.
        contract: the contract stored in it.
        parity: the comparison of the written graph with the Keras net.
        size: bytes of the file.
        nodes: nodes of the graph.
        transposes: transpositions among them.
        dropped: steps that were skipped because they failed or broke parity.
    """

    path: Path
    contract: ModelContract
    parity: Parity
    size: int
    nodes: int
    transposes: int
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class _Trial:
    """The check that every graph of one net must pass."""

    images: npt.NDArray[np.float32]
    reference: npt.NDArray[np.float32]
    contract: ModelContract
    tolerance: Tolerance

    def figures(self, model: Any) -> Parity:
        outputs = parity.run_onnx(model.SerializeToString(), self.images)
        return parity.measure(self.reference, outputs, self.contract)

    def passed(self, figures: Parity) -> bool:
        return figures.within(self.tolerance)


def export_onnx(
    source: str | Path,
    out: str | Path,
    *,
    options: ContractOptions | None = None,
    tiles: npt.NDArray[Any] | None = None,
    opset: int = OPSET,
    tolerance: Tolerance | None = None,
    overwrite: bool = False,
    steps: Sequence[GraphStep] = STEPS,
    report: Callable[[str], None] = lambda line: None,
) -> Export:
    """Convert a ``.keras`` archive to an ONNX file with NCHW input and output and its contract in the metadata.

    The graph is compared with the net before and after every step. A step that breaks parity or fails is skipped; a
    conversion that misses parity is not written at all.

    Args:
        source: the archive, trained on any Keras backend.
        out: the ONNX file to write.
        options: contract fields that override the archive's; required for archives without a contract.
        tiles: raw tiles (tile, height, width, channel) to compare on, besides random ones.
        opset: version of the ONNX operator set, 13 to 18.
        tolerance: what counts as equal.
        overwrite: replace ``out`` if it exists.
        steps: transformations after the conversion, in order.
        report: called with one line per skipped step.

    Raises:
        ContractError: no contract, or one that the net contradicts.
        InputError: the tiles do not fit the net.
        ModelError: the archive cannot be read or converted, or parity is missed.
        OutputError: the file exists or cannot be written.
        PlanError: the ``export`` extra is missing, Keras runs on another backend, or the opset is out of range.
    """
    source, out = Path(source), Path(out)
    check_free(out, overwrite)
    check_opset(opset)
    archived = read_contract(source)
    load_keras()
    net = load_net(source)
    shape = net_shape(source, net)
    contract = promise(source, archived, options or ContractOptions(), shape, ending_activation(net))
    try:
        images = parity.trial_images(contract, shape, tiles)
        reference = parity.run_keras(net, images)
        parity.check_activation(reference, contract)
        trial = _Trial(images, reference, contract, tolerance or Tolerance())
        model, figures, dropped = _refine(convert(net, shape, opset), trial, steps, report)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None
    model = name_axes(model, shape)
    nodes, transposes = count(model)
    contract = replace(contract, version=VERSION).noted(
        parity_max_difference=figures.max_difference,
        parity_agreement=figures.agreement,
        parity_tiles=figures.tiles,
        opset=opset,
        nodes=nodes,
        transposes=transposes,
        source_sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
    )
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    return Export(out, contract, figures, len(data), nodes, transposes, tuple(dropped))


def _refine(
    model: Any, trial: _Trial, steps: Sequence[GraphStep], report: Callable[[str], None]
) -> tuple[Any, Parity, list[str]]:
    figures = trial.figures(model)
    if not trial.passed(figures):
        raise ModelError(f"the conversion misses parity ({figures}); nothing was written: see --tolerance")
    dropped = []
    for step in steps:
        copy = type(model)()
        copy.CopyFrom(model)
        try:
            changed = step.apply(copy)
            after = trial.figures(changed)
        except Exception as error:  # a simplifier is never worth a lost export
            reason = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0][:200]}"
        else:
            if trial.passed(after):
                model, figures = changed, after
                continue
            reason = f"it breaks parity: {after}"
        dropped.append(step.name)
        report(f"step {step.name!r} was skipped ({reason})")
    return model, figures, dropped

"""One ``.keras`` archive -> one self-describing ONNX file with measured parity."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.graph.compose import opset_of
from engine.models.contract import ModelContract, Note
from engine.utils.console import first_line
from engine.utils.sides import Size
from engine.version import VERSION
from exporters import parity
from exporters.archive import Shape, ending_activation, load_net, net_shape, read_contract
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
class Proven:
    """A graph, how it compares with the Keras net, and the steps that were left out."""

    model: Any
    parity: Parity
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A net that is to be exported.

    Attributes:
        source: the archive.
        net: the Keras net, float32.
        shape: what it takes and gives.
        contract: what the file will promise.
    """

    source: Path
    net: Any
    shape: Shape
    contract: ModelContract


@dataclass(frozen=True)
class Trial:
    """The measure every graph of one net has to pass.

    Attributes:
        cases: images float32 (tile, height, width, channel) and what the Keras net makes of them, float32 (tile, map,
            height, width); one pair for each size.
        contract: what the file promises.
        tolerance: what counts as equal.
    """

    cases: tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...]
    contract: ModelContract
    tolerance: Tolerance

    @property
    def sizes(self) -> list[Size]:
        """(height, width) of each case."""
        return [(images.shape[1], images.shape[2]) for images, _ in self.cases]

    def figures(self, model: Any) -> Parity:
        """Compare a graph with the Keras net; over several sizes, the worst counts.

        Raises:
            ModelError: it cannot run, or outputs another shape.
        """
        data = model.SerializeToString()
        return parity.worst(
            [parity.measure(known, parity.run_onnx(data, images), self.contract) for images, known in self.cases]
        )

    def passed(self, figures: Parity) -> bool:
        """Tell whether figures are within the tolerance."""
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
    subject = read_subject(source, options)
    with named(source):
        trial = first_trial(subject, tiles, tolerance)
        proven = refine(convert(subject.net, subject.shape, opset), trial, steps, report)
    return write(subject, proven, out)


def read_subject(source: Path, options: ContractOptions | None) -> Subject:
    """Load the net of an archive and settle what its file will promise.

    Raises:
        ContractError: no contract, or one that the net contradicts.
        ModelError: the archive cannot be read.
        PlanError: the ``export`` extra is missing, or Keras runs on another backend.
    """
    archived = read_contract(source)
    load_keras()
    net = load_net(source)
    shape = net_shape(source, net)
    contract = promise(source, archived, options or ContractOptions(), shape, ending_activation(net))
    return Subject(source, net, shape, contract)


@contextlib.contextmanager
def named(source: Path) -> Iterator[None]:
    """Put the name of the archive before the message of a ModelError."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None


def first_trial(subject: Subject, tiles: npt.NDArray[Any] | None, tolerance: Tolerance | None) -> Trial:
    """Return the trial at the size the net was trained at: real tiles, where given, and random ones.

    Raises:
        InputError: the tiles do not fit the net.
        ModelError: the net cannot run, or its outputs are not what the contract says.
    """
    images = parity.trial_images(subject.contract, subject.shape, tiles)
    reference = parity.run_keras(subject.net, images)
    parity.check_activation(reference, subject.contract)
    return Trial(((images, reference),), subject.contract, tolerance or Tolerance())


def write(subject: Subject, proven: Proven, out: Path, **notes: Note) -> Export:
    """Stamp the contract, with the figures of the comparison and further notes, into a graph and write it.

    Raises:
        OutputError: the file cannot be written.
    """
    model = name_axes(proven.model, subject.shape)
    nodes, transposes = count(model)
    contract = replace(subject.contract, version=VERSION).noted(
        parity_max_difference=proven.parity.max_difference,
        parity_agreement=proven.parity.agreement,
        parity_tiles=proven.parity.tiles,
        opset=opset_of(model),
        nodes=nodes,
        transposes=transposes,
        source_sha256=hashlib.sha256(subject.source.read_bytes()).hexdigest(),
        **notes,
    )
    data = stamp(model, contract).SerializeToString(deterministic=True)
    write_atomically(out, data)
    return Export(out, contract, proven.parity, len(data), nodes, transposes, proven.dropped)


def refine(model: Any, trial: Trial, steps: Sequence[GraphStep], report: Callable[[str], None]) -> Proven:
    """Apply the steps to a graph that has parity, each only if parity stays.

    Raises:
        ModelError: the graph misses parity before any step.
    """
    figures = trial.figures(model)
    if not trial.passed(figures):
        raise ModelError(f"the conversion misses parity ({figures}); nothing was written: see --tolerance")
    dropped: list[str] = []
    for step in steps:
        copy = type(model)()
        copy.CopyFrom(model)
        try:
            changed = step.apply(copy)
            after = trial.figures(changed)
        except Exception as error:  # a simplifier is never worth a lost export
            reason = first_line(error, kind=True)
        else:
            if trial.passed(after):
                model, figures = changed, after
                continue
            reason = f"it breaks parity: {after}"
        dropped.append(step.name)
        report(f"step {step.name!r} was skipped ({reason})")
    return Proven(model, figures, tuple(dropped))

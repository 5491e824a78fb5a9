"""One ``.keras`` archive -> an ONNX file for images of any size that a stride divides, proven at several sizes.

The graph is that of the trained size with its sides left open: there, nothing is computed from the shape of the image,
so it is as fast as the fixed one. Where inner shapes are bound to that size, the net is converted with open sides
instead, which costs nodes that compute shapes. Parity with the Keras net at every size decides, not the way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.graph.trial import random_tiles
from engine.models.contract import ModelContract
from engine.models.opening import open_net
from engine.utils.sides import Size, told_size
from exporters.files import check_free
from exporters.graph import OPSET, STEPS, GraphStep, check_opset, convert, name_axes
from exporters.keras_to_onnx import (
    Export,
    Proven,
    Subject,
    Trial,
    first_trial,
    named,
    read_subject,
    refine,
    write,
)
from exporters.measures import BATCH, speed
from exporters.parity import Tolerance, run_keras, scaled
from exporters.promise import ContractOptions
from exporters.sides import find_stride, proof_sizes, with_sides

# Images/s of the file for any size over those of the fixed one, below which both are written.
LEAST_RATIO = 0.97
# Random tiles at each size but the trained one.
TILES = 4
MOST_ROUNDS, LEAST_ROUNDS, SECONDS = 201, 25, 10.0


@dataclass(frozen=True)
class AnySize:
    """What was written.

    Attributes:
        open: the file for any size.
        fixed: the file of one size beside it; None where it would be no faster.
        size: (height, width) the net was trained at.
        sizes: the sizes the open file was compared at.
        ratio: images/s of the open file over those of the fixed one, at the trained size; None where not measured.
        images_per_second: of the open file, on one thread; None where not measured.
    """

    open: Export
    fixed: Export | None
    size: Size
    sizes: tuple[Size, ...]
    ratio: float | None
    images_per_second: float | None

    @property
    def files(self) -> list[Export]:
        """What was written, the file of one size first."""
        return [self.open] if self.fixed is None else [self.fixed, self.open]

    def __str__(self) -> str:
        """Say it in one line."""
        told = f"{self.open.contract.sides}, parity at {', '.join(map(told_size, self.sizes))}"
        if self.ratio is not None:
            told += (
                f"; speed x{self.ratio:.2f} of the fixed file at {told_size(self.size)} "
                f"({self.images_per_second:,.0f} images/s on one CPU thread)"
            )
        if self.fixed is not None:
            told += f": slower, so {self.fixed.path.name} keeps that size and {self.open.path.name} takes any"
        return told


def open_name(out: Path) -> Path:
    """Return the name of the file for any size where both are written."""
    return out.with_name(f"{out.stem}_any{out.suffix}")


def export_any_size(
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
    measured: bool = True,
) -> AnySize:
    """Convert a ``.keras`` archive to an ONNX file whose height and width are open, its stride in the contract.

    It is compared with the Keras net at the trained size and at others that the stride divides, and timed at the
    trained size against the file of that size, both in turn. Where it is slower by more than 3 %, ``out`` gets the
    file of one size and ``NAME_any.onnx`` that for any.

    Args:
        source: the archive.
        out: the ONNX file to write.
        options: contract fields that win over the archive's.
        tiles: raw tiles (tile, height, width, channel) of the trained size to compare on, besides random ones.
        opset: version of the ONNX operator set, 13 to 18.
        tolerance: what counts as equal, at each size.
        overwrite: replace files that exist.
        steps: transformations after the conversion, in order.
        report: called with one line about each dropped step.
        measured: whether to time the files; without, that for any size alone is written.

    Raises:
        ContractError: no contract, or one that the net contradicts.
        InputError: the tiles do not fit the net.
        ModelError: the archive cannot be read or converted, the net takes one size alone, or parity is missed.
        OutputError: a file exists or cannot be written.
        PlanError: the ``export`` extra is missing, Keras runs on another backend, or the opset is out of range.
    """
    source, out = Path(source), Path(out)
    for path in (out, open_name(out))[: 1 + measured]:
        check_free(path, overwrite)
    check_opset(opset)
    subject = read_subject(source, options)
    with named(source):
        trial = first_trial(subject, tiles, tolerance)
        (size,) = trial.sizes
        net = with_sides(subject.net, (None, None))
        contract = replace(subject.contract, size=None, stride=find_stride(net, size, subject.contract))
        wide = _wide_trial(net, trial, contract)
        fixed = _fixed(subject, size)
        graph = refine(convert(fixed.net, fixed.shape, opset), trial, steps, report)
        free = Subject(source, net, replace(fixed.shape, height=None, width=None), contract)
        opened = _opened(free, graph, wide, steps, opset, report)
    notes = {"trained_size": told_size(size), "parity_sizes": ", ".join(map(told_size, wide.sizes))}
    if not measured:
        return AnySize(write(free, opened, out, **notes), None, size, tuple(wide.sizes), None, None)
    ratio, rate = _timed((fixed, graph), (free, opened), size)
    both = ratio < LEAST_RATIO
    written = write(free, opened, open_name(out) if both else out, **notes, any_size_speed_ratio=round(ratio, 3))
    return AnySize(written, write(fixed, graph, out) if both else None, size, tuple(wide.sizes), ratio, rate)


def _fixed(subject: Subject, size: Size) -> Subject:
    """Return the net at one size; itself where it takes no other."""
    contract = replace(subject.contract, size=size, stride=1)
    if subject.shape.size == size:
        return replace(subject, contract=contract)
    shape = replace(subject.shape, height=size[0], width=size[1])
    return Subject(subject.source, with_sides(subject.net, size), shape, contract)


def _wide_trial(net: Any, trial: Trial, contract: ModelContract) -> Trial:
    """Return the trial with further sizes that the stride divides; the Keras net with open sides is the measure."""
    cases = list(trial.cases)
    for other in proof_sizes(trial.sizes[0], contract.stride)[1:]:
        images = scaled(random_tiles(other, contract.channels, tiles=TILES), contract)
        cases.append((images, run_keras(net, images)))
    return Trial(tuple(cases), contract, trial.tolerance)


def _opened(
    free: Subject,
    graph: Proven,
    wide: Trial,
    steps: Sequence[GraphStep],
    opset: int,
    report: Callable[[str], None],
) -> Proven:
    """Return a graph with open sides: the fixed one, or where that does not compute other sizes, one of its own."""
    model = type(graph.model)()
    model.CopyFrom(graph.model)
    name_axes(model, free.shape)
    try:
        figures = wide.figures(model)
        reason = str(figures)
    except ModelError as error:
        reason = str(error)
    else:
        if wide.passed(figures):
            return Proven(model, figures, graph.dropped)
    report(f"the graph of the trained size does not compute others ({reason}); converted with open sides")
    return refine(convert(free.net, free.shape, opset), wide, steps, report)


def _timed(fixed: tuple[Subject, Proven], free: tuple[Subject, Proven], size: Size) -> tuple[float, float]:
    """Return the speed of the open graph against the fixed one at the trained size, and its images/s."""
    images = random_tiles(size, free[0].contract.channels, tiles=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        first, second = (
            open_net(write(*graph, Path(folder) / f"{name}.onnx").path)
            for name, graph in (("fixed", fixed), ("open", free))
        )
        _, rate = speed(first, second, images, rounds=2)
        rounds = int(np.clip(SECONDS * rate / (2 * len(images)), LEAST_ROUNDS, MOST_ROUNDS))
        return speed(first, second, images, rounds=rounds)

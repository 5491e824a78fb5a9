"""What a comparison gives, as plain data: printed as a table, JSON or CSV, kept in a run file, drawn by the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STATES = ("raw", "suppressed", "tuned")
REASONS = ("worst", "disputed", "rarest")


@dataclass(frozen=True)
class Estimate:
    """A score and what the bootstrap over groups says about it; NaN (null in JSON) where it says nothing.

    Attributes:
        value: the MIoU.
        low: lower end of its interval.
        high: upper end.
        gain: the MIoU minus that of the best single member, on the same images.
        gain_low: lower end of the paired interval of that difference.
        gain_high: upper end.
    """

    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class Row:
    """One member or strategy in one state.

    Attributes:
        name: the member's or strategy's name.
        member: index of the member; -1 for a strategy.
        state: a name out of :data:`STATES`.
        rate: images a second of a run of this alone, from the measured time of its parts.
        scores: an estimate a convention; empty without labels.
        share: how often each class is predicted, of all pixels.
        agreement: share of the pixels with the label that the suppressed mean of probabilities gives.
        confusion: pixels by true and predicted class, rows are the truth; empty without labels.
        bias: class biases found on all images, for use; empty for a state without.
        fold_biases: the biases each fold's images were scored with, found without them.
    """

    name: str
    member: int
    state: str
    rate: float
    scores: dict[str, Estimate]
    share: list[float]
    agreement: float
    confusion: list[list[int]]
    bias: list[float]
    fold_biases: list[list[float]]


@dataclass(frozen=True)
class Step:
    """One step of the ablation.

    Attributes:
        name: what is added.
        detail: what that is here.
        value: MIoU by the metric of the run.
        low: lower end of its interval.
        high: upper end.
        change: MIoU minus that of the step before; NaN for the first.
        change_low: lower end of the paired interval of that.
        change_high: upper end.
        rate: images a second with all steps so far.
    """

    name: str
    detail: str
    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    rate: float


@dataclass(frozen=True)
class Curve:
    """Reliability of one member or of the mean of all: how often it is right where it is so sure.

    Attributes:
        name: whose.
        confidence: mean confidence of each bin; NaN in an empty one.
        accuracy: share of right labels in each bin; NaN in an empty one.
        weight: share of the pixels in each bin.
        error: expected calibration error (M. Naeini et al. 2015).
    """

    name: str
    confidence: list[float]
    accuracy: list[float]
    weight: list[float]
    error: float


@dataclass(frozen=True)
class MemberFacts:
    """What a reader wants to know of a member.

    Attributes:
        name: what tables call it.
        kind: architecture, or kind of the contract.
        files: names of its files.
        sha256: checksum, see :class:`engine.models.members.Member`.
        megabytes: size of its files.
        input: layout, size, channels of the input.
        scaling: scale, mean and standard deviation.
        output: layout and activation of the output.
        milliseconds: time of one image on one worker.
    """

    name: str
    kind: str
    files: list[str]
    sha256: str
    megabytes: float
    input: str
    scaling: str
    output: str
    milliseconds: float


@dataclass(frozen=True)
class TileFacts:
    """One tile of the gallery.

    Attributes:
        name: the image's id.
        index: its place among the images.
        reasons: why it is shown, out of :data:`REASONS`.
        score: its own MIoU (``per-image``) by the fused mask; NaN without labels or labelled pixels.
        disputed: mean share of the members that say something else than the fused mask.
        rare: share of its pixels that hold the rarest class.
    """

    name: str
    index: int
    reasons: list[str]
    score: float
    disputed: float
    rare: float


@dataclass(frozen=True)
class Facts:
    """A whole comparison but its pictures.

    Attributes:
        version: of the project.
        run_sha256: hash of everything that decides the result: members, images, labels, groups, options.
        command: the command line.
        date: when, ISO 8601, UTC.
        machine: processor, cores and system.
        workers: threads.
        images: how many.
        height: of an image.
        width: of an image.
        classes: names.
        ignored_class: -1 for none.
        void: which class the scores leave out, and what was void, in words; empty without labels.
        suppressed: ids of the classes that the states ``suppressed`` and ``tuned`` never predict.
        input: what was read.
        labels: likewise; empty for none.
        groups: how many were drawn from; 0 where every image is its own.
        metric: the convention that sorts, tunes and selects.
        folds: of the cross-fitting; 0 without labels.
        level: of the intervals.
        flips: of the ablation.
        rows: sorted, the best first.
        baseline: for each convention the index of the row every difference is taken to.
        trap: what the class-0 trap costs the best raw row, in words; empty where it costs nothing.
        ablation: empty where it was not asked for.
        members: in the order given.
        agreement: share of pixels on which two members agree (members, members).
        disputed_by_class: for each class, mean share of members against the mean, over the pixels that are (or, without
            labels, are predicted) of that class; NaN where there are none.
        rarest: id of the rarest class of the truth (or of the fused masks) that is there at all.
        curves: reliability; empty without labels.
        curve_images: on how many images that was counted.
        fused: index of the row whose masks the gallery shows as fused.
        tiles: of the gallery.
    """

    version: str
    run_sha256: str
    command: str
    date: str
    machine: str
    workers: int
    images: int
    height: int
    width: int
    classes: list[str]
    ignored_class: int
    void: str
    suppressed: list[int]
    input: str
    labels: str
    groups: int
    metric: str
    folds: int
    level: float
    flips: str
    rows: list[Row]
    baseline: dict[str, int]
    trap: str
    ablation: list[Step]
    members: list[MemberFacts]
    agreement: list[list[float]]
    disputed_by_class: list[float]
    rarest: int
    curves: list[Curve]
    curve_images: int
    fused: int
    tiles: list[TileFacts]


@dataclass(frozen=True)
class Pictures:
    """The gallery's tiles.

    Attributes:
        images: uint8 (tiles, height, width, 1 or 3).
        truth: uint8 (tiles, height, width); (0, height, width) without labels.
        fused: uint8 (tiles, height, width).
        members: uint8 (tiles, members, height, width).
    """

    images: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    fused: NDArray[np.uint8]
    members: NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """A comparison with its pictures."""

    facts: Facts
    pictures: Pictures

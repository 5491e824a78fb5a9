"""The result of a comparison, plain data: printed as table, JSON or CSV, stored in a run file, drawn in a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STATES = ("raw", "suppressed", "tuned")
REASONS = ("worst", "disputed", "rarest")


@dataclass(frozen=True)
class Estimate:
    """A score with its bootstrap interval over groups; NaN (null in JSON) where there is none.

    Attributes:
        value: the MIoU.
        low: lower end of its interval.
        high: upper end.
        gain: the MIoU minus that of the best single member, on the same images.
        gain_low: lower end of the paired interval of the difference.
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
        state: a name from :data:`STATES`.
        rate: images per second of a run of only this row, from the measured time of its parts.
        scores: one estimate per convention; empty without labels.
        share: share of all pixels predicted as each class.
        agreement: share of the pixels with the same label as the suppressed mean of probabilities.
        confusion: pixels by true and predicted class, rows are the truth; empty without labels.
        bias: class biases found on all images, for use; empty for a state without bias.
        fold_biases: the biases used to score each fold, found without its images.
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
        detail: what is added in this run.
        value: MIoU by the metric of the run.
        low: lower end of its interval.
        high: upper end.
        change: MIoU minus that of the previous step; NaN for the first.
        change_low: lower end of the paired interval of the change.
        change_high: upper end.
        rate: images per second with all steps so far.
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
    """Reliability of one member or of the mean of all: accuracy by confidence.

    Attributes:
        name: name of the member or of the mean.
        confidence: mean confidence of each bin; NaN in an empty one.
        accuracy: share of correct labels in each bin; NaN in an empty one.
        weight: share of the pixels in each bin.
        error: expected calibration error (M. Naeini et al. 2015).
        error_low: lower end of its bootstrap interval over groups.
        error_high: upper end.
        brier: mean Brier score over the classes, 0 to 2.
        brier_low: lower end of its interval.
        brier_high: upper end.
    """

    name: str
    confidence: list[float]
    accuracy: list[float]
    weight: list[float]
    error: float
    error_low: float
    error_high: float
    brier: float
    brier_low: float
    brier_high: float


@dataclass(frozen=True)
class RiskCurve:
    """How wrong the pixels with the least doubt are, for the suppressed mean of probabilities.

    Attributes:
        name: the map of doubt.
        coverage: share of the scored pixels that have a class, ascending.
        risk: share of those with a wrong one, at each coverage.
        area: area under the whole curve (AURC).
        area_low: lower end of its bootstrap interval over groups.
        area_high: upper end.
        least: the area where all wrong pixels had the most doubt.
    """

    name: str
    coverage: list[float]
    risk: list[float]
    area: float
    area_low: float
    area_high: float
    least: float


@dataclass(frozen=True)
class RiskBound:
    """A threshold of entropy from conformal risk control over groups, see :mod:`engine.scores.risk`.

    Attributes:
        alpha: bound on the expected share of a new group's pixels that have a class, and a wrong one.
        threshold: pixels with more doubt are unknown; NaN where no threshold keeps the bound.
        coverage: share of the scored pixels that keep a class; NaN likewise.
        risk: mean over the groups of the share that is bounded; NaN likewise.
        told: why there is no threshold; empty where there is one.
    """

    alpha: float
    threshold: float
    coverage: float
    risk: float
    told: str


@dataclass(frozen=True)
class MemberFacts:
    """Facts about a member.

    Attributes:
        name: its name in tables.
        kind: architecture, or the contract's kind.
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
        index: its index among the images.
        reasons: why it is shown, from :data:`REASONS`.
        score: its own MIoU (``per-image``) with the fused mask; NaN without labels or labelled pixels.
        disputed: mean share of members whose label differs from the fused mask.
        rare: share of its pixels of the rarest class.
        height: its height; its pictures are as large as the largest tile's, and end there.
        width: its width.
    """

    name: str
    index: int
    reasons: list[str]
    score: float
    disputed: float
    rare: float
    height: int
    width: int


@dataclass(frozen=True)
class Facts:
    """A comparison without its pictures.

    Attributes:
        version: version of maskfuse.
        run_sha256: hash of everything that decides the result: members, images, labels, groups, options.
        command: the command line.
        date: date and time, ISO 8601, UTC.
        machine: processor, cores and system.
        workers: number of threads.
        images: number of images.
        height: largest height of an image.
        width: largest width of an image.
        sizes: how many different sizes images have.
        classes: names of the classes.
        ignored_class: its id, or -1.
        void: which class the scores leave out, and what was void, in words; empty without labels.
        left_out: strategies that are left out, and why, in words; empty for none.
        suppressed: ids of the classes that the states ``suppressed`` and ``tuned`` never predict.
        input: the input that was read.
        labels: the labels that were read; empty if none.
        groups: number of groups resampled; 0 if every image is its own.
        metric: the convention that sorts, tunes and selects.
        folds: folds of the cross-fitting; 0 without labels.
        level: level of the intervals.
        flips: views of the ablation.
        rows: the rows, best first.
        baseline: per convention, the index of the row that differences refer to.
        trap: what the class-0 trap costs the best raw row, in words; empty if it costs nothing.
        ablation: its steps; empty if not requested.
        members: the members, in the given order.
        agreement: (members, members) share of pixels on which two members agree.
        disputed_by_class: per class, mean share of members that differ from the mean, over the pixels of that class
            (true or, without labels, predicted); NaN where there are none.
        rarest: id of the rarest class that occurs in the truth (or in the fused masks).
        curves: reliability curves; empty without labels.
        curve_images: number of images they were computed on.
        risk_curves: risk-coverage curves by map of doubt, the best first; empty without labels.
        risk_bounds: thresholds with a bounded risk; empty without labels.
        fused: index of the row whose masks the gallery shows as fused.
        tiles: tiles of the gallery.
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
    sizes: int
    classes: list[str]
    ignored_class: int
    void: str
    left_out: str
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
    risk_curves: list[RiskCurve]
    risk_bounds: list[RiskBound]
    fused: int
    tiles: list[TileFacts]


@dataclass(frozen=True)
class Pictures:
    """The gallery's tiles.

    Attributes:
        images: uint8 (tiles, height, width, 1 or 3), of the largest tile; a smaller one fills the upper left corner.
        truth: uint8 (tiles, height, width); (0, height, width) without labels.
        fused: uint8 (tiles, height, width).
        members: uint8 (tiles, members, height, width).
        doubt: uint8 (tiles, height, width), 254 times the entropy of the fused mask.
    """

    images: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    fused: NDArray[np.uint8]
    members: NDArray[np.uint8]
    doubt: NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """A comparison with its pictures."""

    facts: Facts
    pictures: Pictures

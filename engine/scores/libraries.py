"""The mean IoU as other libraries compute it, so that numbers can be compared with those of papers and leaderboards.

Each function repeats one documented call of a library, from confusion matrices of single images;
benchmarks/bench_libraries.py runs the libraries themselves on pairs of masks and records what they give. Pixels whose
truth is void are left out first, as by indexing: no two libraries have the same option for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.metrics import mean_iou


@dataclass(frozen=True)
class Library:
    """One call of a library.

    Attributes:
        call: the call, as one writes it.
        ignoring: the call where a class is ignored; empty where the library cannot ignore one.
        only_zero: whether the class that it can ignore is 0.
        score: computes the number from int64 (images, classes, classes) matrices, rows are the truth, and the ignored
            class.
    """

    call: str
    ignoring: str
    only_zero: bool
    score: Callable[[NDArray[np.int64], int | None], float]


def score_as(name: str, matrices: NDArray[np.int64], ignored_class: int | None) -> float:
    """Return the number that a library gives; NaN where it has none.

    Args:
        name: a name from :data:`LIBRARIES`.
        matrices: int64 (images, classes, classes) counts, rows are the truth.
        ignored_class: the class to ignore, or None.

    Raises:
        PlanError: no such library, or it cannot ignore that class.
    """
    library = named_library(name)
    if ignored_class is not None and not library.ignoring:
        raise PlanError(f"--as {name}: {library.call} ignores no class: add --ignored-class none")
    if ignored_class and library.only_zero:
        raise PlanError(f"--as {name}: {library.ignoring} ignores class 0 alone: add --ignored-class 0 or none")
    return library.score(matrices, ignored_class)


def named_library(name: str) -> Library:
    """Return the library of that name.

    Raises:
        PlanError: there is none; the message lists the names.
    """
    if name not in LIBRARIES:
        raise PlanError(f"--as {name[:40]}; allowed are {', '.join(LIBRARIES)}")
    return LIBRARIES[name]


def _ious(matrices: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return float64 (..., classes) IoU, 0 where there is no denominator, and where there is one."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1).astype(np.float64)
    union = matrices.sum(axis=-1) + matrices.sum(axis=-2) - hits
    return np.divide(hits, union, out=np.zeros(union.shape), where=union > 0), union > 0


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _kept(classes: int, ignored: int | None) -> list[int]:
    return [index for index in range(classes) if index != ignored]


def _keras(matrices: NDArray[np.int64], ignored: int | None) -> float:
    return mean_iou(matrices.sum(axis=0), "keras-ignore", ignored)


def _torchmetrics(matrices: NDArray[np.int64], ignored: int | None) -> float:
    return mean_iou(matrices.sum(axis=0), "labelled", ignored)


def _torchmetrics_segmentation(matrices: NDArray[np.int64], ignored: int | None) -> float:
    """Mean over all pairs of an image and a class that either map of it has; every pixel counts."""
    iou, known = _ious(matrices)
    kept = _kept(matrices.shape[1], ignored)
    return _mean(iou[:, kept][known[:, kept]])


def _smp(matrices: NDArray[np.int64], ignored: int | None) -> float:
    """Count a class in neither map as 1."""
    iou, known = _ious(matrices.sum(axis=0))
    return _mean(np.where(known, iou, 1.0))


def _smp_imagewise(matrices: NDArray[np.int64], ignored: int | None) -> float:
    iou, known = _ious(matrices)
    return _mean(np.where(known, iou, 1.0))


def _monai(matrices: NDArray[np.int64], ignored: int | None) -> float:
    """Mean over images of the mean over the classes that are true there; false classes cost nothing of their own."""
    iou, _ = _ious(matrices)
    kept = _kept(matrices.shape[1], ignored)
    true = (matrices.sum(axis=2) > 0)[:, kept]
    means = [_mean(row[known]) for row, known in zip(iou[:, kept], true, strict=True) if known.any()]
    return _mean(np.array(means))


def _sklearn(matrices: NDArray[np.int64], ignored: int | None) -> float:
    """Without labels those seen; with labels all of them, a class in neither map as 0."""
    iou, known = _ious(matrices.sum(axis=0))
    return _mean(iou[known]) if ignored is None else _mean(iou[_kept(len(iou), ignored)])


def _simpleitk(matrices: NDArray[np.int64], ignored: int | None) -> float:
    """Divide sums over all labels but 0."""
    total = matrices.sum(axis=0)
    hits = np.diag(total)[1:].sum()
    union = total[1:].sum() + total[:, 1:].sum() - hits
    return float(hits / union) if union else float("nan")


LIBRARIES: dict[str, Library] = {
    "keras": Library("keras.metrics.MeanIoU(n)", "keras.metrics.MeanIoU(n, ignore_class=0)", False, _keras),
    "torchmetrics": Library(
        'torchmetrics.JaccardIndex("multiclass", num_classes=n)',
        'torchmetrics.JaccardIndex("multiclass", num_classes=n, ignore_index=0)',
        False,
        _torchmetrics,
    ),
    "torchmetrics-segmentation": Library(
        'torchmetrics.segmentation.MeanIoU(n, input_format="index")',
        'torchmetrics.segmentation.MeanIoU(n, include_background=False, input_format="index")',
        True,
        _torchmetrics_segmentation,
    ),
    "smp": Library('smp.metrics.iou_score(*get_stats(...), reduction="macro")', "", False, _smp),
    "smp-imagewise": Library(
        'smp.metrics.iou_score(*get_stats(...), reduction="macro-imagewise")', "", False, _smp_imagewise
    ),
    "monai": Library("monai.metrics.MeanIoU()", "monai.metrics.MeanIoU(include_background=False)", True, _monai),
    "sklearn": Library(
        'sklearn.metrics.jaccard_score(average="macro")',
        'sklearn.metrics.jaccard_score(average="macro", labels=[1, ..., n - 1])',
        False,
        _sklearn,
    ),
    "simpleitk": Library("", "SimpleITK.LabelOverlapMeasuresImageFilter().GetJaccardCoefficient()", True, _simpleitk),
}

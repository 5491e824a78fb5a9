"""Confusion matrix and every MIoU convention in use, by name (never just "MIoU").

| convention | pixels counted | classes averaged |
| --- | --- | --- |
| ``keras-ignore`` | truth is not the ignored class | every class with TP+FP+FN above 0, the ignored one among them |
| ``labelled`` | truth is not the ignored class | all but the ignored one |
| ``all`` | all | all |
| ``foreground`` | all | all but the ignored one |
| ``per-image`` | truth is not the ignored class | as ``labelled`` in each image, then the mean over images |

``keras-ignore`` is what ``keras.metrics.MeanIoU(ignore_class=0)`` computes. Under it one single pixel predicted as the
ignored class gives that class a denominator and an IoU of 0: the *class-0 trap*. Classes without a denominator (absent
from truth and prediction) are left out of every mean. Pixels whose truth is void count in none; the ignored class is a
class, and need not be 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError

Counts = TypeVar("Counts", np.int64, np.float64)
MOST_CLASSES = 256
# A label that is no class: its pixels count in no convention. With 256 classes it is the last class.
VOID = 255


@dataclass(frozen=True)
class Convention:
    """How the counts of a confusion matrix become one score, where a class is ignored.

    Attributes:
        note: what it counts and averages, in words.
        counts_ignored: whether pixels whose truth is the ignored class are counted.
        averages_ignored: whether the IoU of the ignored class enters the mean.
        weights: maps the counted pixels (..., classes, classes) to how much the IoU of each class weighs in the mean,
            (..., classes); None for equal weights.
    """

    note: str
    counts_ignored: bool
    averages_ignored: bool
    weights: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None


# A new convention is one entry here. The mean over images of `per-image` is taken by those who gather the images.
RULES: dict[str, Convention] = {
    "keras-ignore": Convention(
        "pixels of the ignored class are not counted; predicting it where it is not true costs a whole class "
        "(keras.metrics.MeanIoU with ignore_class)",
        counts_ignored=False,
        averages_ignored=True,
    ),
    "labelled": Convention(
        "pixels of the ignored class are not counted; the mean is over the other classes",
        counts_ignored=False,
        averages_ignored=False,
    ),
    "all": Convention("every pixel, every class", counts_ignored=True, averages_ignored=True),
    "foreground": Convention(
        "every pixel; the mean is over all classes but the ignored one", counts_ignored=True, averages_ignored=False
    ),
    "per-image": Convention(
        "as labelled in each image, then the mean over images", counts_ignored=False, averages_ignored=False
    ),
}
CONVENTIONS = tuple(RULES)


def named_convention(name: str) -> Convention:
    """Return the convention of that name.

    Raises:
        PlanError: there is none; the message lists the names.
    """
    if name not in RULES:
        raise PlanError(f"unknown metric convention {name!r}; allowed are {', '.join(RULES)}")
    return RULES[name]


@dataclass
class Score:
    """Scores of a set of predictions, gathered batch by batch.

    Attributes:
        classes: number of classes.
        ignored_class: the class whose true pixels are not counted; None counts all pixels in every convention.
        confusion: int64 (classes, classes); rows are the truth, columns the prediction; all pixels.
        per_image: the ``labelled`` MIoU of each image that has a labelled pixel.
    """

    classes: int
    ignored_class: int | None = 0
    confusion: NDArray[np.int64] = field(init=False)
    per_image: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start from an empty matrix."""
        self.confusion = np.zeros((self.classes, self.classes), np.int64)

    def update(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        """Count a batch.

        Args:
            truth: uint8 (batch, ...) true labels.
            predicted: uint8, the same shape.

        Raises:
            InputError: shapes differ, or a label lies outside the classes.
        """
        self.add(confusion_matrices(truth, predicted, self.classes))

    def add(self, matrices: NDArray[np.int64]) -> None:
        """Count a batch whose confusion matrices are known.

        Args:
            matrices: int64 (batch, classes, classes), one an image.
        """
        self.confusion += matrices.sum(axis=0)
        alone = mean_ious(matrices, "labelled", self.ignored_class)
        self.per_image += alone[~np.isnan(alone)].tolist()

    def mean_iou(self, convention: str = "keras-ignore") -> float:
        """Return the score under a convention; NaN when no class can be scored.

        Raises:
            PlanError: unknown convention.
        """
        if convention == "per-image":
            return float(np.mean(self.per_image)) if self.per_image else float("nan")
        return mean_iou(self.confusion, convention, self.ignored_class)

    def all_conventions(self) -> dict[str, float]:
        """Return the score under each convention."""
        return {name: self.mean_iou(name) for name in CONVENTIONS}


def confusion_matrices(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the pixels of each image by true and predicted class.

    Args:
        truth: uint8 (batch, ...) true labels; 255 is void where it is no class: such pixels are not counted.
        predicted: uint8, the same shape; 255 likewise, for pixels without a prediction.
        classes: number of classes, 2 to 256.

    Returns:
        int64 (batch, classes, classes); rows are the truth.

    Raises:
        InputError: shapes differ, or a label lies outside 0..classes-1 and is not void.
    """
    from engine.kernels.counting import count_confusion

    if truth.shape != predicted.shape:
        raise InputError(f"labels of shape {truth.shape} against predictions of shape {predicted.shape}: give one each")
    for name, array in (("labels", truth), ("predictions", predicted)):
        if array.dtype != np.uint8:
            raise InputError(f"{name} are {array.dtype}; uint8 is needed")
        wrong = array[array >= classes] if array.size and int(array.max()) >= classes else array[:0]
        if (wrong != VOID).any():
            raise InputError(f"{name} hold class {int(wrong[wrong != VOID][0])}; allowed are 0 to {classes - 1}")
    matrices = np.zeros((len(truth), classes, classes), np.int64)
    flat = (len(truth), -1) if truth.size else (len(truth), 0)
    count_confusion(np.ascontiguousarray(truth).reshape(flat), np.ascontiguousarray(predicted).reshape(flat), matrices)
    return matrices


def counted(confusion: NDArray[Counts], convention: str, ignored_class: int | None) -> NDArray[Counts]:
    """Return a copy of (..., classes, classes) counts with the pixels a convention does not count taken out.

    Raises:
        PlanError: unknown convention.
    """
    rule = named_convention(convention)
    matrix = confusion.copy()
    if ignored_class is not None and not rule.counts_ignored:
        matrix[..., ignored_class, :] = 0
    return matrix


def class_iou(
    confusion: NDArray[np.int64], convention: str = "keras-ignore", ignored_class: int | None = 0
) -> NDArray[np.float64]:
    """Return float64 (classes,): IoU = TP / (TP + FP + FN) of each class; NaN where the denominator is 0.

    Raises:
        PlanError: unknown convention.
    """
    matrix = counted(confusion, convention, ignored_class)
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def dice_of(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Dice coefficients (F1) of the same counts: 2 TP / (2 TP + FP + FN) = 2 IoU / (1 + IoU); NaN stays."""
    return 2 * iou / (1 + iou)


def precision_recall(
    confusion: NDArray[np.int64], convention: str = "labelled", ignored_class: int | None = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (precision, recall), each float64 (classes,); NaN where a class was never predicted or never true."""
    matrix = counted(confusion, convention, ignored_class)
    hits = np.diag(matrix).astype(np.float64)
    empty = np.full(len(hits), np.nan)
    predicted, true = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = np.divide(hits, predicted, out=empty.copy(), where=predicted > 0)
    return precision, np.divide(hits, true, out=empty, where=true > 0)


def mean_iou(confusion: NDArray[np.int64], convention: str = "keras-ignore", ignored_class: int | None = 0) -> float:
    """Return the mean IoU of one confusion matrix under a convention; NaN when no class can be scored.

    Args:
        confusion: int64 (classes, classes); rows are the truth.
        convention: a name out of :data:`CONVENTIONS`; ``per-image`` treats the matrix as that of one image.
        ignored_class: None counts every pixel and averages every class.

    Raises:
        PlanError: unknown convention.
    """
    return float(mean_ious(confusion, convention, ignored_class))


def mean_ious(
    matrices: NDArray[np.integer] | NDArray[np.floating], convention: str, ignored_class: int | None
) -> NDArray[np.float64]:
    """Return :func:`engine.metrics.mean_iou` of many matrices at once.

    Args:
        matrices: (..., classes, classes) counts, which may be weighted; rows are the truth.
        convention: a name out of :data:`engine.metrics.CONVENTIONS`; ``per-image`` takes each for that of one image.
        ignored_class: None counts every pixel and averages every class.

    Returns:
        float64 (...); NaN where no class can be scored.

    Raises:
        PlanError: unknown convention.
    """
    left = counted(matrices.astype(np.float64), convention, ignored_class)
    hits = np.diagonal(left, axis1=-2, axis2=-1)
    union = left.sum(axis=-1) + left.sum(axis=-2) - hits
    weights = named_convention(convention).weights
    return mean_iou_of(hits, union, convention, ignored_class, None if weights is None else weights(left))


def mean_iou_of(
    hits: NDArray[np.float64],
    union: NDArray[np.float64],
    convention: str,
    ignored_class: int | None,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return float64 (...): the mean of hits over union, NaN where no class can be scored.

    Args:
        hits: (..., classes), the counted pixels of a class that are predicted as it.
        union: (..., classes), the counted pixels that are of the class or predicted as it.
        convention: a name out of :data:`engine.metrics.CONVENTIONS`.
        ignored_class: None averages every class.
        weights: (..., classes), how much each class weighs; None for equal weights.
    """
    scored = union > 0
    if ignored_class is not None and not named_convention(convention).averages_ignored:
        scored[..., ignored_class] = False
    iou = np.divide(hits, union, out=np.zeros_like(union), where=scored)
    shares = scored if weights is None else np.where(scored, weights, 0.0)
    total = shares.sum(axis=-1)
    return np.divide((iou * shares).sum(axis=-1), total, out=np.full(total.shape, np.nan), where=total > 0)


@dataclass(frozen=True)
class Trap:
    """The class-0 trap, sprung: what predicting the ignored class on counted pixels costs under ``keras-ignore``.

    Attributes:
        ignored_class: its id.
        pixels: labelled pixels predicted as it.
        labelled: labelled pixels in all.
        score: the ``keras-ignore`` score as it is.
        without: the mean over the other classes alone, with the same predictions.
    """

    ignored_class: int
    pixels: int
    labelled: int
    score: float
    without: float

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"class-{self.ignored_class} trap: {self.pixels:,} of {self.labelled:,} labelled pixels are predicted as "
            f"the ignored class, so it enters the keras-ignore mean with an IoU of 0: {self.score:.4f} instead of "
            f"{self.without:.4f}. Suppress class {self.ignored_class} to get it back."
        )


def find_trap(confusion: NDArray[np.int64], ignored_class: int | None) -> Trap | None:
    """Return what the class-0 trap costs, or None when no labelled pixel is predicted as the ignored class."""
    if ignored_class is None:
        return None
    matrix = counted(confusion, "keras-ignore", ignored_class)
    pixels = int(matrix[:, ignored_class].sum())
    if not pixels:
        return None
    return Trap(
        ignored_class,
        pixels,
        int(matrix.sum()),
        mean_iou(confusion, "keras-ignore", ignored_class),
        mean_iou(confusion, "labelled", ignored_class),
    )

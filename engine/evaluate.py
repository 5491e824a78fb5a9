"""Scores masks that exist already, from any form they can have."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import ROUNDS, GroupedCounts, Interval, ends, interval, whole_and_resampled
from engine.errors import InputError, PlanError
from engine.fusion.doubt import UNKNOWN, covered
from engine.metrics import CONVENTIONS, MOST_CLASSES, VOID, Score, Trap, confusion_matrices, find_trap
from engine.outputs.recorded import Known, known_facts
from engine.scores.risk import Coverage
from engine.scores.surfaces import SurfaceCounts, SurfaceRules, over_classes
from engine.sources.base import Batch, Source
from engine.sources.coding import PLAIN, LabelCoding, check_values, told_left_out
from engine.sources.groups import read_groups
from engine.sources.joining import joined
from engine.sources.label_scenes import coded_scenes, maps_of, open_scene_labels
from engine.sources.labels import as_labels, check_match, open_labels
from engine.sources.numpy_files import ArrayFile
from engine.sources.open import open_array
from engine.sources.places import aligned, check_same_places
from engine.sources.scenes import open_scenes
from engine.sources.spec import is_url, split_key
from engine.sources.submission import RLE_FORMS, rle_form
from engine.sources.unchanged import Unchanged
from engine.utils.sides import told_size

BATCH = 64
# Percentiles between infinite distances are not defined; between these they are.
_ENDLESS = 1e200
# Files of run lengths that know no images without foreground; one of them no size either.
SPARSE = ("kaggle", "coco")


@dataclass(frozen=True)
class Borders:
    """Scores of borders, see :mod:`engine.scores.surfaces`.

    Attributes:
        counts: what they are quotients of, and their rules.
        values: float64 (classes, metrics).
        mean: float64 (metrics,), over all classes but the ignored one.
        low: float64 (1 + classes, metrics), lower ends of the intervals over groups, of the mean first; or None.
        high: upper ends.
    """

    counts: SurfaceCounts
    values: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, counts: SurfaceCounts, ignored_class: int | None, groups: NDArray[np.int64] | None) -> Borders:
        """Return the scores, with bootstrap intervals where groups are given."""
        values = counts.values()
        mean = over_classes(values, ignored_class)
        if groups is None:
            return cls(counts, values, mean)
        drawn = counts.values(whole_and_resampled(int(groups.max()) + 1, ROUNDS, 0), groups)
        whole = np.concatenate([over_classes(drawn, ignored_class)[:, None], drawn], axis=1)
        low, high = np.empty(whole.shape[1:]), np.empty(whole.shape[1:])
        for place in np.ndindex(low.shape):
            _, low[place], high[place] = ends(np.minimum(whole[:, place[0], place[1]], _ENDLESS))
        low, high = (np.where(side > _ENDLESS / 2, np.inf, side) for side in (low, high))
        return cls(counts, values, mean, low, high)


@dataclass(frozen=True)
class Evaluation:
    """The score of a set of masks.

    Attributes:
        score: counts and conventions.
        names: names of the classes.
        trap: what predictions of the ignored class cost, or None.
        intervals: bootstrap interval over groups, by convention; empty without groups.
        void: what is void in the truth, in words; empty where nothing can be.
        void_pixels: how many pixels were.
        missing_pixels: pixels with a true class for which the masks have none (255); not counted either.
        borders: scores of borders, or None.
        matrices: int64 (images, classes, classes), the counts of each image where asked for, or None.
        coverage: how much of the scored pixels has a class in masks with unknown pixels; all other scores are of these
            pixels alone. None for masks without.
    """

    score: Score
    names: tuple[str, ...]
    trap: Trap | None
    intervals: dict[str, Interval] = field(default_factory=dict)
    void: str = ""
    void_pixels: int = 0
    missing_pixels: int = 0
    borders: Borders | None = None
    matrices: NDArray[np.int64] | None = None
    coverage: Coverage | None = None

    @property
    def left_out(self) -> str:
        """Say in one line which class the score leaves out, and what was void."""
        return told_left_out(self.score.ignored_class, self.names, self.void, self.void_pixels)


@dataclass
class _Counted:
    """What was counted of all maps."""

    score: Score
    images: list[NDArray[np.int64]] = field(default_factory=list)
    void: int = 0
    missing: int = 0
    scored: list[NDArray[np.int64]] = field(default_factory=list)


def evaluate(
    predicted: str,
    labels: str,
    classes: str = "",
    ignored_class: str = "",
    groups: str = "",
    coding: LabelCoding = PLAIN,
    rle: str = "",
    align: bool = False,
    surfaces: SurfaceRules | None = None,
    by_image: bool = False,
) -> Evaluation:
    """Compare masks with true masks, batch by batch.

    What the options do not state (classes, ignored class, void, ids) is taken from the record beside the masks, which
    ``engine ensemble`` writes. Maps of different sizes are compared one by one.

    Args:
        predicted: submission CSV, .npz, .npy or folder.
        labels: the same forms.
        classes: names separated by commas, or their number; empty for those of the record or the palette, else for as
            many as the masks hold.
        ignored_class: id, or ``none``; empty for that of the record, else 0.
        groups: file with the group of each image, for intervals; see :func:`engine.sources.groups.read_groups`.
        coding: what the true masks hold in place of class numbers.
        rle: the form of files of run lengths, where their header does not tell it: a name out of :data:`RLE_FORMS`.
        align: warp true GeoTIFFs onto the masks by the nearest pixel; outside of them nothing is scored.
        surfaces: also score borders by these rules; None for no such scores.
        by_image: whether to keep the counts of each image.

    Raises:
        InputError: the two do not belong together, hold labels outside the classes, or the groups do not fit.
        PlanError: impossible options.
    """
    read = Unchanged(predicted, labels, groups)
    known = known_facts(predicted, classes, ignored_class, coding, labels)
    names, ignored = known.names, known.ignored_class
    count = len(names) or MOST_CLASSES - 1
    if align:
        guesses, truths = _aligned(predicted, labels, known)
    else:
        check_same_places(predicted, labels)
        guesses, truths = _open_both(predicted, labels, rle, known)
    if not truths.sizes and not guesses.sizes:
        check_match(truths, guesses)
    index = read_groups(groups, len(truths)) if groups else None
    rules = None if surfaces is None else SurfaceCounts(count, surfaces)
    abstains = bool(known.unknown)
    if abstains and rules is not None:
        raise PlanError(f"{predicted} holds unknown pixels, which have no borders: leave out --surfaces")
    kept = by_image or index is not None or abstains
    done = _count(truths, guesses, Score(count, ignored), known.truth.leaves_255_open, kept, rules, abstains)
    read.check()
    score = done.score
    if not names:
        names = _seen_names(score, truths.name)
    borders = None
    if rules is not None:
        rules.cut(len(names))
        borders = Borders.of(rules, ignored, index)
    intervals = {}
    matrices = _stacked(done.images, len(names)) if kept else None
    if index is not None and matrices is not None:
        grouped = GroupedCounts.of(matrices, index, ignored)
        intervals = {name: interval(grouped, name) for name in CONVENTIONS}
    trap = find_trap(score.confusion, ignored)
    void = known.truth.told_void(len(names))
    coverage = None
    if abstains and matrices is not None:
        coverage = Coverage.of(np.concatenate(done.scored), matrices, ignored, index)
    return Evaluation(score, names, trap, intervals, void, done.void, done.missing, borders, matrices, coverage)


def _count(
    truths: Source,
    guesses: Source,
    score: Score,
    plain: bool,
    by_image: bool,
    surfaces: SurfaceCounts | None = None,
    abstains: bool = False,
) -> _Counted:
    """Count all maps, and keep those of each image where asked for.

    Args:
        truths: the true maps.
        guesses: the masks, in the same order.
        score: added to.
        plain: whether nothing says what 255 is in the truth.
        by_image: whether each image's counts are kept.
        surfaces: added to; None for no scores of borders.
        abstains: whether masks hold unknown pixels, which are not counted.
    """
    done = _Counted(score)
    varied = bool(truths.sizes or guesses.sizes)
    size = 1 if varied else BATCH
    undecided, guessed_undecided = plain, True
    for truth, guess in zip_longest(truths.batches(size), guesses.batches(size)):
        if truth is None or guess is None:
            raise InputError(f"{guesses.name} and {truths.name} end at different places: copy the files again")
        if varied:
            _check_one_size(truth, guess, guesses.name)
        true = as_labels(truth, score.classes, truths.name)
        found = as_labels(guess, UNKNOWN + 1 if abstains else score.classes, guesses.name)
        known = covered(found) if abstains else found
        undecided = undecided and bool(((true == 0) | (true == VOID)).all())
        guessed_undecided = guessed_undecided and bool(((found == 0) | (found == VOID)).all())
        matrices = confusion_matrices(true, known, score.classes)
        score.add(matrices)
        if surfaces is not None:
            for one, other in zip(true, found, strict=True):
                surfaces.add(one.reshape(truth.size), other.reshape(truth.size))
        if score.classes < MOST_CLASSES:
            void = int((true == VOID).sum())
            done.void += void
            done.missing += true.size - void - int(matrices.sum()) - int(((known != found) & (true != VOID)).sum())
        if by_image:
            done.images.append(_trimmed(matrices))
        if abstains:
            ignored = VOID if score.ignored_class is None else score.ignored_class
            done.scored.append(((true != VOID) & (true != ignored) & (found != VOID)).sum(axis=1))
    if undecided and done.void and score.confusion[0].any():
        check_values(np.array([0, VOID]), truths.name)
    if guessed_undecided and done.missing and score.confusion[:, 0].any():
        check_values(np.array([0, VOID]), guesses.name)
    return done


def _check_one_size(truth: Batch, guess: Batch, name: str) -> None:
    if truth.size != guess.size and truth.pixels.size != guess.pixels.size:
        raise InputError(
            f"{name}: the mask of {truth.ids[0]} is {told_size(guess.size)}, its label map {told_size(truth.size)}: "
            "they must be of one size"
        )


def _seen_names(score: Score, name: str) -> tuple[str, ...]:
    """Cut the counts to the classes that were seen, and return their names.

    Raises:
        InputError: the ids that were seen have a gap, so they may be no class numbers.
    """
    seen = np.flatnonzero(score.confusion.any(axis=0) | score.confusion.any(axis=1))
    used = max(int(seen.max(initial=0)) + 1, 2, (score.ignored_class or 0) + 1)
    true = np.flatnonzero(score.confusion.any(axis=1)).tolist()
    if len(true) > 1 and not set(true) <= set(range(len(true))) and len(seen) < used - 1:
        shown = ",".join(map(str, true))
        raise InputError(
            f"{name} holds the ids {shown}, with gaps: add --label-ids {shown} where these are the classes, or "
            f"--classes {used} where others are merely absent"
        )
    score.confusion = np.ascontiguousarray(score.confusion[:used, :used])
    score.classes = used
    return tuple(f"class {index}" for index in range(used))


def _open_both(predicted: str, labels: str, rle: str, known: Known) -> tuple[Source, Source]:
    """Open masks and truth; run lengths that know no size, or not all images, take both from the other side."""
    forms = [rle_form(predicted), rle_form(labels)]
    if rle and rle not in RLE_FORMS:
        raise PlanError(f"--rle {rle[:40]}; allowed are {', '.join(RLE_FORMS)}")
    if rle and not {rle, *(["kaggle"] if rle == "rows" else [])} & set(forms):
        raise PlanError(f"--rle {rle}: neither {predicted} nor {labels} holds such run lengths: leave it out")
    if forms[1] in SPARSE and forms[0] not in SPARSE:
        guesses = open_labels(predicted, known.masks, rle=rle, any_size=True)
        return guesses, open_labels(labels, known.truth, guesses, rle, any_size=True)
    # Of two COCO files the truth names the images.
    truths = open_labels(labels, known.truth, rle=rle, any_size=True)
    like = truths if forms[0] in SPARSE else None
    return joined(truths, open_labels(predicted, known.masks, like, rle, any_size=True)), truths


def _aligned(predicted: str, labels: str, known: Known) -> tuple[Source, Source]:
    """Open masks and truth that is warped onto them."""
    masks = open_scenes(predicted, "labels")
    truth = known.truth
    truths = aligned(open_scene_labels(labels, masks, truth), masks, truth.ids, truth.palette is not None)
    count = len(known.names)
    return maps_of(coded_scenes(masks, known.masks), count), maps_of(coded_scenes(truths, truth), count)


def _trimmed(matrices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the matrices without the classes above the last one that any of them holds."""
    seen = np.flatnonzero(matrices.any(axis=(0, 1)) | matrices.any(axis=(0, 2)))
    used = int(seen.max(initial=0)) + 1
    return matrices[:, :used, :used].copy()


def _stacked(parts: list[NDArray[np.int64]], classes: int) -> NDArray[np.int64]:
    """Return trimmed matrices as one array (images, classes, classes)."""
    whole = np.zeros((sum(map(len, parts)), classes, classes), np.int64)
    start = 0
    for part in parts:
        whole[start : start + len(part), : part.shape[1], : part.shape[1]] = part
        start += len(part)
    return whole


@dataclass(frozen=True)
class ClassScore:
    """How well the binary masks of one class agree with the truth.

    Attributes:
        name: the class.
        iou: intersection over union; NaN where neither has a pixel.
        precision: share of the predicted pixels that are true; NaN where none is predicted.
        recall: share of the true pixels that are predicted; NaN where none is true.
        pixels: true pixels.
    """

    name: str
    iou: float
    precision: float
    recall: float
    pixels: int


def evaluate_multilabel(predicted: str, labels: str, classes: str = "") -> list[ClassScore] | None:
    """Score binary masks of classes that do not exclude each other, (images, classes, height, width) on both sides.

    Args:
        predicted: .npz or .npy.
        labels: .npz or .npy of the same shape; whatever is not 0 counts as present.
        classes: names separated by commas; empty for ``class 0``, ``class 1``, ...

    Returns:
        One score per class; None where the masks are not of that form.

    Raises:
        InputError: the two have different shapes.
        PlanError: another number of names.
    """
    read = Unchanged(predicted, labels)
    sides = [_class_masks(spec) for spec in (predicted, labels)]
    if sides[0] is None or sides[1] is None:
        return None
    guess, truth = sides[0], sides[1]
    if guess.shape != truth.shape:
        raise InputError(f"{predicted} holds masks {guess.shape}, {labels} {truth.shape}: both need one shape")
    names = tuple(classes.split(",")) if classes else tuple(f"class {index}" for index in range(guess.shape[1]))
    if len(names) != guess.shape[1]:
        raise PlanError(f"--classes: {len(names)} names for masks of {guess.shape[1]} classes: give one per class")
    both, predicted_pixels, true_pixels = (np.zeros(len(names), np.int64) for _ in range(3))
    for ours, theirs in zip(guess.chunks(BATCH), truth.chunks(BATCH), strict=True):
        present, true = ours != 0, theirs != 0
        both += (present & true).sum(axis=(0, 2, 3))
        predicted_pixels += present.sum(axis=(0, 2, 3))
        true_pixels += true.sum(axis=(0, 2, 3))
    read.check()
    with np.errstate(invalid="ignore"):
        iou = both / (predicted_pixels + true_pixels - both)
        precision, recall = both / predicted_pixels, both / true_pixels
    rows = zip(names, iou, precision, recall, true_pixels, strict=True)
    return [ClassScore(name, float(i), float(p), float(r), int(n)) for name, i, p, r, n in rows]


def _class_masks(spec: str) -> ArrayFile | None:
    path, key = split_key(spec)
    if is_url(spec) or path.suffix.lower() not in (".npz", ".npy") or not path.exists():
        return None
    array = open_array(path, key, "labels")
    return array if len(array.shape) == 4 and array.shape[1] > 1 and array.shape[3] > 1 else None

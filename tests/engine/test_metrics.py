"""Every convention against its definition, Keras and scikit-learn; the class-0 trap against arithmetic by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError, PlanError
from engine.metrics import (
    CONVENTIONS,
    VOID,
    Score,
    class_iou,
    confusion_matrices,
    find_trap,
    mean_iou,
    precision_recall,
)
from tests.helpers import reference
from tests.helpers.properties import examples

# With the JIT off (for coverage) the loops are plain Python, a thousand times slower.
PROPERTY = examples(60, interpreted=4)


@st.composite
def label_pairs(draw):
    classes = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 4)), draw(st.sampled_from([1, 5, 60])))
    high = draw(st.integers(1, classes))
    truth = rng.integers(0, high, shape, dtype=np.uint8)
    wrong = rng.integers(0, classes, shape, dtype=np.uint8)
    return classes, truth, np.where(rng.random(shape) < draw(st.floats(0, 1)), truth, wrong).astype(np.uint8)


def scored(classes, truth, predicted, ignored=0):
    score = Score(classes, ignored)
    for start in range(0, len(truth), 2):
        score.update(truth[start : start + 2], predicted[start : start + 2])
    return score


@PROPERTY
@given(label_pairs())
def test_each_convention_equals_its_definition(pair):
    classes, truth, predicted = pair
    score = scored(classes, truth, predicted)
    for name in CONVENTIONS:
        np.testing.assert_allclose(
            score.mean_iou(name), reference.mean_iou(truth, predicted, classes, name), err_msg=name
        )


@PROPERTY
@given(label_pairs(), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_void_counts_in_no_convention(pair, share, seed):
    classes, truth, predicted = pair
    void = np.random.default_rng(seed).random(truth.shape) < share
    score = scored(classes, np.where(void, VOID, truth).astype(np.uint8), predicted)
    left = sklearn_confusion(truth[~void], predicted[~void], classes)
    np.testing.assert_array_equal(score.confusion, left)
    for name in CONVENTIONS:
        if name != "per-image":
            alone = reference.mean_iou(truth[~void], predicted[~void], classes, name)
            np.testing.assert_allclose(score.mean_iou(name), alone, err_msg=name)
    alone = [
        reference.mean_iou(t[~v], p[~v], classes, "labelled") for t, p, v in zip(truth, predicted, void, strict=True)
    ]
    alone = [value for value in alone if not np.isnan(value)]
    np.testing.assert_allclose(score.mean_iou("per-image"), np.mean(alone) if alone else np.nan)


def sklearn_confusion(truth, predicted, classes):
    """The confusion matrix as scikit-learn counts it."""
    metrics = pytest.importorskip("sklearn.metrics")
    if not truth.size:
        return np.zeros((classes, classes), np.int64)
    return metrics.confusion_matrix(truth, predicted, labels=range(classes))


def test_the_last_of_256_classes_is_no_void():
    both = np.full((1, 4), 255, np.uint8)
    assert confusion_matrices(both, both, 256)[0, 255, 255] == 4
    assert not confusion_matrices(both, both, 255).any()


def test_the_trap_names_its_class():
    confusion = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3]])
    assert find_trap(confusion, 2) is None
    confusion[0, 2] = 1
    told = str(find_trap(confusion, 2))
    assert told.startswith("class-2 trap: 1 of 7 labelled pixels")
    assert "Suppress class 2" in told


@examples(25)
@given(label_pairs())
def test_keras_agrees(pair):
    keras = pytest.importorskip("keras")
    classes, truth, predicted = pair
    ours = scored(classes, truth, predicted)
    for convention, ignore in (("keras-ignore", 0), ("all", None)):
        metric = keras.metrics.MeanIoU(num_classes=classes, ignore_class=ignore)
        metric.update_state(truth.astype(np.int32), predicted.astype(np.int32))
        theirs = float(metric.result())
        mine = ours.mean_iou(convention)
        # Keras says 0 where nothing is counted; we say that there is no score.
        np.testing.assert_allclose(0.0 if np.isnan(mine) else mine, theirs, atol=1e-6)


@PROPERTY
@given(label_pairs())
def test_scikit_learn_agrees(pair):
    metrics = pytest.importorskip("sklearn.metrics")
    classes, truth, predicted = pair
    ids = list(range(classes))
    iou = class_iou(scored(classes, truth, predicted).confusion, "all", None)
    theirs = metrics.jaccard_score(truth.ravel(), predicted.ravel(), labels=ids, average=None, zero_division=0)
    np.testing.assert_allclose(np.nan_to_num(iou), theirs)
    precision, recall = precision_recall(scored(classes, truth, predicted).confusion, "all", None)
    p, r, _, _ = metrics.precision_recall_fscore_support(
        truth.ravel(), predicted.ravel(), labels=ids, average=None, zero_division=0
    )
    np.testing.assert_allclose(np.nan_to_num(precision), p)
    np.testing.assert_allclose(np.nan_to_num(recall), r)


def test_one_stray_zero_costs_a_fifth():
    truth = np.repeat(np.arange(1, 5, dtype=np.uint8), 100)[None]
    predicted = truth.copy()
    assert scored(5, truth, predicted).mean_iou("keras-ignore") == 1.0
    assert find_trap(scored(5, truth, predicted).confusion, 0) is None
    predicted[0, 0] = 0
    score = scored(5, truth, predicted)
    assert score.mean_iou("keras-ignore") == pytest.approx((0 + 0.99 + 3) / 5)
    trap = find_trap(score.confusion, 0)
    assert (trap.pixels, trap.labelled) == (1, 400)
    assert trap.without == pytest.approx((0.99 + 3) / 4)
    assert "1 of 400 labelled pixels" in str(trap)
    assert "0.7980 instead of 0.9975" in str(trap)


def test_true_background_pixels_are_not_counted():
    truth = np.array([[0, 0, 0, 1]], np.uint8)
    predicted = np.array([[0, 1, 1, 1]], np.uint8)
    score = scored(2, truth, predicted)
    assert score.mean_iou("keras-ignore") == 1.0
    assert score.mean_iou("labelled") == 1.0
    assert score.mean_iou("all") == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert score.mean_iou("foreground") == pytest.approx(1 / 3)


def test_another_ignored_class_and_none():
    truth = np.array([[0, 1, 2, 2]], np.uint8)
    predicted = np.array([[0, 1, 0, 2]], np.uint8)
    assert scored(3, truth, predicted, ignored=2).mean_iou("labelled") == 1.0
    assert scored(3, truth, predicted, ignored=None).mean_iou("labelled") == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert find_trap(scored(3, truth, predicted, None).confusion, None) is None


def test_nothing_to_score_is_no_number():
    score = scored(3, np.zeros((1, 4), np.uint8), np.zeros((1, 4), np.uint8))
    assert np.isnan(score.mean_iou("labelled"))
    assert np.isnan(score.mean_iou("per-image"))
    assert score.mean_iou("all") == 1.0


@pytest.mark.parametrize(
    ("truth", "predicted", "told"),
    [
        (np.zeros((1, 4), np.uint8), np.zeros((1, 5), np.uint8), "shape"),
        (np.full((1, 4), 3, np.uint8), np.zeros((1, 4), np.uint8), "labels hold class 3"),
        (np.zeros((1, 4), np.uint8), np.full((1, 4), 9, np.uint8), "predictions hold class 9"),
        (np.zeros((1, 4), np.int64), np.zeros((1, 4), np.uint8), "int64"),
    ],
)
def test_labels_that_do_not_fit(truth, predicted, told):
    with pytest.raises(InputError, match=told):
        confusion_matrices(truth, predicted, 3)


def test_unknown_convention():
    with pytest.raises(PlanError, match="unknown metric convention 'miou'"):
        mean_iou(np.eye(3, dtype=np.int64), "miou")

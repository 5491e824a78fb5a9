"""Losses against values computed by hand, and gradients that stay finite."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest
from keras import ops

from engine.errors import PlanError
from trainers.distances import signed_distances
from trainers.losses import MULTICLASS, SPECIALIST, capped_pos_weight, make_loss
from trainers.losses.base import Target
from trainers.losses.boundary import boundary
from trainers.losses.cross_entropy import binary_cross_entropy, cross_entropy
from trainers.losses.dice import dice
from trainers.losses.focal import focal
from trainers.losses.weighted_cross_entropy import class_weights, weighted_cross_entropy
from trainers.names import parse_loss

# One row of three pixels, two classes: softmax gives the true class 1/2, 3/4 and 1/5.
LOGITS = np.log(np.array([[[[1.0, 1.0], [1.0, 3.0], [1.0, 4.0]]]], np.float32))
LABELS = np.array([[[0, 1, 0]]], np.int32)


def test_cross_entropy_by_hand() -> None:
    expected = -(math.log(1 / 2) + math.log(3 / 4) + math.log(1 / 5)) / 3
    assert float(cross_entropy(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-5)


def test_ignored_pixels_are_left_out_of_sum_and_count() -> None:
    assert float(cross_entropy(LOGITS, LABELS, ignored=0)) == pytest.approx(-math.log(3 / 4), rel=1e-5)
    assert float(cross_entropy(LOGITS, LABELS, ignored=1)) == pytest.approx(-math.log(1 / 10) / 2, rel=1e-5)


def test_binary_cross_entropy_by_hand() -> None:
    """Log-odds 0, ln 3, -ln 4: the class has 1/2, 3/4 and 1/5; the middle pixel is of the class, weighted 5."""
    log_odds = np.log(np.array([[[[1.0], [3.0], [0.25]]]], np.float32))
    labels = np.array([[[0, 2, 1]]], np.int32)
    expected = -(math.log(1 / 2) + 5 * math.log(3 / 4) + math.log(4 / 5)) / 3
    assert float(binary_cross_entropy(log_odds, labels, 2, pos_weight=5.0)) == pytest.approx(expected, rel=1e-5)
    ignoring = -(5 * math.log(3 / 4) + math.log(4 / 5)) / 2
    assert float(binary_cross_entropy(log_odds, labels, 2, ignored=0, pos_weight=5.0)) == pytest.approx(
        ignoring, rel=1e-5
    )


def test_binary_cross_entropy_is_exact_for_extreme_log_odds() -> None:
    log_odds = np.array([[[[-500.0], [500.0]]]], np.float32)
    assert float(binary_cross_entropy(log_odds, np.array([[[1, 0]]], np.int32), 1)) == pytest.approx(500.0)


@pytest.mark.parametrize(
    ("name", "class_id"),
    [
        *((name, None) for name in (*MULTICLASS, "dice+0.5*focal+0.1*boundary")),
        *((name, 1) for name in SPECIALIST),
    ],
)
@pytest.mark.parametrize("fill", [0, 1])
def test_gradient_is_finite_even_when_no_pixel_counts(name: str, class_id: int | None, fill: int) -> None:
    keras.utils.set_random_seed(0)
    maps = 3 if class_id is None else 1
    layer = keras.layers.Conv2D(maps, 1)
    model = keras.Sequential([keras.Input((4, 4, 1)), layer])
    loss = make_loss(name, Target(3, 0, class_id, 10.0, (1.0, 2.0, 10.0)))
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss, run_eagerly=True)
    images = np.random.default_rng(0).normal(0, 100, (2, 4, 4, 1)).astype(np.float32)
    before = [weight.copy() for weight in layer.get_weights()]
    # The masks lack a class at least; the ignored class alone counts nothing.
    labels = np.full((2, 4, 4), fill, np.int32)
    labels[0, 0] = 2 * fill
    model.train_on_batch(images, with_distances(labels, 3, class_id) if model.loss.needs_distances else labels)
    after = layer.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    unchanged = all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    assert unchanged == (fill == 0)


def with_distances(labels: np.ndarray, classes: int, class_id: int | None = None) -> np.ndarray:
    maps = signed_distances(labels.astype(np.uint8), classes, class_id)
    return np.concatenate([labels[..., None].astype(np.float32), maps], axis=-1)


def test_the_class_and_the_function_agree() -> None:
    loss = make_loss("cross-entropy", Target(2, 0))
    assert float(loss(LABELS, LOGITS)) == pytest.approx(float(cross_entropy(LOGITS, LABELS, 0)))
    assert ops.shape(loss(LABELS, LOGITS)) == ()


def test_pos_weight_is_the_imbalance_capped() -> None:
    assert capped_pos_weight(100, 300) == 3.0
    assert capped_pos_weight(1, 10**6) == 10.0
    with pytest.raises(PlanError, match="no pixel"):
        capped_pos_weight(0, 5)


def test_an_unknown_loss_lists_what_there_is() -> None:
    with pytest.raises(PlanError, match="cross-entropy"):
        make_loss("hinge", Target(3))


def softmax(logits: np.ndarray) -> np.ndarray:
    terms = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return terms / terms.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    """Two tiles of four classes, of which the last is in neither; logits that favour the truth a little."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, (2, 6, 8)).astype(np.int32)
    logits = rng.normal(0, 2, (2, 6, 8, 4)).astype(np.float32) + 2 * np.eye(4, dtype=np.float32)[labels]
    return logits, labels


def test_class_weights_are_inverse_shares_capped() -> None:
    assert class_weights([0, 50, 25, 25]) == pytest.approx((1.0, 2 / 3, 4 / 3, 4 / 3))
    assert class_weights([900, 50, 25, 25], ignored=0) == pytest.approx((1.0, 2 / 3, 4 / 3, 4 / 3))
    assert class_weights([10**6, 1]) == pytest.approx((0.5000005, 10.0))
    assert class_weights([0, 0], None) == (1.0, 1.0)


def test_weighted_cross_entropy_by_hand() -> None:
    """Probabilities 1/2, 3/4 and 1/5 of the true classes 0, 1 and 0, which weigh 2 and 5."""
    expected = -(2 * math.log(1 / 2) + 5 * math.log(3 / 4) + 2 * math.log(1 / 5)) / 9
    assert float(weighted_cross_entropy(LOGITS, LABELS, (2.0, 5.0))) == pytest.approx(expected, rel=1e-5)
    left = float(weighted_cross_entropy(LOGITS, LABELS, (2.0, 5.0), ignored=0))
    assert left == pytest.approx(-math.log(3 / 4), rel=1e-5)


def test_dice_by_hand() -> None:
    """Class 0 is true at the outer pixels with 1/2 and 1/5, class 1 in the middle with 3/4."""
    first = 2 * (1 / 2 + 1 / 5) / (2 + 1 / 2 + 1 / 4 + 1 / 5)
    second = 2 * (3 / 4) / (1 + 1 / 2 + 3 / 4 + 4 / 5)
    assert float(dice(LOGITS, LABELS, 2)) == pytest.approx(1 - (first + second) / 2, rel=1e-5)
    # Without the pixels of class 0 that class does not occur, and one pixel of class 1 is left.
    assert float(dice(LOGITS, LABELS, 2, ignored=0)) == pytest.approx(1 - 2 * 0.75 / (1 + 0.75), rel=1e-5)


@pytest.mark.parametrize("ignored", [None, 1])
def test_dice_is_the_twin_of_a_plain_loop(batch: tuple[np.ndarray, np.ndarray], ignored: int | None) -> None:
    logits, labels = batch
    counted = np.ones(labels.shape, bool) if ignored is None else labels != ignored
    chance, losses = softmax(logits.astype(np.float64)), []
    for k in range(4):
        truth = (labels == k)[counted]
        if truth.any():
            part = chance[..., k][counted]
            losses.append(1 - 2 * part[truth].sum() / (truth.sum() + part.sum()))
    assert len(losses) == (3 if ignored is None else 2)
    assert float(dice(logits, labels, 4, ignored)) == pytest.approx(np.mean(losses), rel=1e-5)
    sigmoid = 1 / (1 + np.exp(-logits[..., :1].astype(np.float64)))
    truth = (labels == 2)[counted]
    part = sigmoid[..., 0][counted]
    expected = 1 - 2 * part[truth].sum() / (truth.sum() + part.sum())
    assert float(dice(logits[..., :1], labels, 4, ignored, class_id=2)) == pytest.approx(expected, rel=1e-5)


def test_focal_by_hand() -> None:
    expected = -(0.25 * math.log(1 / 2) + 0.0625 * math.log(3 / 4) + 0.64 * math.log(1 / 5)) / 3
    assert float(focal(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-5)
    assert float(focal(LOGITS, LABELS, ignored=0)) == pytest.approx(-0.0625 * math.log(3 / 4), rel=1e-5)
    assert float(focal(LOGITS, LABELS, gamma=0.0)) == pytest.approx(float(cross_entropy(LOGITS, LABELS)), rel=1e-5)
    log_odds = np.log(np.array([[[[1.0], [3.0], [0.25]]]], np.float32))
    labels = np.array([[[0, 2, 1]]], np.int32)
    binary = -(0.25 * math.log(1 / 2) + 0.0625 * math.log(3 / 4) + 0.04 * math.log(4 / 5)) / 3
    assert float(focal(log_odds, labels, class_id=2)) == pytest.approx(binary, rel=1e-5)


@pytest.mark.parametrize("name", ["focal", "cross-entropy", "weighted-cross-entropy", "dice"])
def test_extreme_logits_give_finite_values(name: str) -> None:
    logits = np.array([[[[1e4, -1e4], [-1e4, 1e4]]]], np.float32)
    loss = make_loss(name, Target(2))
    assert float(loss(np.array([[[0, 1]]], np.int32), logits)) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(float(loss(np.array([[[1, 0]]], np.int32), logits)))


def test_signed_distances_by_hand() -> None:
    """A row of five pixels, the class in the middle three: one pixel away, its rim 0, its inside one pixel deep."""
    labels = np.array([[[0, 1, 1, 1, 0]]], np.uint8)
    diagonal = math.hypot(1, 5)
    maps = signed_distances(labels, 3) * diagonal
    np.testing.assert_allclose(maps[0, 0, :, 1], [1, 0, -1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(maps[0, 0, :, 0], [0, 1, 2, 1, 0], atol=1e-6)
    assert not maps[..., 2].any()
    np.testing.assert_array_equal(signed_distances(labels, 3, class_id=1)[..., 0] * diagonal, maps[..., 1])
    assert not signed_distances(np.ones((1, 4, 4), np.uint8), 2).any()


def test_distances_are_the_twin_of_a_search_over_all_pairs() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (1, 7, 9)).astype(np.uint8)
    rows, columns = np.mgrid[:7, :9]
    maps = signed_distances(labels, 3)[0] * math.hypot(7, 9)
    for k in range(3):
        inside = labels[0] == k
        for y, x in np.ndindex(7, 9):
            away = np.hypot(rows - y, columns - x)
            expected = 1 - away[~inside].min() if inside[y, x] else away[inside].min()
            assert maps[y, x, k] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("ignored", [None, 0])
def test_boundary_by_hand(ignored: int | None) -> None:
    distances = np.array([[[[-1.0, 2.0], [3.0, 0.0], [0.5, 1.0]]]], np.float32)
    # Probabilities (1/2, 1/2), (1/4, 3/4) and (1/5, 4/5); with class 0 ignored the middle pixel's own map is left.
    pixels = (-1 / 2 + 2 / 2, 3 / 4 + 0.0, 0.5 / 5 + 4 / 5)
    expected = sum(pixels) / 3 if ignored is None else 0.0
    assert float(boundary(LOGITS, LABELS, distances, ignored)) == pytest.approx(expected, abs=1e-6)
    inside = boundary(np.zeros((1, 1, 3, 1), np.float32), LABELS, distances[..., :1], class_id=0)
    assert float(inside) == pytest.approx(0.5 * (-1 + 3 + 0.5) / 3)


def test_a_sum_is_the_sum_of_its_terms(batch: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = batch
    target = Target(4, 0, weights=(1.0, 2.0, 3.0, 1.0))
    truth = with_distances(labels, 4)
    total = float(make_loss("dice + 0.5*focal + weighted-cross-entropy*2 + 0.1*boundary", target)(truth, logits))
    parts = {name: make_loss(name, target) for name in ("dice", "focal", "weighted-cross-entropy", "boundary")}
    value = {name: float(loss(truth if loss.needs_distances else labels, logits)) for name, loss in parts.items()}
    expected = value["dice"] + 0.5 * value["focal"] + 2 * value["weighted-cross-entropy"] + 0.1 * value["boundary"]
    assert total == pytest.approx(expected, rel=1e-5)


def test_expressions_are_parsed() -> None:
    known = dict.fromkeys(("dice", "focal", "cross-entropy"))
    assert parse_loss("dice", known) == [(1.0, "dice")]
    assert parse_loss(" .5 * cross-entropy+dice*2", known) == [(0.5, "cross-entropy"), (2.0, "dice")]
    assert parse_loss("1e+2*dice+1E-1*focal", known) == [(100.0, "dice"), (0.1, "focal")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not parse at ''"),
        ("dice+", "does not parse at ''"),
        ("dice-focal", "'dice-focal' is unknown"),
        ("2 dice", "does not parse at '2 dice'"),
        ("2*dice*3", "does not parse"),
        ("-1*dice", "does not parse"),
        ("0*dice", "above 0"),
        ("1e999*dice", "above 0 and finite"),
        ("dice+dice", "twice"),
        ("dice+hinge", "'hinge' is unknown"),
        ("__import__('os')", "does not parse"),
        ("nan*dice", "does not parse"),
    ],
)
def test_expressions_that_do_not_parse_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)) as caught:
        make_loss(text, Target(3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "class_id"), [*((name, None) for name in MULTICLASS), *((name, 1) for name in SPECIALIST)]
)
@pytest.mark.parametrize("ignored", [None, 0])
def test_void_pixels_might_as_well_not_be_there(
    name: str, class_id: int | None, ignored: int | None, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, labels = batch
    loss = make_loss(name, Target(4, ignored, class_id, 3.0, (1.0, 2.0, 5.0, 1.0)))
    logits = logits if class_id is None else logits[..., :1]
    gone = [2, 3, 7]
    labels = labels.copy()
    labels[:, :, gone] = 255
    given = with_distances(labels, 4, class_id) if loss.needs_distances else labels
    whole = float(loss(given, logits))
    assert whole == pytest.approx(
        float(loss(np.delete(given, gone, axis=2), np.delete(logits, gone, axis=2))), rel=1e-4
    )
    assert np.isfinite(whole) and whole != 0
    moved = logits.copy()
    moved[:, :, gone] += 50 * np.arange(1, logits.shape[-1] + 1, dtype=np.float32)
    assert float(loss(given, moved)) == pytest.approx(whole, rel=1e-6)

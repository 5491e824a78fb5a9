"""Losses against values computed by hand, and gradients that stay finite."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

from engine.errors import PlanError
from trainers.losses import MULTICLASS, SPECIALIST, capped_pos_weight, make_loss
from trainers.losses.base import Target
from trainers.losses.cross_entropy import binary_cross_entropy, cross_entropy

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
    ("name", "class_id"), [*((name, None) for name in MULTICLASS), *((name, 1) for name in SPECIALIST)]
)
@pytest.mark.parametrize("fill", [0, 1])
def test_gradient_is_finite_even_when_no_pixel_counts(name: str, class_id: int | None, fill: int) -> None:
    keras.utils.set_random_seed(0)
    maps = 3 if class_id is None else 1
    layer = keras.layers.Conv2D(maps, 1)
    model = keras.Sequential([keras.Input((4, 4, 1)), layer])
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=make_loss(name, Target(3, 0, class_id, 10.0)))
    images = np.random.default_rng(0).normal(0, 100, (2, 4, 4, 1)).astype(np.float32)
    before = [weight.copy() for weight in layer.get_weights()]
    model.train_on_batch(images, np.full((2, 4, 4), fill, np.int32))
    after = layer.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    unchanged = all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    assert unchanged == (fill == 0)


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

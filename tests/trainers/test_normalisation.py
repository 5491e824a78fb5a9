"""Fused batch normalisation beside Keras' own: outputs, gradients and moving statistics; and what is saved is stock."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.conftest import tiles
from trainers.batches import WORKERS, Batches
from trainers.config import FitConfig
from trainers.learner import finished, make_learner
from trainers.losses.base import Target
from trainers.normalisation import FusedBatchNormalization, with_fused_normalisation

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="fused on TensorFlow only")

SHAPE = (16, 32, 1)
CONFIG = FitConfig(arch="unet", data="d.npz", out="n.keras", preset="tiny", options=("depth=1",), batch_size=4)


def trained_step(kind: type[keras.Layer], maps: np.ndarray, precision: str) -> list[np.ndarray]:
    """The output, gradients and statistics of a layer behind a ReLU, after one step in training."""
    layer = kind(momentum=0.9, dtype=keras.DTypePolicy(precision))
    layer.build(maps.shape)
    rng = np.random.default_rng(1)
    for variable in layer.weights[:2]:
        variable.assign(rng.normal(1, 0.5, variable.shape))
    pull = tf.constant(rng.normal(size=maps.shape), tf.float32)
    inputs = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        out = tf.nn.relu(layer(inputs, training=True))
        loss = tf.reduce_sum(tf.cast(out, tf.float32) * pull)
    slopes = tape.gradient(loss, [inputs, *(item.value for item in layer.trainable_variables)])
    return [np.asarray(tf.cast(item, tf.float32)) for item in (out, *slopes, *(item.value for item in layer.weights))]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3, st.sampled_from([1, 3, 12, 16])).filter(lambda s: s[0] * s[1] * s[2] > 1),
    mean=st.floats(-20, 20),
    precision=st.sampled_from(["float32", "mixed_bfloat16"]),
    seed=st.integers(0, 2**16),
)
def test_fused_normalisation_is_keras_normalisation(
    shape: tuple[int, ...], mean: float, precision: str, seed: int
) -> None:
    maps = np.random.default_rng(seed).normal(mean, 2.0, shape).astype(np.float32)
    ours = trained_step(FusedBatchNormalization, maps, precision)
    theirs = trained_step(keras.layers.BatchNormalization, maps, precision)
    # bfloat16 has 8 bits; where a value is next to 0, the ReLU may cut one of the two and not the other.
    rough = precision != "float32"
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-2 if rough else 1e-3, atol=2e-1 if rough else 2e-3)


def test_outside_training_it_uses_the_moving_statistics() -> None:
    maps = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 3)).astype(np.float32)
    fused, stock = FusedBatchNormalization(), keras.layers.BatchNormalization()
    for layer in (fused, stock):
        layer.build(maps.shape)
        layer.set_weights([np.arange(1, 4), np.ones(3), np.full(3, 2.0), np.full(3, 5.0)])
    np.testing.assert_array_equal(fused(maps, training=False), stock(maps, training=False))
    frozen = FusedBatchNormalization(trainable=False)
    frozen.build(maps.shape)
    np.testing.assert_array_equal(frozen(maps, training=True), frozen(maps, training=False))


def test_a_network_is_trained_fused_and_saved_with_stock_layers() -> None:
    learner = make_learner(CONFIG, SHAPE, Target(5), steps=3)
    kinds = {type(layer) for layer in learner.model.layers}
    assert FusedBatchNormalization in kinds
    assert keras.layers.BatchNormalization not in kinds
    model = finished(CONFIG, learner, learner.model.get_weights(), SHAPE)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    images = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(model(images), learner.model(images), atol=1e-5)


def test_another_backend_keeps_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = finished(CONFIG, learner := make_learner(CONFIG, SHAPE, Target(5), 3), learner.model.get_weights(), SHAPE)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert with_fused_normalisation(model) is model


def test_batches_prepared_ahead_are_the_same_in_the_same_order() -> None:
    """One thread would leave them to a pipeline of TensorFlow that waits when an epoch ends."""
    assert WORKERS > 1
    data = tiles(40, size=SHAPE[:2])
    batches = Batches(data, CONFIG, 3)
    seen: list[np.ndarray] = []

    class Watch(keras.Model):
        def train_step(self, given: tuple[tf.Tensor, tf.Tensor]) -> dict[str, float]:
            seen.append(given[0].numpy())
            return {"loss": 0.0}

    model = Watch()
    model.compile(run_eagerly=True)
    model.fit(batches, shuffle=False, verbose=0)
    assert len(seen) == len(batches)
    for step, images in enumerate(seen):
        np.testing.assert_array_equal(images, batches[step][0])

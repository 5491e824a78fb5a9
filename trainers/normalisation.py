"""Batch normalisation as one operation of the backend while a network is trained.

Keras 3 composes it of some twenty elementwise operations, which XLA joins into one and TensorFlow runs one by one: a
quarter of a training step on a CPU. TensorFlow has the same function as one operation with a gradient of its own (S.
Ioffe, C. Szegedy: Batch Normalization, ICML 2015).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation over the last axis, by one operation of TensorFlow in training; else as in Keras.

    Results and moving statistics are those of ``keras.layers.BatchNormalization`` within rounding.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise maps (B, H, W, C)."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        # oneDNN has fast code for bfloat16 only where C is a multiple of 16.
        maps = tf.cast(inputs, tf.float32)
        none = tf.zeros([0])
        out, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=maps,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=none,
            variance=none,
            epsilon=self.epsilon,
            is_training=True,
        )
        # TensorFlow's estimate for the moving average is the unbiased one, Keras' is not.
        count = tf.cast(tf.size(maps) // maps.shape[-1], tf.float32)
        variance = variance * (count - 1) / count
        for moving, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + found * (1 - self.momentum))
        # Without this, TensorFlow joins it to the ReLU behind it, and oneDNN has slow code for the two of few maps.
        return tf.ensure_shape(tf.cast(out, self.compute_dtype), inputs.shape)


def with_fused_normalisation(model: keras.Model) -> keras.Model:
    """Return a network whose batch normalisation is fused, with the same weights; on other backends the network itself.

    For training only: what is saved must load without this package.
    """
    if keras.backend.backend() != "tensorflow":
        return model
    twin = keras.models.clone_model(model, clone_function=_fused)
    twin.set_weights(model.get_weights())
    return twin


def _fused(layer: keras.Layer) -> keras.Layer:
    kind = FusedBatchNormalization if type(layer) is layers.BatchNormalization else type(layer)
    return kind.from_config(layer.get_config())

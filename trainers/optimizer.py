"""The optimizer and its schedule."""

from __future__ import annotations

import keras

from trainers.config import FitConfig


def make_optimizer(config: FitConfig, steps: int) -> keras.optimizers.Optimizer:
    """Return AdamW on a cosine schedule with linear warm-up; biases and normalisation are not decayed.

    With ``config.ema`` it keeps an average of the weights, with which Keras replaces them at the end of each ``fit``.

    Args:
        config: the run.
        steps: steps per epoch.
    """
    warmup = round(config.warmup_epochs * steps)
    total = config.epochs * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(total - warmup, 1),
        alpha=0.01,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=config.weight_decay, use_ema=config.ema > 0, ema_momentum=config.ema
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer

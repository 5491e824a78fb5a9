"""The optimizer and its schedule."""

from __future__ import annotations

import keras

from trainers.config import FitConfig

#: Share of the peak learning rate in epochs whose weights are averaged.
SWA_RATE = 0.1


def make_optimizer(config: FitConfig, steps: int) -> keras.optimizers.Optimizer:
    """Return AdamW on a cosine schedule with linear warm-up; biases and normalisation are not decayed.

    The schedule ends at 1 % of the rate, or with ``config.swa`` before the averaged epochs at :data:`SWA_RATE`.

    With ``config.ema`` it keeps an average of the weights, with which Keras replaces them at the end of each ``fit``.

    Args:
        config: the run.
        steps: steps per epoch.
    """
    warmup = round(config.warmup_epochs * steps)
    total = (config.epochs - config.swa) * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(total - warmup, 1),
        # Epochs that are averaged go on exploring at a constant rate.
        alpha=SWA_RATE if config.swa else 0.01,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=config.weight_decay, use_ema=config.ema > 0, ema_momentum=config.ema
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer

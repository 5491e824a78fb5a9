"""A network ready for training: built in its precision, initialised from another one, partly frozen, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainers.config import FitConfig
from trainers.losses import make_loss
from trainers.losses.base import Heads, PixelLoss, Target
from trainers.losses.distillation import Distillation
from trainers.models import architecture, build_model
from trainers.normalisation import with_fused_normalisation
from trainers.optimizer import make_optimizer
from trainers.options import parsed_options
from trainers.transfer import take_weights

Weights = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Learner:
    """A network and its compiled training twin.

    Attributes:
        model: the network with its one output; its layers are those of ``trained``, not all of them stock.
        trained: a compiled twin with the training-only heads, so that the network itself is saved without
            optimizer and loss.
        loss: the loss of one head.
    """

    model: keras.Model
    trained: keras.Model
    loss: PixelLoss


def make_learner(config: FitConfig, shape: tuple[int, int, int], target: Target, steps: int) -> Learner:
    """Build and compile what a run trains.

    Args:
        config: the run.
        shape: (height, width, channels) of a tile.
        target: the target of the loss.
        steps: steps per epoch.

    Raises:
        EngineError: the options, or the network to start from, do not match the architecture.
    """
    with _precision(config.precision):
        model = build(config, shape, target.classes)
        if config.start_from:
            take_weights(model, Path(config.start_from))
        model = with_fused_normalisation(model)
        freeze(model, config)
        heads = heads_of(config, model, target.maps)
        output = model.output
        if heads:
            output = keras.layers.Concatenate(dtype="float32", name="heads")([output, *heads])
        trained = keras.Model(model.input, output)
    loss = make_loss(config.loss, target)
    if target.soft:
        loss = Distillation(loss, config.soft_weight, config.temperature)
    trained.compile(optimizer=make_optimizer(config, steps), loss=Heads(loss, 1 + len(heads)) if heads else loss)
    # Slots created inside the first step would cause a second tracing, which takes seconds on TensorFlow.
    trained.optimizer.build(trained.trainable_variables)
    return Learner(model, trained, loss)


def finished(config: FitConfig, learner: Learner, weights: Weights, shape: tuple[int, int, int]) -> keras.Model:
    """Return the network to save: stock layers with the best weights, in float32 whatever the training precision."""
    model = build(config, shape, learner.loss.target.classes)
    model.set_weights(weights)
    return model


def build(config: FitConfig, shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build the network of a run, untrained."""
    found = architecture(config.arch)
    options: dict[str, Any] = parsed_options(config)
    if found.stages:
        options["stage"] = config.stage
    return build_model(
        config.arch, config.preset, input_shape=shape, classes=classes, dropout=config.dropout, **options
    )


def heads_of(config: FitConfig, model: keras.Model, maps: int) -> list[keras.KerasTensor]:
    """Return the logits of the training-only heads."""
    found = architecture(config.arch)
    wanted = config.stage == "whole" if found.always else config.deep_supervision
    return found.heads(model, maps) if wanted and found.heads is not None else []


def freeze(model: keras.Model, config: FitConfig) -> None:
    """Freeze the first part of a cascade while the second is trained."""
    prefix = architecture(config.arch).first
    for layer in model.layers:
        if prefix and config.stage == "second" and layer.name.startswith(prefix):
            layer.trainable = False


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

"""The epochs of a run: train, score on validation tiles, keep the best weights, write a checkpoint, stop early."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.utils.console import say
from trainers import checkpoint, swa
from trainers.augment.paste import RarePixels
from trainers.batches import Batches
from trainers.compiled import EpochRun, epoch_of
from trainers.config import FitConfig
from trainers.data import Dataset
from trainers.learner import Learner
from trainers.progress import Progress
from trainers.records import Epoch
from trainers.sampling import expected_tiles
from trainers.soft_batches import SoftBatches
from trainers.validate import evaluate, predict


@dataclass(frozen=True)
class Trained:
    """The result of the epochs: all of them, the best one, and the network's weights after it.

    ``averaged`` is the number of epochs that these weights are the average of, 0 for those of one epoch.
    """

    history: list[Epoch]
    best: Epoch
    weights: list[NDArray[np.float32]]
    averaged: int = 0


class _RawWeights(keras.callbacks.Callback):
    """Stores the raw training weights: at the end of ``fit`` Keras replaces them with their average."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[NDArray[np.float32]] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Copy the weights."""
        self.values = [keras.ops.convert_to_numpy(item) for item in self.model.trainable_variables]

    def part(self) -> None:
        """Give each weight its own value again.

        On JAX a weight that Keras has set to its average shares the average's buffer, and the next call that hands the
        weight's buffer over to XLA would take the average away as well.
        """
        for variable in self.model.trainable_variables:
            variable.assign(keras.ops.convert_to_numpy(variable))

    def restore(self) -> None:
        """Restore the weights for the next epoch."""
        for variable, value in zip(self.model.trainable_variables, self.values, strict=True):
            variable.assign(value)


def steps_of(config: FitConfig, training: Dataset) -> int:
    """Return the steps per epoch; there are fewer where identical copies of tiles are dropped."""
    tiles = expected_tiles(training, config.repeat, config.oversample, config.ignored_class)
    return math.ceil(tiles / config.batch_size)


def train(
    config: FitConfig,
    learner: Learner,
    training: Dataset,
    held_out: Dataset | None,
    checkpoints: bool = False,
    resume: bool = False,
) -> Trained:
    """Run the epochs of a run.

    Args:
        config: the run.
        learner: the network, compiled.
        training: tiles to train on.
        held_out: validation tiles; None keeps the weights of the last epoch.
        checkpoints: write a checkpoint after every epoch.
        resume: resume from the checkpoint of this run, if there is one.

    Raises:
        EngineError: the loss became infinite, or a checkpoint cannot be written or read.
    """
    state = checkpoint.load(config, learner.trained) if resume else None
    if state is not None:
        say(f"resumed after epoch {len(state.history)} of {config.epochs}")
    run = epoch_of(learner.trained)
    history = list(state.history) if state is not None else []
    rare = RarePixels.of(training, config.ignored_class) if config.paste > 0 else None
    with Progress(config.epochs, steps_of(config, training), Path(config.out).stem) as progress:
        for number in range(len(history), config.epochs):
            if state is not None and _lost_patience(config, state.best, history):
                progress.line(f"stopped: no improvement in {config.patience} epochs")
                break
            kind = Batches if training.soft is None else SoftBatches
            batches = kind(training, config, number, rare, learner.loss.needs_distances)
            epoch, raw = _one_epoch(config, learner, run, batches, held_out, progress)
            history.append(epoch)
            progress.line(_line(epoch, config))
            if (
                state is None
                or held_out is None
                or math.isnan(state.best.raw)
                or monitored_score(config, epoch) > monitored_score(config, state.best)
            ):
                kept = (state.average, state.averaged) if state is not None else ([], 0)
                state = checkpoint.State(history, epoch, learner.model.get_weights(), *kept)
            average, averaged = state.average, state.averaged
            if swa.is_averaged(config, number):
                average, averaged = swa.with_epoch(average, averaged, learner.model.get_weights()), averaged + 1
            state = checkpoint.State(history, state.best, state.weights, average, averaged)
            if config.ema > 0:
                raw.restore()
            if checkpoints:
                checkpoint.save(config, learner.trained, state)
    assert state is not None  # epochs is at least 1
    trained = Trained(history, state.best, state.weights)
    return _averaged(config, learner, training, held_out, trained, state) if state.averaged else trained


def _averaged(
    config: FitConfig,
    learner: Learner,
    training: Dataset,
    held_out: Dataset | None,
    best: Trained,
    state: checkpoint.State,
) -> Trained:
    """Return the average of the last epochs' weights, unless the best single epoch scores higher."""
    learner.model.set_weights(state.average)
    swa.refresh_statistics(learner.model, Batches(training, config, config.epochs))
    raw = suppressed = math.nan
    if held_out is not None:
        raw, suppressed = evaluate(config, predict(learner.model, held_out, config.batch_size), held_out)
    epoch = replace(best.history[-1], raw=raw, suppressed=suppressed)
    if held_out is not None and monitored_score(config, epoch) < monitored_score(config, best.best):
        say(f"the average of the last {state.averaged} epochs scores lower than epoch {best.best.epoch}: not used")
        return best
    say(f"average of the last {state.averaged} epochs: raw {raw:.4f}, suppressed {suppressed:.4f}")
    return Trained(best.history, epoch, learner.model.get_weights(), state.averaged)


def _one_epoch(
    config: FitConfig, learner: Learner, run: EpochRun, batches: Batches, held_out: Dataset | None, bar: Progress
) -> tuple[Epoch, _RawWeights]:
    """Train for one epoch and score the network, with its averaged weights if the run keeps an average."""
    started = time.perf_counter()
    number, raw_weights = batches.epoch, _RawWeights()
    calls: list[Any] = [bar, raw_weights] if config.ema > 0 else [bar]
    loss = run(batches, calls)
    if config.ema > 0:
        raw_weights.part()
    speed = batches.tiles / (time.perf_counter() - started)
    if not math.isfinite(loss):
        raise ModelError(f"the training loss became {loss} in epoch {number + 1}; lower --learning-rate")
    raw = suppressed = math.nan
    due = (number + 1) % config.validate_every == 0 or number + 1 == config.epochs
    if held_out is not None and due:
        raw, suppressed = evaluate(config, predict(learner.model, held_out, config.batch_size), held_out)
    rate = float(keras.ops.convert_to_numpy(learner.trained.optimizer.learning_rate))
    seconds = time.perf_counter() - started
    return Epoch(number + 1, loss, raw, suppressed, rate, speed, seconds), raw_weights


def monitored_score(config: FitConfig, epoch: Epoch) -> float:
    """Return the validation score that the run uses."""
    return epoch.raw if config.monitor == "raw" else epoch.suppressed


def _lost_patience(config: FitConfig, best: Epoch, history: list[Epoch]) -> bool:
    # Where the last epochs are averaged, all of them are needed.
    return (
        config.swa == 0
        and config.patience > 0
        and history[-1].epoch - best.epoch >= config.patience
        # An epoch that was not validated cannot have failed to improve.
        and not math.isnan(history[-1].raw)
    )


def _line(epoch: Epoch, config: FitConfig) -> str:
    text = f"epoch {epoch.epoch}/{config.epochs}  loss {epoch.loss:.4f}"
    if not math.isnan(epoch.raw):
        text += f"  raw {epoch.raw:.4f}  suppressed {epoch.suppressed:.4f}"
    return f"{text}  {epoch.images_per_s:.0f} images/s"

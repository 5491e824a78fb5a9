"""One training run: data -> folds -> network -> epochs scored on held-out tiles -> the best weights, under contract."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from engine.console import say
from engine.errors import ModelError, PlanError
from engine.version import VERSION
from trainers.augment import policy
from trainers.batches import Batches
from trainers.config import FitConfig
from trainers.contract import contract_of, save_network
from trainers.data import Dataset, load
from trainers.files import refuse_existing, sha256_of
from trainers.folds import assign_folds
from trainers.losses import capped_pos_weight, make_loss
from trainers.losses.base import Target
from trainers.models import architecture, build_model
from trainers.optimizer import make_optimizer
from trainers.progress import Progress
from trainers.records import Epoch, paths_of, write_records
from trainers.validate import evaluate, predict, score_name


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        path: the network's file.
        best_epoch: the epoch whose weights were kept, from 1.
        raw: its validation score as the labels come; NaN without validation.
        suppressed: its validation score with the ignored class suppressed; NaN without validation.
        images_per_s: median over the epochs.
        seconds: seconds of the whole run.
    """

    path: Path
    best_epoch: int
    raw: float
    suppressed: float
    images_per_s: float
    seconds: float


def fit(config: FitConfig, overwrite: bool = False) -> FitResult:
    """Train one network and write it with its records.

    Args:
        config: the run.
        overwrite: replace results that are already there.

    Raises:
        EngineError: options, data or outputs do not fit; nothing has been written then.
    """
    config = prepared(config)
    refuse_existing(paths_of(config), overwrite)
    return fit_dataset(config, load_for(config))


def prepared(config: FitConfig) -> FitConfig:
    """Return the run with the hashes of its files, after checking every name in it.

    Raises:
        EngineError: a name is unknown, or a file cannot be read.
    """
    specialist = architecture(config.arch).specialist
    if specialist != (config.class_id is not None):
        wanted = (
            "needs --class-id, the class it is to know" if specialist else "knows all classes: leave --class-id out"
        )
        raise PlanError(f"{config.arch} {wanted}")
    policy(config.augment)
    make_loss(config.loss, Target(classes=2, class_id=config.class_id))
    groups = sha256_of(Path(config.groups)) if config.groups else ""
    return replace(config, data_sha256=sha256_of(Path(config.data)), groups_sha256=groups)


def load_for(config: FitConfig) -> Dataset:
    """Return the data of a run, cut down to ``max_tiles`` when that is set.

    Raises:
        EngineError: the data do not fit, or the run names a class that they do not have.
    """
    data = load(Path(config.data), Path(config.groups) if config.groups else None, config.class_names)
    for name, value in (("class-id", config.class_id), ("ignored-class", config.ignored_class)):
        if value is not None and value >= len(data.class_names):
            raise PlanError(f"{name}: {value}; the data have classes 0 to {len(data.class_names) - 1}")
    if 0 < config.max_tiles < len(data):
        chosen = np.random.default_rng((config.seed, 1)).permutation(len(data))[: config.max_tiles]
        data = data.take(np.sort(chosen))
    if data.groups is None and not config.train_all:
        say("note: no groups given: tiles are split at random, and where they overlap the score is optimistic")
    return data


def fit_dataset(config: FitConfig, data: Dataset) -> FitResult:
    """Train one network on data already read and write it with its records."""
    started = time.perf_counter()
    keras.utils.set_random_seed(config.seed)
    training, held_out = split(config, data)
    model = build_model(
        config.arch,
        config.preset,
        input_shape=data.images.shape[1:],
        classes=len(data.class_names),
        dropout=config.dropout,
    )
    history, best = _train(config, model, training, held_out)
    speed = float(np.median([epoch.images_per_s for epoch in history]))
    title = score_name(config)
    notes: dict[str, str | float | int | bool] = {"run": config.hash, "best_epoch": best.epoch}
    if held_out is not None:
        notes |= {"validation_score": title, "validation_raw": best.raw, "validation_suppressed": best.suppressed}
    seconds = time.perf_counter() - started
    result = {
        **notes,
        "training_tiles": len(training),
        "validation_tiles": 0 if held_out is None else len(held_out),
        "parameters": model.count_params(),
        "seconds": round(seconds, 2),
        "images_per_s": round(speed, 2),
        "maskfuse": VERSION,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
    }
    write_records(config, history, held_out, result, title)
    # Last of all: where the network is, the run is complete.
    save_network(Path(config.out), model, contract_of(config, data, notes))
    return FitResult(Path(config.out), best.epoch, best.raw, best.suppressed, speed, seconds)


def split(config: FitConfig, data: Dataset) -> tuple[Dataset, Dataset | None]:
    """Return training and held-out tiles; None for the latter when the run trains on all."""
    if config.train_all:
        return data, None
    fold = assign_folds(data.labels, data.groups, config.folds, config.seed, len(data.class_names))
    return data.take(np.flatnonzero(fold != config.fold)), data.take(np.flatnonzero(fold == config.fold))


def target_of(config: FitConfig, training: Dataset) -> Target:
    """Return what the loss is asked for.

    The specialist of the ignored class learns from that class's pixels whatever the option says: it knows no others.
    """
    ignored = config.ignored_class if config.ignore_background and config.class_id != config.ignored_class else None
    weight = 1.0
    if config.class_id is not None:
        counts = np.bincount(training.labels.ravel(), minlength=len(training.class_names))
        total = int(counts.sum()) - (int(counts[ignored]) if ignored is not None else 0)
        positive = int(counts[config.class_id])
        weight = capped_pos_weight(positive, total - positive)
    return Target(len(training.class_names), ignored, config.class_id, weight)


def _train(
    config: FitConfig, model: keras.Model, training: Dataset, held_out: Dataset | None
) -> tuple[list[Epoch], Epoch]:
    """Run the epochs, leave the best weights in the model, and return the history and the best epoch."""
    # A twin that shares the layers is compiled, so that the model itself is saved without optimizer and loss.
    learner = keras.Model(model.inputs, model.outputs)
    steps = math.ceil(len(training) / config.batch_size)
    learner.compile(optimizer=make_optimizer(config, steps), loss=make_loss(config.loss, target_of(config, training)))
    # Slots made inside the first step would have it traced twice, which takes seconds on TensorFlow.
    learner.optimizer.build(learner.trainable_variables)
    history: list[Epoch] = []
    best: Epoch | None = None
    weights: list[NDArray[np.float32]] = []
    with Progress(config.epochs, steps, Path(config.out).stem) as progress:
        for number in range(config.epochs):
            epoch = _one_epoch(config, learner, training, held_out, number, progress)
            history.append(epoch)
            progress.line(_line(epoch, config))
            if best is None or held_out is None or _monitored(config, epoch) > _monitored(config, best):
                best, weights = epoch, learner.get_weights()
            elif config.patience and epoch.epoch - best.epoch >= config.patience:
                progress.line(f"stopped: no better score in {config.patience} epochs")
                break
    assert best is not None  # epochs is at least 1
    model.set_weights(weights)
    return history, best


def _one_epoch(
    config: FitConfig, learner: keras.Model, training: Dataset, held_out: Dataset | None, number: int, bar: Progress
) -> Epoch:
    started = time.perf_counter()
    batches = Batches(training, config, number)
    done = learner.fit(batches, initial_epoch=number, epochs=number + 1, shuffle=False, verbose=0, callbacks=[bar])
    speed = len(training) / (time.perf_counter() - started)
    loss = float(done.history["loss"][-1])
    if not math.isfinite(loss):
        raise ModelError(f"the training loss became {loss} in epoch {number + 1}; lower --learning-rate")
    raw = suppressed = math.nan
    if held_out is not None:
        raw, suppressed = evaluate(config, predict(learner, held_out, config.batch_size), held_out)
    rate = float(keras.ops.convert_to_numpy(learner.optimizer.learning_rate))
    return Epoch(number + 1, loss, raw, suppressed, rate, speed, time.perf_counter() - started)


def _monitored(config: FitConfig, epoch: Epoch) -> float:
    return epoch.raw if config.monitor == "raw" else epoch.suppressed


def _line(epoch: Epoch, config: FitConfig) -> str:
    text = f"epoch {epoch.epoch}/{config.epochs}  loss {epoch.loss:.4f}"
    if not math.isnan(epoch.raw):
        text += f"  raw {epoch.raw:.4f}  suppressed {epoch.suppressed:.4f}"
    return f"{text}  {epoch.images_per_s:.0f} images/s"

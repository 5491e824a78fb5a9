"""One training run: data -> folds -> network -> epochs scored on validation tiles -> best weights, with contract."""

from __future__ import annotations

import hashlib
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from engine.errors import EngineError, InputError, PlanError
from engine.sources.placement import find_placement
from engine.sources.spec import split_key
from engine.utils.console import say
from engine.version import VERSION
from trainers.augment import transforms_of
from trainers.checkpoint import require_space
from trainers.config import FitConfig
from trainers.contract import contract_of, keys_of_unseen, read_contract, save_network
from trainers.data import Dataset, load
from trainers.files import sha256_of
from trainers.folds import assign_folds
from trainers.learner import finished, make_learner
from trainers.loop import steps_of, train
from trainers.losses import capped_pos_weight, make_loss
from trainers.losses.base import Target
from trainers.losses.weighted_cross_entropy import class_weights
from trainers.names import check_architecture
from trainers.options import check_training
from trainers.records import refuse_results, write_records
from trainers.soft import check_soft, is_soft, load_extra, with_soft
from trainers.validate import score_name


@dataclass(frozen=True)
class FitResult:
    """The result of a run.

    Attributes:
        path: the network's file.
        best_epoch: the epoch whose weights were kept, from 1.
        raw: its validation score without suppression; NaN without validation.
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


def fit(config: FitConfig, overwrite: bool = False, resume: bool = False) -> FitResult:
    """Train one network and write it with its records.

    Args:
        config: the run.
        overwrite: replace existing results.
        resume: resume from the checkpoint of this run, if there is one.

    Raises:
        EngineError: options, data or outputs do not fit; nothing has been written then.
    """
    config = prepared(config)
    refuse_results(config, overwrite, resume)
    return fit_dataset(config, load_for(config), resume)


def is_finished(config: FitConfig) -> bool:
    """Return whether the network of this run exists; it is written last, so its records exist as well."""
    path = Path(config.out)
    try:
        return path.is_file() and read_contract(path).notes.get("run") == config.hash
    except EngineError:
        return False


def prepared(config: FitConfig) -> FitConfig:
    """Return the run with the hashes of its files, after checking every name in it.

    Raises:
        EngineError: a name is unknown, a file cannot be read, or is not the recorded one.
    """
    check_architecture(config.arch, config.class_id)
    transforms_of(config.augment)
    check_training(config)
    make_loss(config.loss, Target(classes=2, class_id=config.class_id))
    check_soft(config)
    hard = config.extra and not is_soft(Path(config.extra))
    if hard and (config.ignored_class is None or not config.ignore_background):
        raise PlanError(
            "extra: unconfident pixels carry the ignored class, which this run would learn; "
            "give --ignored-class and --ignore-background"
        )
    for path, digest in HASHED.items():
        config = _hashed(config, path, digest)
    return config


#: Files that determine the weights, and the run's fields for their hashes.
HASHED = {
    "data": "data_sha256",
    "groups": "groups_sha256",
    "extra": "extra_sha256",
    "soft": "soft_sha256",
    "start_from": "start_sha256",
}


def _hashed(config: FitConfig, path: str, digest: str) -> FitConfig:
    file, recorded = getattr(config, path), getattr(config, digest)
    found = _digest(file, keyed=path == "groups") if file else ""
    if recorded and found != recorded:
        raise InputError(
            f"{file or path}: not the file recorded for this run (SHA-256 {found[:12] or 'none'}, recorded "
            f"{recorded[:12]}); give that file, or a run without {digest}"
        )
    changed: dict[str, Any] = {digest: found}
    return replace(config, **changed)


def _digest(file: str, keyed: bool) -> str:
    """Return the SHA-256 of a file, and of the key behind it if there is one."""
    place, key = split_key(file) if keyed else (Path(file), "")
    found = sha256_of(place)
    return hashlib.sha256(f"{found}:{key}".encode()).hexdigest() if key else found


def load_for(config: FitConfig) -> Dataset:
    """Return the data of a run, limited to ``max_tiles`` if that is set.

    Raises:
        EngineError: the data do not fit, or the run names a class that they do not have.
    """
    data = load(Path(config.data), config.groups or None, config.class_names)
    for name, value in (("class-id", config.class_id), ("ignored-class", config.ignored_class)):
        if value is not None and value >= len(data.class_names):
            raise PlanError(f"{name}: {value}; the data have classes 0 to {len(data.class_names) - 1}")
    if config.soft:
        data = with_soft(data, Path(config.soft))
    if 0 < config.max_tiles < len(data):
        chosen = np.random.default_rng((config.seed, 1)).permutation(len(data))[: config.max_tiles]
        data = data.take(np.sort(chosen))
    return data if data.groups is not None or config.train_all else grouped(data, config.folds)


def grouped(data: Dataset, folds: int) -> Dataset:
    """Return tiles without groups with those that follow from the pixels they share, and say so.

    Tiles cut from one picture with overlap are one group; a split at random would put pixels that were trained on into
    the validation tiles.
    """
    placement = find_placement(data.images)
    pictures = len(placement.images)
    if pictures == len(data):
        say("note: no groups given, and no tiles share pixels (by equal ones): they are split at random")
        return data
    told = f"no groups given: {len(data):,} tiles share pixels and make {pictures:,} pictures"
    if pictures < folds:
        say(f"warning: {told}, too few for {folds} folds: tiles are split at random, so the score is optimistic")
        return data
    say(f"note: {told}, which are the groups of the folds")
    return replace(data, groups=placement.picture)


def fit_dataset(config: FitConfig, data: Dataset, resume: bool = False) -> FitResult:
    """Train one network on data that are already read and write it with its records.

    Raises:
        EngineError: the data do not fit the run, or a result cannot be written.
    """
    started = time.perf_counter()
    keras.utils.set_random_seed(config.seed)
    training, held_out = split(config, data)
    shape = data.images.shape[1:]
    learner = make_learner(config, shape, target_of(config, training), steps_of(config, training))
    require_space(config, learner.trained.count_params())
    trained = train(config, learner, training, held_out, checkpoints=True, resume=resume)
    history, best = trained.history, trained.best
    model = finished(config, learner, trained.weights, shape)
    speed = float(np.median([epoch.images_per_s for epoch in history]))
    title = score_name(config)
    notes: dict[str, str | float | int | bool] = {"run": config.hash, "best_epoch": best.epoch}
    if trained.averaged:
        notes["averaged_epochs"] = trained.averaged
    if training.soft is not None:
        notes |= {"soft_weight": config.soft_weight, "temperature": config.temperature}
    if config.teacher:
        notes["teacher"] = config.teacher
    if held_out is not None:
        notes |= {"validation_score": title, "validation_raw": best.raw, "validation_suppressed": best.suppressed}
        notes |= {"fold": config.fold, "folds": config.folds, "held_out_tiles": len(held_out)}
        if held_out.groups is not None:
            notes["held_out_groups"] = len(np.unique(held_out.groups))
    unseen = keys_of_unseen(held_out, training)
    seconds = time.perf_counter() - started
    result = {
        **notes,
        "held_out": unseen,
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
    # Last of all: if the network exists, the run is complete.
    save_network(Path(config.out), model, contract_of(config, data, notes, unseen))
    config.checkpoint.unlink(missing_ok=True)
    return FitResult(Path(config.out), best.epoch, best.raw, best.suppressed, speed, seconds)


def split(config: FitConfig, data: Dataset) -> tuple[Dataset, Dataset | None]:
    """Return training and validation tiles; None for the latter if the run trains on all.

    The run's extra tiles are only among the training tiles.

    Raises:
        InputError: the data cannot be split into so many folds, or the extra tiles do not match them.
    """
    training, held_out = data, None
    if not config.train_all:
        fold = assign_folds(data.labels, data.groups, config.folds, config.seed, len(data.class_names))
        training, held_out = (
            data.take(np.flatnonzero(chosen)) for chosen in (fold != config.fold, fold == config.fold)
        )
    counts = training.counts
    absent = [name for k, name in enumerate(data.class_names) if counts[k] == 0 and k != config.ignored_class]
    if absent and config.class_id is None:
        say(f"note: no pixel of {', '.join(absent)} in the training tiles: that class cannot be learned")
    if config.extra:
        training = training.joined(load_extra(Path(config.extra), data.class_names), Path(config.extra))
    return training, held_out


def target_of(config: FitConfig, training: Dataset) -> Target:
    """Return the target of the loss.

    The specialist of the ignored class always learns from that class's pixels: it has no others.
    """
    ignored = config.ignored_class if config.ignore_background and config.class_id != config.ignored_class else None
    weight = 1.0
    counts = training.counts
    if config.class_id is not None:
        total = int(counts.sum()) - (int(counts[ignored]) if ignored is not None else 0)
        positive = int(counts[config.class_id])
        weight = capped_pos_weight(positive, total - positive)
    weights = class_weights(counts.tolist(), ignored)
    soft = training.soft is not None
    return Target(len(training.class_names), ignored, config.class_id, weight, weights, soft)

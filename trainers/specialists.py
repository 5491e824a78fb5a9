"""One specialist for every class, in one folder and one group, resumable after an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras

from engine.errors import InputError
from engine.utils.console import say
from trainers.config import FitConfig
from trainers.data import Dataset
from trainers.files import refuse_existing
from trainers.fit import FitResult, fit_dataset, is_finished, load_for, prepared, split


def fit_specialists(config: FitConfig, folder: Path, overwrite: bool = False) -> Iterator[FitResult]:
    """Train ``k0.keras``, ``k1.keras`` and so on, and yield each result as it is done.

    A finished network of the same run and data is skipped, an unfinished one goes on from its checkpoint. One of
    another run is never lost: it is an error, unless ``overwrite`` is given, which starts an unfinished one again.

    Args:
        config: the run of any one class; ``out``, ``class_id`` and ``group`` are filled in for each.
        folder: where the networks go.
        overwrite: replace networks of other runs.

    Raises:
        EngineError: options, data or outputs do not fit; it is raised before anything is trained.
    """
    config = prepared(config)
    data = load_for(config)
    runs = specialist_runs(config, folder, data)
    waiting = [run for run in runs if not is_finished(run)]
    for run in waiting:
        # Records without a network are those of an interrupted run: only a network can be lost.
        refuse_existing([Path(run.out)], overwrite)
    _require_every_class(config, data, [run.class_id or 0 for run in waiting])
    for run in runs:
        if run not in waiting:
            say(f"{run.out}: already finished (run {run.hash}), skipped")
            continue
        yield fit_dataset(run, data, resume=not overwrite)
        # Five graphs in one process would add up.
        keras.utils.clear_session()


def specialist_runs(config: FitConfig, folder: Path, data: Dataset) -> list[FitConfig]:
    """Return the run of every class; all share one group, named after the folder and what the runs have in common."""
    common = replace(config, class_id=0, group="")
    digest = hashlib.sha256(common.hash.encode()).hexdigest()[:8]
    group = f"{folder.resolve().name[:150]}-{digest}"
    return [
        replace(
            config,
            class_id=k,
            group=group,
            out=str(folder / f"k{k}.keras"),
            # The specialist of the ignored class knows nothing but those pixels.
            ignore_background=config.ignore_background and k != config.ignored_class,
        )
        for k in range(len(data.class_names))
    ]


def _require_every_class(config: FitConfig, data: Dataset, classes: list[int]) -> None:
    """Refuse before the first network is trained what the last one would fail on."""
    training, _ = split(config, data)
    counts = training.counts
    missing = [data.class_names[k] for k in classes if counts[k] == 0]
    if missing:
        raise InputError(
            f"no pixel of {', '.join(missing)} among the training tiles; a specialist needs some: add tiles"
        )

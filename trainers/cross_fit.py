"""One network per fold in one folder: together they are one member of an ensemble, see :mod:`engine.models.folds`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras

from engine.errors import PlanError
from engine.utils.console import say
from trainers.config import FitConfig
from trainers.files import refuse_existing
from trainers.fit import FitResult, fit_dataset, is_finished, load_for, prepared, split


def fit_folds(config: FitConfig, folder: Path, overwrite: bool = False) -> Iterator[FitResult]:
    """Train ``ARCH-fold0.keras``, ``ARCH-fold1.keras`` and so on, and yield each result as it is done.

    Each network states the tiles that it was not trained on. A finished network of the same run and data is skipped,
    an unfinished one goes on from its checkpoint. One of another run is never lost: it is an error, unless
    ``overwrite`` is given, which starts an unfinished one again.

    Args:
        config: the run of any one fold; ``out`` and ``fold`` are filled in for each, see :meth:`FitConfig.of_fold`.
        folder: where the networks go.
        overwrite: replace networks of other runs.

    Raises:
        EngineError: options, data or outputs do not fit; it is raised before anything is trained.
    """
    if config.train_all:
        raise PlanError("train-all: no tiles would be held out by any fold; omit it")
    runs = [prepared(config.of_fold(folder, fold)) for fold in range(config.folds)]
    first = load_for(runs[0])
    # Too few groups for the folds are refused before anything is written.
    split(runs[0], first)
    waiting = [run for run in runs if not is_finished(run)]
    for run in waiting:
        # Records without a network are those of an interrupted run: only a network can be lost.
        refuse_existing([Path(run.out)], overwrite)
    for run in runs:
        if run not in waiting:
            say(f"{run.out}: already finished (run {run.hash}), skipped")
            continue
        say(f"fold {run.fold + 1} of {run.folds}")
        yield fit_dataset(run, first if run.soft == runs[0].soft else load_for(run), resume=not overwrite)
        # The graphs of all folds in one process would add up.
        keras.utils.clear_session()

"""The state of an unfinished run: written atomically after every epoch, read by ``--resume``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError, PlanError
from engine.utils.boundary import refusing
from trainers.config import PLACES, FitConfig
from trainers.files import replacing
from trainers.records import Epoch

_HISTORY, _CONFIG = "history", "config"
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class State:
    """The state that a run resumes from.

    Attributes:
        history: the epochs done.
        best: the best of them.
        weights: the network's weights after that one.
        average: mean of the weights of the epochs that are averaged, so far; empty without any.
        averaged: epochs in it.
    """

    history: list[Epoch]
    best: Epoch
    weights: list[NDArray[np.float32]]
    average: list[NDArray[np.float32]] = field(default_factory=list)
    averaged: int = 0


def save(config: FitConfig, trained: keras.Model, state: State) -> None:
    """Write the checkpoint of a run.

    Args:
        config: the run.
        trained: the compiled network as the next epoch finds it, with its optimizer.
        state: the epochs done and the best weights.

    Raises:
        OutputError: there is no space, or the folder cannot be written to; the checkpoint before stays as it was.
    """
    arrays: dict[str, Any] = {
        _CONFIG: np.array(config.to_toml()),
        _HISTORY: np.array(json.dumps([asdict(epoch) for epoch in state.history])),
        "best_epoch": np.array(state.best.epoch),
        **_numbered("variable", [keras.ops.convert_to_numpy(item) for item in _variables(trained)]),
        **_numbered("best", state.weights),
        **_numbered("average", state.average),
        "averaged": np.array(state.averaged),
    }
    with replacing(config.checkpoint) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)


def load(config: FitConfig, trained: keras.Model) -> State | None:
    """Restore a compiled network from its checkpoint; None if there is no checkpoint.

    Raises:
        InputError: the checkpoint is damaged.
        PlanError: it belongs to another run; the message names the options that differ.
    """
    path = config.checkpoint
    if not path.is_file():
        return None
    with refusing(lambda why: f"{path}: damaged ({why}); delete it and start again"):
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        require_same_run(config, FitConfig.from_toml(str(arrays[_CONFIG])), path)
        history = [Epoch(**epoch) for epoch in json.loads(str(arrays[_HISTORY]))]
        best = history[int(arrays["best_epoch"]) - 1]
        for variable, value in zip(_variables(trained), _listed("variable", arrays), strict=True):
            variable.assign(value)
        averaged = int(arrays.get("averaged", np.array(0)))
    return State(history, best, _listed("best", arrays), _listed("average", arrays), averaged)


def require_same_run(config: FitConfig, other: FitConfig, path: Path) -> None:
    """Refuse to resume from the checkpoint of another run.

    Raises:
        PlanError: the runs differ.
    """
    names = [item.name for item in fields(config) if item.name not in PLACES]
    differing = [name for name in names if getattr(config, name) != getattr(other, name)]
    if differing:
        told = ", ".join(
            f"{name.replace('_', '-')} {getattr(other, name)!r} there, {getattr(config, name)!r} here"
            for name in differing[:3]
        )
        raise PlanError(f"{path}: belongs to another run ({told}); give its options, or --overwrite to start again")


def require_space(config: FitConfig, parameters: int) -> None:
    """Refuse to start a run whose checkpoint would not fit on the disk.

    Args:
        config: the run.
        parameters: weights of the network.

    Raises:
        OutputError: with the free and the required space.
    """
    # Weights, the optimizer's two slots, the best weights, the average; twice, since the old file stays until the
    # new one is whole; and the network itself.
    copies = 2 * (4 + (config.ema > 0) + (config.swa > 0)) + 1
    needed = 4 * parameters * copies + _MEBIBYTE
    folder = next(above for above in config.checkpoint.absolute().parents if above.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder}: {free / _MEBIBYTE:.1f} MiB free, checkpoints need {needed / _MEBIBYTE:.1f} MiB; "
            "free some space or choose another --out"
        )


def _variables(trained: keras.Model) -> Sequence[Any]:
    """Return everything that an epoch changes: weights, dropout seeds and the optimizer's slots."""
    return [*trained.variables, *trained.optimizer.variables]


def _numbered(name: str, values: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{name}_{place}": value for place, value in enumerate(values)}


def _listed(name: str, arrays: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    count = sum(key.startswith(f"{name}_") and key != "best_epoch" for key in arrays)
    return [arrays[f"{name}_{place}"] for place in range(count)]

"""Files next to the network: record of the run, history as table and plot, and validation tiles."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainers.config import FitConfig
from trainers.data import Dataset
from trainers.files import refuse_existing, replacing

ENDINGS = ("run.toml", "history.csv", "history.png")
VALIDATION = "validation.npz"


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; ``raw`` and ``suppressed`` are NaN without validation.

    Attributes:
        epoch: number, from 1.
        loss: mean training loss of the epoch.
        raw: validation score without suppression.
        suppressed: validation score with the ignored class suppressed (or its pixels left out, for a specialist).
        learning_rate: rate at the end of the epoch.
        images_per_s: training tiles per second.
        seconds: seconds of training and scoring.
    """

    epoch: int
    loss: float
    raw: float
    suppressed: float
    learning_rate: float
    images_per_s: float
    seconds: float


def paths_of(config: FitConfig) -> list[Path]:
    """Return every file that a run writes."""
    beside = [config.beside(ending) for ending in ENDINGS]
    return [Path(config.out), *beside, *([] if config.train_all else [config.beside(VALIDATION)])]


#: What to do about an existing file, by the end of its name.
_HINTS = {"checkpoint.npz": "give --resume to continue it or --overwrite to start again"}


def refuse_results(config: FitConfig, overwrite: bool, resume: bool) -> None:
    """Refuse a run whose results exist or cannot be written.

    Args:
        config: the run.
        overwrite: replace existing results.
        resume: resume from the checkpoint of this run, if there is one.

    Raises:
        OutputError: naming the file and what to do.
    """
    # Records next to a checkpoint are from a run that ended after them and before its network.
    again = resume and config.checkpoint.is_file()
    results = [Path(config.out)] if again else [config.checkpoint, *paths_of(config)]
    refuse_existing(results, overwrite, hint=_HINTS)


def write_records(
    config: FitConfig, history: Sequence[Epoch], held_out: Dataset | None, result: dict[str, Any], title: str
) -> None:
    """Write the files next to the network, each atomically.

    Args:
        config: the run.
        history: its epochs.
        held_out: the validation tiles, or None if all were used for training.
        result: scalars for the table ``result`` of ``run.toml``.
        title: name of the score, for the plot.

    Raises:
        OutputError: a file cannot be written.
    """
    with replacing(config.beside("run.toml")) as partial:
        partial.write_text(config.to_toml(result=result), encoding="utf-8")
    with replacing(config.beside("history.csv")) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(asdict(history[0])))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in history)
    with replacing(config.beside("history.png")) as partial:
        draw_history(partial, history, int(result["best_epoch"]), f"{Path(config.out).name}: {title}")
    if held_out is not None:
        write_validation(config.beside(VALIDATION), held_out)


def write_validation(path: Path, held_out: Dataset) -> None:
    """Write the validation tiles: ``images``, ``labels``, ``index`` into the data file, and ``groups`` if known."""
    arrays: dict[str, Any] = {
        "images": held_out.images[..., 0] if held_out.images.shape[-1] == 1 else held_out.images,
        "labels": held_out.labels,
        "index": held_out.index,
    }
    if held_out.groups is not None:
        arrays["groups"] = held_out.groups
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def draw_history(path: Path, history: Sequence[Epoch], best: int, title: str) -> None:
    """Draw loss and scores over the epochs as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    scored = not all(np.isnan(epoch.suppressed) for epoch in history)
    figure = Figure(figsize=(10 if scored else 5.5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    epochs = [epoch.epoch for epoch in history]
    panels[0].plot(epochs, [epoch.loss for epoch in history], marker=".", color="#444444")
    panels[0].set_ylabel("training loss (nats per pixel)")
    if scored:
        # Dashed over solid: both stay visible where they agree.
        for name, colour, style in (("raw", "#c0562f", "-"), ("suppressed", "#1f6f8b", "--")):
            values = [(epoch.epoch, getattr(epoch, name)) for epoch in history if not np.isnan(epoch.suppressed)]
            panels[1].plot(*zip(*values, strict=True), marker=".", color=colour, linestyle=style, label=name)
        panels[1].axvline(best, color="#999999", linestyle=":", linewidth=1, label=f"best epoch ({best})")
        panels[1].set_ylabel("validation score")
        panels[1].legend(frameon=False)
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=110)

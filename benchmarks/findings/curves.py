"""Draws docs/curves.png, how the members' networks learn, and docs/steps.png, what each step to the ensemble gains."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.findings.place import Place
from benchmarks.findings.systems import System

DOCS = Path(__file__).resolve().parents[2] / "docs"
INK, GREY, COLOURS = "#333333", "#999999", ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def history(network: Path) -> list[dict[str, str]]:
    """Return a row for each epoch that a network was trained for."""
    with network.with_suffix("").with_suffix(".history.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def seconds_of(network: Path) -> float:
    """Return how long a network was trained: the median epoch's time for each of them, so that no pause counts."""
    seconds = [float(row["seconds"]) for row in history(network)]
    return statistics.median(seconds) * len(seconds)


def draw_curves(place: Place, members: Sequence[System], path: Path) -> None:
    """Draw the validation score of every epoch, a line a fold, from the histories of the runs."""
    from matplotlib.figure import Figure

    columns = min(len(members), 2)
    lines = -(-len(members) // columns)
    figure = Figure(figsize=(8, 0.6 + 2.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axis, system, colour in zip(axes, members, COLOURS, strict=False):
        for network in place.networks(system):
            rows = history(network)
            epochs, scores = [int(row["epoch"]) for row in rows], [float(row["suppressed"]) for row in rows]
            axis.plot(epochs, scores, color=colour, linewidth=1, alpha=0.8)
            fold = network.stem.rpartition("fold")[2]
            axis.annotate(fold, (epochs[-1], scores[-1]), xytext=(3, 0), textcoords="offset points", fontsize=7)
        axis.set_title(system.title, fontsize=9, color=INK)
        axis.set_xlabel("epoch")
        axis.grid(color="#eeeeee")
    figure.supylabel("MIoU of the fold held out", fontsize=9, color=INK)
    _save(figure, path)


def draw_steps(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the gain of each step with its 95 % interval over panoramas."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = [row for row in rows if "gain" in row]
    figure = Figure(figsize=(8, 0.5 + 0.45 * len(shown)), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(reversed(shown)):
        gain, low, high = row["gain"]
        axis.plot([low, high], [place, place], color=GREY, linewidth=3, solid_capstyle="butt")
        axis.plot([gain], [place], "o", color=COLOURS[0])
        axis.annotate(f"{gain:+.4f}", (gain, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7)
    axis.axvline(0, color=INK, linewidth=0.8)
    # The number of the row that each gain is over stands in the table.
    names = [f"{row['title']} (over row {row['over'] + 1})" for row in reversed(shown)]
    axis.set_yticks(range(len(shown)), names, fontsize=8)
    axis.set_ylim(-0.6, len(shown) - 0.2)
    figure.supxlabel("gain in MIoU, out of fold, with its 95 % interval over panoramas", fontsize=9, color=INK)
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.grid(axis="x", color="#eeeeee")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})

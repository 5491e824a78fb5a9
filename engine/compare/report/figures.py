"""The plots of the page, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

import numpy as np

from engine.compare.report.svg import FIRST, GAIN, INK, LINE, LOSS, MUTED, SECOND, axes, inline
from engine.compare.result import Curve, Facts, Row
from engine.metrics import class_iou
from engine.utils.palette import colours

MOST_CLASSES = 24
MOST_NAMED_CURVES = 8
# Bins with a smaller share of the pixels are not drawn.
LEAST_BIN = 0.001
# Lines of members: Okabe and Ito's colours that are visible on both white and black.
LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7fd1", "#8c8c8c")


# Width in inches: on a desktop, and on a phone.
WIDE, NARROW = 8.2, 3.6
# Position of a legend that does not fit into its plot.
BESIDE: dict[str, Any] = {"bbox_to_anchor": (1.02, 1.0), "loc": "upper left"}


def short(name: str, most: int = 22) -> str:
    """Return a name that fits beside a plot."""
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _most(narrow: bool) -> int:
    """Return how many letters of a name stand beside a plot: on a phone, more would make all of them smaller."""
    return 13 if narrow else 22


def steps(facts: Facts, narrow: bool = False) -> str:
    """Draw the ablation: start and end of each step."""
    figure, plot = axes(NARROW if narrow else WIDE, 0.42 * len(facts.ablation) + 0.7)
    before = facts.ablation[0].value
    for place, step in enumerate(facts.ablation):
        if place:
            colour = GAIN if step.change >= 0 else LOSS
            plot.barh(place, step.value - before, left=before, height=0.5, color=colour, alpha=0.85)
            plot.plot([before, before], [place - 1, place + 0.25], color=MUTED, lw=0.8)
        plot.plot([step.low, step.high], [place, place], color=INK, lw=1, alpha=0.5)
        plot.plot(step.value, place, "o", color=INK, ms=4)
        told = f"{step.value:.3f}" + ("" if isnan(step.change) else f"  ({step.change:+.3f})")
        beside = max(step.high, step.value, before) if place else step.high
        if not narrow:
            near: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            plot.annotate(told, (beside, place), fontsize=9, color=INK, **near)
        before = step.value
    plot.set_yticks(range(len(facts.ablation)), [step.name for step in facts.ablation])
    plot.invert_yaxis()
    plot.grid(axis="y", visible=False)
    low, high = plot.get_xlim()
    plot.set_xlim(low, high + (0.0 if narrow else 0.16) * (high - low))
    plot.set_xlabel(f"MIoU ({facts.metric})")
    plot.tick_params(axis="y", length=0)
    return inline(figure, in_width("steps", narrow), "Score after each step of the pipeline")


def class_scores(facts: Facts, rows: Sequence[Row], narrow: bool = False) -> str:
    """Draw the IoU of each class for a few rows."""
    order = _classes_shown(facts)
    figure, plot = axes(NARROW if narrow else WIDE, 0.36 * len(order) + 1.0)
    ignored = None if facts.ignored_class < 0 else facts.ignored_class
    looks = ((FIRST, "o"), (SECOND, "s"), (MUTED, "D"))
    values = [class_iou(np.array(row.confusion), "labelled", ignored) for row in rows]
    for place, index in enumerate(order):
        found = [own[index] for own in values if not isnan(own[index])]
        if found:
            plot.plot([min(found), max(found)], [place, place], color=LINE, lw=3, zorder=1)
    for own, row, (colour, marker) in zip(values, rows, looks, strict=False):
        label = f"{short(row.name)}, {row.state}"
        plot.plot(own[order], range(len(order)), marker, color=colour, ms=7, ls="", label=label, zorder=3)
    plot.set_yticks(range(len(order)), [short(facts.classes[index], _most(narrow)) for index in order])
    plot.set_ylim(len(order) - 0.5, -0.5)
    plot.set_xlim(-0.02, 1.02)
    plot.grid(axis="y", visible=False)
    plot.tick_params(axis="y", length=0)
    plot.set_xlabel("IoU (pixels of the ignored class not counted)" if ignored is not None else "IoU")
    columns = 1 if narrow else len(rows)
    plot.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, labelcolor=MUTED, handletextpad=0.3)
    return inline(figure, in_width("classes", narrow), "IoU of each class")


def _classes_shown(facts: Facts) -> list[int]:
    """Return the scored classes; if there are many, those with the most pixels."""
    pixels = np.array(facts.rows[0].confusion).sum(axis=1)
    order = [index for index in range(len(facts.classes)) if index != facts.ignored_class]
    kept = sorted(order, key=lambda index: -pixels[index])[:MOST_CLASSES]
    return sorted(kept)


def reliability(facts: Facts, narrow: bool = False) -> str:
    """Draw accuracy against confidence of each member and of the mean of all."""
    figure, plot = axes(NARROW if narrow else 4.6, 4.1)
    plot.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)))
    # Members that output labels have no curve.
    names = {member.name for member in facts.members}
    count = next((at for at, curve in enumerate(facts.curves) if curve.name not in names), len(facts.curves) - 1)
    members, mean, after = facts.curves[:count], facts.curves[count], facts.curves[count + 1 :]
    for index, curve in enumerate(members):
        named = len(members) <= MOST_NAMED_CURVES
        colour = LINES[index % len(LINES)] if named else MUTED
        label = f"{short(curve.name, 18)}  {curve.error:.3f}" if named else None
        plot.plot(curve.confidence, _told(curve), color=colour, lw=1.2, alpha=0.9 if named else 0.4, label=label)
    plot.plot(mean.confidence, _told(mean), color=INK, lw=2.4, label=f"{mean.name}  {mean.error:.3f}")
    for curve in after:
        label = f"{curve.name}  {curve.error:.3f}"
        plot.plot(curve.confidence, _told(curve), color=INK, lw=2.0, ls=(0, (1, 1)), label=label)
    plot.set_xlim(0, 1)
    plot.set_ylim(0, 1)
    plot.set_aspect("equal")
    plot.set_xlabel("confidence")
    plot.set_ylabel("accuracy")
    _legend(plot, "calibration error", -0.16 if narrow else None)
    return inline(figure, in_width("reliability", narrow), "Accuracy against confidence of each member")


def risk_coverage(facts: Facts, narrow: bool = False) -> str:
    """Draw the error of the pixels with the least doubt against their share, for each map of doubt."""
    figure, plot = axes(NARROW if narrow else 6.4, 3.6)
    every = next((curve.risk[-1] for curve in facts.risk_curves if curve.risk), 0.0)
    shown = np.linspace(0.01, 1, 200)
    best = np.maximum(0, 1 - (1 - every) / shown)
    plot.plot(shown, best, color=MUTED, lw=1, ls=(0, (4, 3)), label="all wrong pixels last")
    for index, curve in enumerate(facts.risk_curves):
        label = f"{curve.name}  {curve.area:.4f}"
        plot.plot(curve.coverage, curve.risk, color=LINES[index % len(LINES)], lw=1.8, label=label)
    plot.set_xlim(0, 1)
    plot.set_ylim(0, None)
    for axis in (plot.xaxis, plot.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.3g}" if value < 0.01 and value else f"{value:.0%}")
    plot.set_xlabel("pixels with a class, those with the least doubt")
    plot.set_ylabel("wrong among them")
    _legend(plot, "map of doubt, AURC", -0.2 if narrow else None)
    return inline(figure, in_width("risk", narrow), "Error of the pixels with the least doubt against their share")


def _legend(plot: Any, title: str, below: float | None) -> None:
    """Add a legend with a title beside the plot, or so far below it."""
    where: dict[str, Any] = BESIDE
    if below is not None:
        where = {"bbox_to_anchor": (0.5, below), "loc": "upper center", "ncols": 1}
    plot.legend(title=title, labelcolor=MUTED, alignment="left", **where)
    plot.get_legend().get_title().set_color(MUTED)


def in_width(name: str, narrow: bool) -> str:
    """Return the name of a figure in one of its two widths; the ids inside begin with it."""
    return name + "-narrow" if narrow else name


def _told(curve: Curve) -> list[float]:
    """Return the accuracy of the bins with enough pixels."""
    return [own if weight >= LEAST_BIN else nan for own, weight in zip(curve.accuracy, curve.weight, strict=True)]


def disputed(facts: Facts, narrow: bool = False) -> str:
    """Draw, per class, how many members disagree with the mean of all."""
    held = [(value, index) for index, value in enumerate(facts.disputed_by_class) if not isnan(value)]
    held = sorted(held, reverse=True)[:MOST_CLASSES]
    figure, plot = axes(NARROW if narrow else 4.6, 0.36 * len(held) + 0.7)
    palette = colours(len(facts.classes))
    for place, (value, index) in enumerate(held):
        colour = "#{:02x}{:02x}{:02x}".format(*palette[index])
        plot.barh(place, value, height=0.6, color=colour, ec=MUTED, lw=0.7)
        plot.text(value + 0.005, place, f"{value:.1%}", va="center", fontsize=9, color=INK)
    plot.set_yticks(range(len(held)), [short(facts.classes[index], _most(narrow)) for _, index in held])
    plot.invert_yaxis()
    plot.set_xlim(0, 1.18 * max((value for value, _ in held), default=1.0) + 0.01)
    plot.grid(axis="y", visible=False)
    plot.tick_params(axis="y", length=0)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plot.set_xlabel("members that disagree with the mean of all")
    return inline(figure, in_width("disputed", narrow), "Share of members that disagree with the mean of all, by class")


def shares(facts: Facts, narrow: bool = False) -> str:
    """Draw how often every member and strategy predicts each class, suppressed if a class is."""
    state = "suppressed" if any(row.state == "suppressed" for row in facts.rows) else "raw"
    rows = [row for row in facts.rows if row.state == state]
    figure, plot = axes(NARROW if narrow else 9.0, 0.3 * len(rows) + 0.6)
    left = np.zeros(len(rows))
    for index, colour in enumerate(colours(len(facts.classes))):
        values = np.array([row.share[index] for row in rows])
        if values.any():
            plot.barh(range(len(rows)), values, left=left, height=0.7, color="#{:02x}{:02x}{:02x}".format(*colour))
            left += values
    plot.set_yticks(range(len(rows)), [short(row.name, _most(narrow)) for row in rows])
    plot.invert_yaxis()
    plot.set_xlim(0, 1)
    plot.grid(axis="y", visible=False)
    plot.tick_params(axis="y", length=0)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plot.set_xlabel(f"share of all pixels ({state})")
    return inline(figure, in_width("shares", narrow), "How often each class is predicted")

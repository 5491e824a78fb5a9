"""The plots of the page, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

import numpy as np

from engine.compare.report.svg import CELL, FIRST, GAIN, INK, LINE, LOSS, MUTED, PAPER, SECOND, axes, inline
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
WIDE, NARROW = 8.2, 4.3
# Position of a legend that does not fit into its plot.
BESIDE: dict[str, Any] = {"bbox_to_anchor": (1.02, 1.0), "loc": "upper left"}
# Above this share of the darkest shade a cell's number has the colour of the page.
DARK_CELL = 0.62


def short(name: str, most: int = 22) -> str:
    """Return a name that fits beside a plot."""
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


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
            plot.text(beside + 0.006, place, told, va="center", fontsize=9, color=INK)
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
    plot.set_yticks(range(len(order)), [short(facts.classes[index]) for index in order])
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


def confusion(facts: Facts, row: Row, name: str) -> str:
    """Draw a confusion matrix as shares of each true class."""
    matrix = np.array(row.confusion, np.float64)
    pixels = matrix.sum(axis=1)
    order = sorted(sorted(range(len(pixels)), key=lambda index: -pixels[index])[:MOST_CLASSES])
    true = [index for index in order if pixels[index]]
    shares = matrix[np.ix_(true, order)] / pixels[true][:, None]
    figure, plot = axes(0.52 * len(order) + 1.4, 0.42 * len(true) + 0.9)
    _matrix(plot, shares, [facts.classes[i] for i in true], [facts.classes[i] for i in order])
    plot.set_ylabel("true")
    plot.set_xlabel("predicted")
    return inline(figure, name, f"Confusion matrix of {row.name}, {row.state}")


def _matrix(plot: object, shares: np.ndarray, down: Sequence[str], across: Sequence[str], floor: float = 0.0) -> None:
    """Draw cells, darker the further they are above ``floor``, each with its value in percent."""
    from matplotlib.patches import Rectangle

    for (y, x), share in np.ndenumerate(shares):
        shade = 0.0 if isnan(share) else float(np.clip((share - floor) / (1 - floor), 0, 1))
        plot.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fc=CELL, alpha=0.06 + 0.9 * shade, lw=0))  # type: ignore[attr-defined]
        if len(across) <= 12:
            told = "-" if isnan(share) else f"{100 * share:.0f}"
            colour = PAPER if shade > DARK_CELL else INK
            plot.text(x, y, told, ha="center", va="center", fontsize=9, color=colour, weight="bold")  # type: ignore[attr-defined]
    plot.set_xlim(-0.5, len(across) - 0.5)  # type: ignore[attr-defined]
    plot.set_ylim(len(down) - 0.5, -0.5)  # type: ignore[attr-defined]
    plot.set_xticks(range(len(across)), [short(n, 16) for n in across], rotation=35, ha="right", rotation_mode="anchor")  # type: ignore[attr-defined]
    plot.set_yticks(range(len(down)), [short(n, 16) for n in down])  # type: ignore[attr-defined]
    plot.tick_params(length=0)  # type: ignore[attr-defined]
    plot.grid(visible=False)  # type: ignore[attr-defined]
    for spine in plot.spines.values():  # type: ignore[attr-defined]
        spine.set_visible(False)


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
    where: dict[str, Any] = {"bbox_to_anchor": (0.5, -0.16), "loc": "upper center", "ncols": 2} if narrow else BESIDE
    plot.legend(title="calibration error", labelcolor=MUTED, alignment="left", **where)
    plot.get_legend().get_title().set_color(MUTED)
    return inline(figure, in_width("reliability", narrow), "Accuracy against confidence of each member")


def in_width(name: str, narrow: bool) -> str:
    """Return the name of a figure in one of its two widths; the ids inside begin with it."""
    return name + "-narrow" if narrow else name


def _told(curve: Curve) -> list[float]:
    """Return the accuracy of the bins with enough pixels."""
    return [own if weight >= LEAST_BIN else nan for own, weight in zip(curve.accuracy, curve.weight, strict=True)]


def agreement(facts: Facts) -> str:
    """Draw the share of pixels on which two members agree."""
    names = [member.name for member in facts.members]
    figure, plot = axes(0.52 * len(names) + 1.4, 0.42 * len(names) + 0.9)
    shares = np.array(facts.agreement)
    # Nets of one task agree on most pixels: starting the shades just below the lowest agreement shows more.
    least = float(np.nanmin(shares)) if np.isfinite(shares).any() else 0.0
    _matrix(plot, shares, names, names, max(0.0, np.floor(10 * least) / 10 - 0.1))
    return inline(figure, "agreement", "Share of pixels on which two members agree, in percent")


def disputed(facts: Facts) -> str:
    """Draw, per class, how many members disagree with the mean of all."""
    held = [(value, index) for index, value in enumerate(facts.disputed_by_class) if not isnan(value)]
    held = sorted(held, reverse=True)[:MOST_CLASSES]
    figure, plot = axes(4.6, 0.36 * len(held) + 0.7)
    palette = colours(len(facts.classes))
    for place, (value, index) in enumerate(held):
        colour = "#{:02x}{:02x}{:02x}".format(*palette[index])
        plot.barh(place, value, height=0.6, color=colour, ec=MUTED, lw=0.7)
        plot.text(value + 0.005, place, f"{value:.1%}", va="center", fontsize=9, color=INK)
    plot.set_yticks(range(len(held)), [short(facts.classes[index]) for _, index in held])
    plot.invert_yaxis()
    plot.set_xlim(0, 1.18 * max((value for value, _ in held), default=1.0) + 0.01)
    plot.grid(axis="y", visible=False)
    plot.tick_params(axis="y", length=0)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plot.set_xlabel("members that disagree with the mean of all")
    return inline(figure, "disputed", "Share of members that disagree with the mean of all, by class")


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
    plot.set_yticks(range(len(rows)), [short(row.name) for row in rows])
    plot.invert_yaxis()
    plot.set_xlim(0, 1)
    plot.grid(axis="y", visible=False)
    plot.tick_params(axis="y", length=0)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plot.set_xlabel(f"share of all pixels ({state})")
    return inline(figure, in_width("shares", narrow), "How often each class is predicted")

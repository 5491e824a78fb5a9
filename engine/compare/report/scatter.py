"""Score against images/s, one point per member or strategy and state, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isnan
from typing import Any

from engine.compare.report.figures import NARROW, in_width, short
from engine.compare.report.svg import FIRST, INK, MUTED, PAPER, SECOND, axes, inline
from engine.compare.result import Facts, Row

MARKERS = {"raw": "o", "suppressed": "s", "tuned": "D"}
FONT = 8.5
# Average width of a letter relative to the font size.
LETTER = 0.56
DOTS_A_POINT = 100 / 72
# Numbers that fit below the axis.
MOST_TICKS, MOST_NARROW_TICKS = 12, 5


def throughput(facts: Facts, narrow: bool = False) -> str:
    """Draw score (agreement without labels) against images/s, with the Pareto front."""
    figure, plot = axes(NARROW if narrow else 9.4, 4.4)
    rates = [row.rate for row in facts.rows]
    scored = bool(facts.labels)
    values = [row.scores[facts.metric].value if scored else row.agreement for row in facts.rows]
    front = pareto(rates, values)
    told = _named_rows(facts.rows, values, front)
    for index, (row, rate, value) in enumerate(zip(facts.rows, rates, values, strict=True)):
        colour = FIRST if row.member < 0 else SECOND
        if scored and index in told:
            found = row.scores[facts.metric]
            plot.plot([rate, rate], [found.low, found.high], color=colour, lw=1.2, alpha=0.45, zorder=1)
        mark: dict[str, Any] = {"mec": colour, "mfc": PAPER if row.state == "raw" else colour}
        plot.plot(rate, value, MARKERS[row.state], ms=6.5, mew=1.4, zorder=3, alpha=0.9, **mark)
    path = [rates[i] for i in front], [values[i] for i in front]
    plot.plot(*path, color=INK, lw=1.1, alpha=0.75, zorder=2, drawstyle="steps-post")
    plot.set_xscale("log")
    ends = min(rates) / 1.3, max(rates) * 1.3
    plot.set_xlim(*ends)
    _plain_ticks(plot, *ends, MOST_NARROW_TICKS if narrow else MOST_TICKS)
    points = list(zip(rates, values, strict=True))
    _name_points(plot, points, front, [(index, _row_name(facts.rows[index])) for index in told])
    plot.set_xlabel("images/s")
    plot.set_ylabel(f"MIoU ({facts.metric})" if scored else "agreement with mean-prob")
    _key(plot, sorted({row.state for row in facts.rows}, key=list(MARKERS).index), 3 if narrow else 6)
    return inline(figure, in_width("throughput", narrow), "Score against images per second, with the Pareto front")


def pareto(rates: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return the indices of the points that no other beats in both respects, the fastest first."""
    order = sorted(range(len(rates)), key=lambda index: (-rates[index], -values[index]))
    front: list[int] = []
    for index in order:
        if not isnan(values[index]) and (not front or values[index] > values[front[-1]]):
            front.append(index)
    return front


def _named_rows(rows: Sequence[Row], values: Sequence[float], front: Sequence[int]) -> list[int]:
    """Return the points that get a label: the best of each member or strategy on the front, and the best strategy."""
    strategies = [index for index, row in enumerate(rows) if row.member < 0 and not isnan(values[index])]
    wanted = [*front, *sorted(strategies, key=lambda index: -values[index])[:1]]
    best: dict[str, int] = {}
    for index in wanted:
        name = rows[index].name
        if name not in best or values[index] > values[best[name]]:
            best[name] = index
    return sorted(best.values(), key=lambda index: -values[index])


def _row_name(row: Row) -> str:
    return f"{short(row.name)}, {row.state}"


def _plain_ticks(plot: Any, low: float, high: float, most: int) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    for parts in ((1, 2, 5), (1, 5), (1,)):
        steps = [m * 10.0**e for e in range(-3, 7) for m in parts if low <= m * 10.0**e <= high]
        if len(steps) <= most:
            break
    axis = plot.xaxis
    axis.set_major_locator(FixedLocator(steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _name_points(
    plot: Any, points: Sequence[tuple[float, float]], front: Sequence[int], names: Sequence[tuple[int, str]]
) -> None:
    """Write names beside points, each where it overlaps points and front least, and no other name."""
    dots: list[tuple[float, float]] = [tuple(plot.transData.transform(point)) for point in points]
    for before, after in pairwise([dots[index] for index in front]):
        parts = [part / 12 for part in range(1, 13)]
        dots += [(before[0] + part * (after[0] - before[0]), before[1]) for part in parts]
        dots += [(after[0], before[1] + part * (after[1] - before[1])) for part in parts]
    (left, low), (right, high) = plot.transAxes.transform([(0, 0), (1, 1)])
    taken: list[tuple[float, float, float, float]] = []
    for index, name in names:
        x, y = dots[index]
        width, height = len(name) * FONT * LETTER * DOTS_A_POINT, 1.3 * FONT * DOTS_A_POINT
        places = [
            (x + dx + (0 if dx > 0 else -width if dx < 0 else -width / 2), y + dy)
            for reach in (1.0, 2.0, 3.0)
            for dx, dy in ((11, 0), (-11, 0), (0, 15 * reach), (0, -15 * reach), (11, 13 * reach), (-11, 13 * reach),
                           (11, -13 * reach), (-11, -13 * reach))
        ]  # fmt: skip
        boxes = [(px, py - height / 2, px + width, py + height / 2) for px, py in places]

        def cost(box: tuple[float, float, float, float], x: float = x, y: float = y) -> float:
            outside = max(0, left - box[0]) + max(0, box[2] - right) + max(0, low - box[1]) + max(0, box[3] - high)
            covered = sum(box[0] - 5 < a < box[2] + 5 and box[1] - 4 < b < box[3] + 4 for a, b in dots)
            met = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
            away = abs((box[1] + box[3]) / 2 - y) + max(0.0, box[0] - x, x - box[2])
            return 10 * outside + 3 * covered + 50 * met + 0.25 * away

        box = min(boxes, key=cost)
        taken.append(box)
        at = plot.transData.inverted().transform((box[0], (box[1] + box[3]) / 2))
        plot.text(*at, name, fontsize=FONT, va="center", ha="left", color=INK, zorder=4)


def _key(plot: Any, states: Sequence[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, marker: str, colour: str, hollow: bool = False) -> Line2D:
        return Line2D([], [], ls="", marker=marker, color=colour, mfc=PAPER if hollow else colour, label=label)

    handles = [mark("strategy", "o", FIRST), mark("single member", "o", SECOND)]
    handles += [mark(state, MARKERS[state], MUTED, state == "raw") for state in states]
    handles.append(Line2D([], [], color=INK, lw=1.1, label="Pareto front"))
    look: dict[str, Any] = {"labelcolor": MUTED, "handletextpad": 0.3, "columnspacing": 1.1}
    plot.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, **look)

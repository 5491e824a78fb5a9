"""Output of ``engine compare``: a table and the ablation, or JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan, nan
from pathlib import Path

from rich.table import Table
from rich.text import Text

from engine.compare.folding import Folded, folded
from engine.compare.result import Comparison, Estimate, Facts, RiskCurve, Row
from engine.compare.runfile import plain
from engine.metrics import CONVENTIONS
from engine.utils import console
from engine.utils.console import plain_table

# Terminals at least this wide show all conventions, narrower ones only the metric.
WIDE = 132
# More class shares than this appear only in JSON and CSV.
MOST_SHARES = 6
# Coverages that the error is told at.
KEPT = (0.5, 0.8, 0.9, 1.0)
SHORT = {"raw": "raw", "suppressed": "suppr.", "tuned": "tuned"}


def print_comparison(done: Comparison, form: str, out: Path | None, everything: bool = False) -> None:
    """Print a comparison on stdout as ``table``, ``json`` or ``csv``, and remarks on stderr.

    Args:
        done: the comparison.
        form: of the three.
        out: the run file that was written, or None.
        everything: whether the table lists rows with the same scores as another one.
    """
    facts = done.facts
    if form == "json":
        print(json.dumps(as_dict(facts), indent=2, allow_nan=False))
    elif form == "csv":
        print(as_csv(facts), end="")
    else:
        screen = console.stdout()
        scored = rows_table(facts, screen.width, everything) if facts.labels else unlabelled_table(facts, everything)
        screen.print(scored)
        if facts.ablation:
            screen.print(ablation_table(facts))
        if facts.curves:
            screen.print(calibration_table(facts))
        if facts.risk_curves:
            screen.print(abstaining_table(facts))
            screen.print(bounds_table(facts))
        if facts.labels and screen.width < WIDE:
            console.say(f"conventions other than {facts.metric}: --json, --csv, or a terminal of {WIDE} columns")
    if facts.trap:
        console.say(f"warning: {facts.trap}")
    if out is not None:
        console.say(f"wrote {out}")


def verdict(gain: Estimate) -> str:
    """Return in words whether a difference is distinguishable from chance."""
    if isnan(gain.gain_low):
        return "unknown"
    if gain.gain_low > 0:
        return "better"
    return "worse" if gain.gain_high < 0 else "may be chance"


def rows_table(facts: Facts, width: int, everything: bool = False) -> Table:
    """Return one row per member or strategy and state, the best first and marked."""
    baseline = facts.rows[facts.baseline[facts.metric]]
    drawn = f"{facts.groups:,} groups" if facts.groups else f"{facts.images:,} images"
    table = plain_table(f"MIoU on {facts.images:,} images; {facts.level:.0%} intervals over {drawn}; best first")
    table.collapse_padding = True
    table.add_column("member\nor strategy", overflow="fold", min_width=16)
    table.add_column("\nstate", no_wrap=True)
    table.add_column("\nimages/s", justify="right", no_wrap=True)
    shown = sorted(CONVENTIONS if width >= WIDE else [facts.metric], key=lambda name: name != facts.metric)
    best = {name: max((row.scores[name].value for row in facts.rows), default=0.0) for name in shown}
    for name in shown:
        table.add_column(name.replace("-", "-\n") if "-" in name else f"\n{name}", justify="right")
        if name == facts.metric:
            table.add_column("\ninterval", no_wrap=True)
            table.add_column("difference to the\nbest single member", justify="right", no_wrap=True)
    for index, item in enumerate(shown_rows := folded(facts.rows, shown, everything)):
        row, cells = item.row, []
        for name in shown:
            found = row.scores[name]
            cells.append(Text(_score(found.value), style="bold" if found.value == best[name] else ""))
            if name == facts.metric:
                own = facts.baseline[name] in item.places
                cells += [Text(_ends(found)), Text("this member" if own else _gain(found))]
        state = (row.state if width >= WIDE else SHORT[row.state]) + "*" * bool(item.others)
        table.add_row(Text(row.name), state, f"{row.rate:,.0f}", *cells, style="" if index else "bold")
    held = ", ".join(facts.classes[index] for index in facts.suppressed)
    told = [f"best: {facts.rows[0].name}, {facts.rows[0].state}; best single member: {baseline.name}, {baseline.state}"]
    if held:
        told.append(f"{SHORT['suppressed'] if width < WIDE else 'suppressed'}: never predicting {held}; tuned likewise")
    told.append(facts.void)
    told += _told_folded(shown_rows)
    if facts.left_out:
        told.append(facts.left_out)
    told.append(f"tuned: with class biases for {facts.metric}, cross-fitted in {facts.folds} folds")
    table.caption, table.caption_justify = "\n".join(told), "left"
    return table


def _told_folded(rows: Sequence[Folded]) -> list[str]:
    hidden = sum(len(item.places) - 1 for item in rows)
    return [f"*: scores are those of others too ({hidden:,} rows; --all lists them)"] if hidden else []


def ablation_table(facts: Facts) -> Table:
    """Return one row per step."""
    table = plain_table(f"One step at a time ({facts.metric})")
    for title, justify in (
        ("step", "left"),
        ("", "left"),
        ("MIoU", "right"),
        ("change", "right"),
        ("images/s", "right"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for step in facts.ablation:
        change = "" if isnan(step.change) else f"{step.change:+.3f} [{step.change_low:+.3f},{step.change_high:+.3f}]"
        table.add_row(step.name, Text(step.detail), _score(step.value), change, f"{step.rate:,.0f}")
    table.caption = (
        "selection, bias and clean-up are cross-fitted: each image is scored by choices made without its fold"
    )
    table.caption_justify = "left"
    return table


def calibration_table(facts: Facts) -> Table:
    """Return one row per member, of their mean, and of the mean calibrated: calibration error and Brier score."""
    drawn = f"{facts.groups:,} groups" if facts.groups else f"{facts.curve_images:,} images"
    table = plain_table(f"Calibration of probabilities on {facts.curve_images:,} images; intervals over {drawn}")
    table.add_column("probabilities of", overflow="fold")
    for title in ("calibration error", "interval", "Brier score", "interval"):
        table.add_column(title, justify="right", no_wrap=True)
    for curve in facts.curves:
        cells = [_score(curve.error), f"{_score(curve.error_low)}-{_score(curve.error_high)}"]
        cells += [_score(curve.brier), f"{_score(curve.brier_low)}-{_score(curve.brier_high)}"]
        table.add_row(Text(curve.name), *cells)
    return table


def abstaining_table(facts: Facts) -> Table:
    """Return one row per map of doubt: the area under its risk-coverage curve, and the error at some coverages."""
    drawn = f"{facts.groups:,} groups" if facts.groups else f"{facts.images:,} images"
    table = plain_table(f"Wrong pixels among those with the least doubt (mean-prob); intervals over {drawn}")
    table.add_column("map of doubt", overflow="fold")
    for title in ("AURC", "interval", *(f"{share:.0%} kept" for share in KEPT)):
        table.add_column(title, justify="right", no_wrap=True)
    for curve in facts.risk_curves:
        cells = [_score(curve.area), f"{_score(curve.area_low)}-{_score(curve.area_high)}"]
        table.add_row(Text(curve.name), *cells, *(_share(risk_at(curve, share)) for share in KEPT))
    table.caption = (
        f"AURC: area under the risk-coverage curve; {_score(facts.risk_curves[0].least)} if all wrong pixels came last"
    )
    table.caption_justify = "left"
    return table


def bounds_table(facts: Facts) -> Table:
    """Return one row per risk: the threshold of entropy that bounds it on new groups, or why there is none."""
    groups = facts.groups or facts.images
    table = plain_table(f"Thresholds for --unknown: conformal risk control over {groups:,} groups (entropy, mean-prob)")
    for title in ("risk of a new group", "threshold", "pixels with a class"):
        table.add_column(title, justify="right")
    table.add_column("", overflow="fold")
    for bound in facts.risk_bounds:
        cells = ["-", "-"] if bound.told else [f"{bound.threshold:.4f}", _share(bound.coverage)]
        table.add_row(f"{bound.alpha:g}", *cells, Text(bound.told))
    told = "risk: expected share of a new group's pixels that have a class, and a wrong one"
    table.caption = f"{told};\nassumed: new groups are drawn like these (exchangeable)"
    table.caption_justify = "left"
    return table


def risk_at(curve: RiskCurve, share: float) -> float:
    """Return the error among the pixels with the least doubt, so many that they are this share of all."""
    return next((r for c, r in zip(curve.coverage, curve.risk, strict=True) if c >= share - 1e-9), nan)


def _share(value: float) -> str:
    return "-" if isnan(value) else f"{value:.1%}"


def unlabelled_table(facts: Facts, everything: bool = False) -> Table:
    """Return speed, agreement with the mean of all, and class shares."""
    mean = "vote" if facts.left_out else "mean-prob"
    table = plain_table(f"{facts.images:,} images without labels: speed, agreement with {mean}, share of each class")
    table.collapse_padding = True
    table.add_column("member\nor strategy", overflow="fold", min_width=16)
    table.add_column("\nstate", no_wrap=True)
    for title in ("\nimages/s", "\nagrees"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = range(len(facts.classes)) if len(facts.classes) <= MOST_SHARES else []
    for index in shown:
        table.add_column(Text(facts.classes[index]), justify="right", overflow="fold", max_width=6)
    rows = folded(facts.rows, (), everything)
    for item in rows:
        row, shares = item.row, [f"{item.row.share[index]:.1%}" for index in shown]
        state = SHORT[row.state] + "*" * bool(item.others)
        table.add_row(Text(row.name), state, f"{row.rate:,.0f}", f"{row.agreement:.1%}", *shares)
    told = [*_told_folded(rows), *([facts.left_out] if facts.left_out else [])]
    table.caption, table.caption_justify = "\n".join(told) or None, "left"
    return table


def as_dict(facts: Facts) -> dict[str, object]:
    """Return the comparison as plain JSON types; NaN is null."""
    found: dict[str, object] = plain(asdict(facts))
    for index, row in enumerate(found["rows"]):  # type: ignore[arg-type, var-annotated]
        row["best"] = bool(facts.labels) and index == 0
    return found


def as_csv(facts: Facts) -> str:
    """Return one line per member or strategy, state and convention; without labels per member or strategy and state."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    head = ["name", "kind", "state", "images_per_second", "agreement"]
    scored = ["convention", "miou", "low", "high", "difference", "difference_low", "difference_high", "best"]
    write([*head, *(scored if facts.labels else (f"share {name}" for name in facts.classes))])
    for row in facts.rows:
        start = [row.name, "strategy" if row.member < 0 else "member", row.state, f"{row.rate:.3f}"]
        start.append(f"{row.agreement:.6f}")
        if not facts.labels:
            write([*start, *(f"{share:.6f}" for share in row.share)])
        for convention, found in row.scores.items():
            values = (found.value, found.low, found.high, found.gain, found.gain_low, found.gain_high)
            numbers = ["" if isnan(value) else f"{value:.6f}" for value in values]
            write([*start, convention, *numbers, "yes" if _is_best(facts, row, convention) else ""])
    return text.getvalue()


def _is_best(facts: Facts, row: Row, convention: str) -> bool:
    return row is max(facts.rows, key=lambda other: -1.0 if isnan(value := other.scores[convention].value) else value)


def _score(value: float) -> str:
    return "-" if isnan(value) else f"{value:.4f}"


def _ends(found: Estimate) -> str:
    return "-" if isnan(found.low) else f"{found.low:.3f}-{found.high:.3f}"


def _gain(found: Estimate) -> str:
    return "-" if isnan(found.gain) else f"{found.gain:+.3f} [{found.gain_low:+.3f},{found.gain_high:+.3f}]"

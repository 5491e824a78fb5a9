"""Tables of the command line: scores of a run or an evaluation, and contracts of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np
from rich.table import Table
from rich.text import Text

from engine.bootstrap import Interval
from engine.evaluate import Borders
from engine.fusion.strategies import STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.metrics import CONVENTIONS, Score, class_iou, dice_of, precision_recall
from engine.models.external_data import model_size
from engine.models.opening import CONTRACT, Opened
from engine.runs.outcome import Outcome
from engine.scores.surfaces import HD95
from engine.sources.coding import told_left_out
from engine.utils.console import plain_table
from engine.utils.sides import told_size

SHOWN = ("keras-ignore", "labelled")


def scores_table(outcome: Outcome, ensemble: Ensemble) -> Table:
    """Return one row per member and strategy, raw and suppressed: images/s and MIoU; the best in bold."""
    suppress = ensemble.variant.decoding.suppress
    table = plain_table(_title(outcome, ensemble))
    table.add_column("member\nor strategy", overflow="fold", min_width=max(map(len, STRATEGIES)))
    table.add_column("\nimages/s", justify="right")
    states = ["raw", "suppressed"] if suppress else ["raw"]
    columns = [(convention, state) for convention in SHOWN for state in states]
    for convention, state in columns:
        table.add_column(f"{convention if state == 'raw' else ''}\n{state}", justify="right")
    cells: dict[str, dict[tuple[str, str], float]] = {}
    rates: dict[str, float] = {}
    names = list(dict.fromkeys([*STRATEGIES, ensemble.variant.strategy]))
    order: list[Variant] = sorted(
        outcome.scores, key=lambda v: (v.member is None, v.member or 0, names.index(v.strategy))
    )
    for variant in order:
        if variant.decoding.bias:
            continue
        name = ensemble.variant_name(variant)
        state = "suppressed" if variant.decoding.suppress else "raw"
        rates[name] = max(outcome.rate(variant), rates.get(name, 0.0))
        for convention in SHOWN:
            score = outcome.scores[variant].mean_iou(convention)
            cells.setdefault(name, {})[convention, state] = score
    best = {column: max((row.get(column, -1.0) for row in cells.values()), default=-1.0) for column in columns}
    members = len(ensemble.members)
    for index, (name, row) in enumerate(cells.items()):
        shown = [_cell(row.get(column), best[column]) for column in columns]
        table.add_row(name, f"{rates[name]:,.0f}", *shown, end_section=index == members - 1)
    return table


def left_out(outcome: Outcome, ensemble: Ensemble) -> str:
    """Say in one line which class the scores of a run leave out, and what was void."""
    void = ensemble.coding.told_void(len(ensemble.classes))
    return told_left_out(ensemble.ignored_class, ensemble.classes, void, void_pixels(outcome, ensemble))


def void_pixels(outcome: Outcome, ensemble: Ensemble) -> int:
    """Return how many pixels of the run's images are void."""
    own = outcome.scores.get(ensemble.variant)
    return 0 if own is None else outcome.pixels - int(own.confusion.sum())


def _title(outcome: Outcome, ensemble: Ensemble) -> str:
    held = sorted(ensemble.variant.decoding.suppress)
    told = f"; suppressed: {', '.join(ensemble.classes[i] for i in held)}" if held else ""
    return f"MIoU on {outcome.images:,} images by convention{told}"


def _cell(value: float | None, best: float) -> Text:
    if value is None or isnan(value):
        return Text("-")
    return Text(f"{value:.4f}", style="bold" if value == best else "")


def classes_table(score: Score, names: Sequence[str], convention: str = "labelled") -> Table:
    """Return one row per class: counted pixels, IoU, Dice, precision, recall."""
    table = plain_table(f"Classes ({convention})")
    for title in ("class", "pixels", "IoU", "Dice", "precision", "recall"):
        table.add_column(title, justify="left" if title == "class" else "right")
    iou = class_iou(score.confusion, convention, score.ignored_class)
    precision, recall = precision_recall(score.confusion, convention, score.ignored_class)
    pixels = score.confusion.sum(axis=1)
    for index, name in enumerate(names):
        values = [iou[index], dice_of(iou)[index], precision[index], recall[index]]
        # Unnamed classes are called "class 3": no second number before that.
        shown = name if name == f"class {index}" else f"{index} {name}"
        table.add_row(Text(shown), f"{pixels[index]:,}", *(_cell(float(v), np.inf) for v in values))
    return table


def borders_table(borders: Borders, names: Sequence[str], ignored_class: int | None) -> Table:
    """Return one row per class with its scores of borders, and their mean; with intervals where there are groups."""
    table = plain_table("Borders (every pixel but void)")
    for title in ("class", "Dice", "boundary IoU", "HD95, pixels", "surface Dice", "in both", "in one map"):
        table.add_column(title, justify="left" if title == "class" else "right")
    counts, images = borders.counts, len(borders.counts.above)
    for index in range(-1, len(names)):
        values = borders.mean if index < 0 else borders.values[index]
        cells = []
        for metric, value in enumerate(values.tolist()):
            text = "-" if isnan(value) else f"{value:.2f}" if metric == HD95 else f"{value:.4f}"
            if borders.low is not None and borders.high is not None and not isnan(value):
                low, high = borders.low[index + 1, metric], borders.high[index + 1, metric]
                text += f"\n{low:.2f} to {high:.2f}" if metric == HD95 else f"\n{low:.3f} to {high:.3f}"
            cells.append(text)
        if index < 0:
            told = "mean" if ignored_class is None else f"mean without {names[ignored_class]}"
            table.add_row(Text(told), *cells, "", "")
            continue
        lone = int(counts.lone[index])
        both = images - lone - int(counts.absent[index])
        table.add_row(Text(f"{index} {names[index]}"), *cells, f"{both:,}", f"{lone:,}")
    return table


def borders_note(borders: Borders) -> str:
    """Say in one line which definitions these are."""
    rules = borders.counts.rules
    lone = "the image's diagonal" if rules.missing == "diagonal" else "infinite"
    return (
        f"Dice and boundary IoU (within {rules.width:g} of the diagonal; Cheng 2021): sums over images; HD95 (the "
        f"greater directed one) and surface Dice within {rules.tolerance:g} pixels: means over images with the class; "
        f"in one map alone: HD95 {lone}, surface Dice 0; in neither: left out"
    )


def conventions_table(score: Score, intervals: Mapping[str, Interval] | None = None) -> Table:
    """Return the MIoU under every convention, with its bootstrap interval if there is one."""
    table = plain_table("MIoU by convention")
    table.add_column("convention")
    table.add_column("MIoU", justify="right")
    if intervals:
        first = next(iter(intervals.values()))
        table.add_column(f"{first.level:.0%} interval over {first.groups} groups")
    for name in CONVENTIONS:
        found = intervals.get(name) if intervals else None
        cells = [] if found is None else [f"{found.low:.4f} to {found.high:.4f}"]
        table.add_row(name, _cell(score.mean_iou(name), np.inf), *cells)
    return table


def contracts_table(opened: Sequence[Opened]) -> Table:
    """Return one row per model with its contract; the classes follow below, only once if all models agree."""
    table = plain_table()
    for title in ("model", "kind", "input", "output", "ignored", "size"):
        table.add_column(title, overflow="fold")
    listed: dict[tuple[str, ...], list[str]] = {}
    for item in opened:
        held = item.found.fields
        stride, size = held.get("stride", 1), held.get("size")
        sides = told_size(size) if size else "any size" if stride == 1 else f"any size that {stride} divides"
        kind = held.get("architecture") or held.get("kind", "multiclass")
        classes = held.get("classes", ())
        if held.get("class_id") is not None:
            kind += f"\nspecialist of {held['class_id']} ({classes[held['class_id']]})"
        if unseen := len(held.get("held_out", ())):
            kind += f"\nnot trained on {unseen:,} tiles of its data"
        scale = f"x{held['scale']:.4g}" if "scale" in held else "scale ?"
        ignored = held.get("ignored_class")
        table.add_row(
            Text(item.path.stem),
            Text(kind),
            f"{held.get('input_layout', '?')} {sides}\n{held.get('channels', '?')} ch, {scale}",
            f"{held.get('output_layout', '?')}\n{held.get('activation', '?')}",
            "none" if ignored is None else str(ignored),
            f"{model_size(item.path) / 1e6:.2f} MB",
        )
        listed.setdefault(tuple(classes), []).append(item.path.stem)
    for names, models in listed.items():
        text = ", ".join(f"{index} {name}" for index, name in enumerate(names)) or "unknown"
        table.caption = (f"{table.caption}\n" if table.caption else "") + (
            f"classes: {text}" if len(listed) == 1 else f"classes of {', '.join(models)}: {text}"
        )
    table.caption_justify = "left"
    return table


def remarks(opened: Sequence[Opened]) -> list[str]:
    """Return lines about models: adaptations, other metadata, open questions; equal lines only once."""
    lines: dict[str, list[str]] = {}
    for item in opened:
        origins = {
            origin for origin in item.found.origins.values() if origin != CONTRACT and not origin.startswith("--")
        }
        own = [f"adapted: {text}" for text in item.adapted] + [f"warning: {text}" for text in item.warnings]
        own += [f"read from {', '.join(sorted(origins))}"] if origins else []
        own += [f"{name}: {text}" for name, text in item.notes.items()]
        for line in (*own, *(f"open: {question}" for question in item.questions)):
            lines.setdefault(line, []).append(item.path.name)
    ordered = sorted(lines, key=lambda line: line.startswith("open: "))
    return [f"{', '.join(lines[line])}: {line}" for line in ordered]

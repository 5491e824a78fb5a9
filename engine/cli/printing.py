"""Printing of results: tables or JSON on stdout, remarks on stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf, nan
from typing import Any

import numpy as np
from rich.text import Text

from engine.bench import Benched
from engine.cli.tables import (
    SHOWN,
    borders_note,
    borders_table,
    classes_table,
    conventions_table,
    left_out,
    scores_table,
    void_pixels,
)
from engine.evaluate import Borders, ClassScore, Evaluation
from engine.inference.ensemble import Ensemble
from engine.metrics import CONVENTIONS, class_iou, counted, dice_of, find_trap, precision_recall
from engine.outputs.vector_files import VECTOR_FORMS
from engine.runs.durable.resume import incomplete_output, skipped_list
from engine.runs.image_job import Job
from engine.runs.outcome import Outcome
from engine.scores.libraries import named_library, score_as
from engine.scores.risk import Coverage
from engine.scores.surfaces import METRICS
from engine.utils import console
from engine.utils.console import plain_table
from engine.utils.numbers import json_number

# Some images could not be predicted and were left out, as --on-bad-image skip allows.
INCOMPLETE = 3


def report(job: Job, outcome: Outcome, as_json: bool) -> int:
    """Print the results on stdout and the class-0 trap on stderr; return exit code 0, or 3 if images are missing."""
    if as_json:
        print(json.dumps(as_dict(outcome, job.ensemble), indent=2))
    elif outcome.scores:
        console.stdout().print(scores_table(outcome, job.ensemble))
        console.stdout().print(Text(left_out(outcome, job.ensemble)))
    if outcome.ties:
        console.say(f"tied votes: {outcome.ties / outcome.pixels:.3%} of the pixels, decided by the mean probability")
    if job.ensemble.unknown is not None and outcome.pixels:
        console.say(unknown_summary(outcome, job.ensemble))
    if job.ensemble.early_exit is not None:
        console.say(early_exit_summary(outcome, job.ensemble))
    own = outcome.scores.get(job.ensemble.variant)
    trap = find_trap(own.confusion, own.ignored_class) if own is not None else None
    if trap is not None:
        console.say(f"warning: {trap}")
    if not outcome.skipped or job.output is None:
        return 0
    console.say(
        f"INCOMPLETE: {len(outcome.skipped):,} of {len(job.images):,} images could not be predicted and are missing "
        f"from {incomplete_output(job.output)}; {job.output} was not written; see {skipped_list(job.output)}"
    )
    return INCOMPLETE


def say_next(job: Job) -> None:
    """Name the command that usually follows: scores where there are none yet, else a comparison of all strategies."""
    if job.output is None or job.output.suffix.lower() in VECTOR_FORMS:
        console.say_next("engine", "bench", "--models", "MODELS", "--input", "IMAGES")
    elif job.labels is None:
        console.say_next("engine", "evaluate", job.output, "--labels", "TRUE_MASKS")
    else:
        names = ("--models", "MODELS", "--input", "IMAGES", "--labels", "TRUE_MASKS")
        console.say_next("engine", "compare", *names, "--out", "run.npz")


def coverage_of(outcome: Outcome, ensemble: Ensemble) -> Coverage | None:
    """Return how much of a run's scored pixels has a class; None without labels, or where no pixel can be unknown."""
    every = outcome.scores.get(ensemble.variant)
    if outcome.covered is None or every is None:
        return None
    matrix = counted(every.confusion, "labelled", ensemble.ignored_class)
    return Coverage.of(np.array([matrix.sum()]), outcome.covered.confusion[None], ensemble.ignored_class, None)


def unknown_summary(outcome: Outcome, ensemble: Ensemble) -> str:
    """Say in one line how many pixels are unknown and why and, with labels, what that leaves of the errors."""
    told = f"unknown: {outcome.unknown / outcome.pixels:.1%} of the pixels ({ensemble.unknown})"
    held = coverage_of(outcome, ensemble)
    if held is None or outcome.covered is None:
        return told
    score = outcome.covered.mean_iou(SHOWN[0])
    return f"{told}; {held}; MIoU ({SHOWN[0]}) of these {score:.4f}; scores in the table are of all pixels"


def early_exit_summary(outcome: Outcome, ensemble: Ensemble) -> str:
    """Print in one line what early exit saved and, if approximate, its agreement with all members."""
    most = outcome.images * len(ensemble.members)
    saved = most - sum(outcome.member_runs)
    told = f"early exit: {saved:,} of {most:,} runs of a member on an image saved ({saved / most:.1%})" if most else ""
    if outcome.compared:
        share = outcome.agreed / outcome.compared
        told += f"; {share:.3%} of the labels agree with all members ({outcome.compared:,} pixels compared)"
    return told


def as_dict(outcome: Outcome, ensemble: Ensemble) -> dict[str, Any]:
    """Return the outcome as plain JSON types."""
    rows = []
    for variant, score in outcome.scores.items():
        rows.append(
            {
                "name": ensemble.variant_name(variant),
                "suppressed": sorted(variant.decoding.suppress),
                "own": variant == ensemble.variant,
                "images_per_second": json_number(outcome.rate(variant)),
                "miou": {name: json_number(score.mean_iou(name)) for name in CONVENTIONS},
                "iou": [json_number(value) for value in class_iou(score.confusion, "labelled", ensemble.ignored_class)],
            }
        )
    return {
        "images": outcome.images,
        "seconds": round(outcome.seconds, 3),
        "images_per_second": json_number(outcome.images / outcome.seconds) if outcome.seconds else None,
        "workers": outcome.workers,
        "members": [{"name": v.name, "sha256": v.checksum} for v in ensemble.members],
        "strategy": "packed" if ensemble.is_packed else ensemble.variant.strategy,
        "suppress": sorted(ensemble.variant.decoding.suppress),
        "classes": list(ensemble.classes),
        "class_share": [
            json_number(count / outcome.pixels) if outcome.pixels else None for count in outcome.class_pixels
        ],
        "ignored_class": ensemble.ignored_class,
        "void": ensemble.coding.told_void(len(ensemble.classes)),
        "void_pixels": void_pixels(outcome, ensemble),
        "tie_rate": json_number(outcome.ties / outcome.pixels) if outcome.pixels else None,
        "scores": rows,
        **_unknown_dict(outcome, ensemble),
    }


def _unknown_dict(outcome: Outcome, ensemble: Ensemble) -> dict[str, Any]:
    if ensemble.unknown is None:
        return {}
    held, score = coverage_of(outcome, ensemble), outcome.covered
    found: dict[str, Any] = {**ensemble.unknown.record, "pixels": outcome.unknown}
    if held is not None and score is not None:
        found |= _coverage_dict(held)
        found["miou_of_kept"] = {name: json_number(score.mean_iou(name)) for name in CONVENTIONS}
    return {"unknown": found}


def print_evaluation(result: Evaluation, as_json: bool, library: str = "") -> None:
    """Print an evaluation on stdout and the class-0 trap on stderr; also the number that a library gives."""
    theirs = nan
    if library and result.matrices is not None:
        theirs = score_as(library, result.matrices, result.score.ignored_class)
    if as_json:
        more = {"as": {"library": library, "miou": json_number(theirs)}} if library else {}
        print(json.dumps({**_evaluation_dict(result), **more}, indent=2))
    else:
        out = console.stdout()
        out.print(conventions_table(result.score, result.intervals))
        out.print(classes_table(result.score, result.names))
        if result.borders is not None:
            out.print(borders_table(result.borders, result.names, result.score.ignored_class))
            out.print(Text(borders_note(result.borders)))
        out.print(Text(result.left_out))
        if result.coverage is not None:
            out.print(Text(f"{result.coverage}; the scores above are of these pixels alone"))
        if library:
            held = named_library(library)
            call = held.call if result.score.ignored_class is None or not held.ignoring else held.ignoring
            out.print(Text(f"as {call}: {'-' if theirs != theirs else f'{theirs:.4f}'}"))
    if result.missing_pixels:
        console.say(f"warning: {result.missing_pixels:,} pixels have no class in the masks (255) and are not counted")
    if result.trap is not None:
        console.say(f"warning: {result.trap}")


def _evaluation_dict(result: Evaluation) -> dict[str, object]:
    score = result.score
    precision, recall = precision_recall(score.confusion, "labelled", score.ignored_class)
    iou = class_iou(score.confusion, "labelled", score.ignored_class)
    ends = {name: [json_number(found.low), json_number(found.high)] for name, found in result.intervals.items()}
    return {
        "miou": {name: json_number(score.mean_iou(name)) for name in CONVENTIONS},
        **({"interval": ends} if ends else {}),
        "ignored_class": score.ignored_class,
        "void": result.void,
        "void_pixels": result.void_pixels,
        **({} if result.coverage is None else {"unknown": _coverage_dict(result.coverage)}),
        "classes": [
            {
                "name": name,
                "iou": json_number(i),
                "dice": json_number(d),
                "precision": json_number(p),
                "recall": json_number(r),
            }
            for name, i, d, p, r in zip(result.names, iou, dice_of(iou), precision, recall, strict=True)
        ],
        **({"borders": _borders_dict(result.borders, result.names)} if result.borders is not None else {}),
        "confusion": score.confusion.tolist(),
    }


def _coverage_dict(held: Coverage) -> dict[str, object]:
    found: dict[str, object] = {"scored_pixels": held.scored, "kept_pixels": held.kept, "wrong_pixels": held.wrong}
    found |= {"coverage": json_number(held.share), "selective_risk": json_number(held.error)}
    return found | ({"groups": held.groups, "group_risk": json_number(held.group_risk)} if held.groups else {})


def _borders_dict(borders: Borders, names: Sequence[str]) -> dict[str, object]:
    """Return scores of borders as plain JSON types; an infinite distance is the text ``infinite``."""

    def row(place: int, values: Any) -> dict[str, object]:
        found: dict[str, object] = {}
        for metric, (name, value) in enumerate(zip(METRICS, values.tolist(), strict=True)):
            found[name] = _or_infinite(value)
            if borders.low is not None and borders.high is not None:
                sides = borders.low[place, metric], borders.high[place, metric]
                found[f"{name} interval"] = [_or_infinite(float(side)) for side in sides]
        return found

    counts = borders.counts
    return {
        "tolerance": counts.rules.tolerance,
        "boundary": counts.rules.width,
        "missing": counts.rules.missing,
        "mean": row(0, borders.mean),
        "classes": [
            {"name": name, **row(index + 1, borders.values[index]), "absent": int(a), "in_one_map": int(b)}
            for index, (name, a, b) in enumerate(zip(names, counts.absent, counts.lone, strict=True))
        ],
    }


def _or_infinite(value: float) -> float | str | None:
    return "infinite" if value == inf else json_number(value)


def print_bench(found: Benched, as_json: bool) -> None:
    """Print a benchmark on stdout: tables or JSON."""
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
        return
    out = console.stdout()
    table = plain_table("Single members, each at its best setting")
    for name in ("member", "runtime", "images/s", "batch size", "threads"):
        table.add_column(name, justify="right" if name in ("images/s", "batch size") else "left")
    for member in found.members:
        table.add_row(member.name, member.runtime, f"{member.rate:,.1f}", str(member.batch_size), member.layout)
    out.print(table)
    table = plain_table("The pipeline")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("harmonic limit, images/s", f"{found.limit:,.1f}")
    table.add_row("pipeline, images/s", f"{found.rate:,.1f}")
    table.add_row("share of the limit", f"{found.share:.1%}")
    for name, share in found.stages.items():
        table.add_row(f"time in {name}", f"{share:.2%}")
    table.add_row("peak memory, MB", f"{found.peak / 1e6:,.0f}")
    table.add_row("batch size, workers", f"{found.tuned.batch_size}, {found.tuned.workers}")
    out.print(table)
    for line in found.tuned.told:
        out.print(line)


def print_class_scores(scores: Sequence[ClassScore], as_json: bool) -> None:
    """Print the scores of masks of classes that do not exclude each other: one row per class, and their means."""
    mean = (
        float(np.nanmean([score.iou for score in scores])) if any(score.iou == score.iou for score in scores) else nan
    )
    if as_json:
        rows = [
            {"name": s.name, "pixels": s.pixels}
            | {key: json_number(getattr(s, key)) for key in ("iou", "precision", "recall")}
            for s in scores
        ]
        print(json.dumps({"mean_iou": json_number(mean), "classes": rows}, indent=2))
        return
    table = plain_table("Classes that do not exclude each other")
    for title in ("class", "pixels", "IoU", "precision", "recall"):
        table.add_column(title, justify="left" if title == "class" else "right")
    for s in scores:
        values = ("-" if value != value else f"{value:.4f}" for value in (s.iou, s.precision, s.recall))
        table.add_row(Text(s.name), f"{s.pixels:,}", *values)
    table.add_row("mean", "", "-" if mean != mean else f"{mean:.4f}", "", "")
    console.stdout().print(table)

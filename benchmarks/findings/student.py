"""The distilled network beside the ensemble that it learned from: scores on the fold it never saw, and images/s."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.findings.out_of_fold import METRIC, STITCHED, Labelled, Row, counts_of, engine, masks_of
from benchmarks.findings.place import Place
from benchmarks.findings.systems import STUDENT
from benchmarks.table import rows
from engine.bootstrap import GroupedCounts, interval, paired_difference
from engine.runs.plan import Plan, read_plan, write_plan
from engine.runs.plan_member import PlannedMember

ROUNDS = 3
VIEWS: Mapping[str, tuple[str, ...]] = {"": (), ", flips": ("horizontal",)}


def student_rows(place: Place) -> list[Row]:
    """Return a row of the final ensemble and one of the student for each of its views, all of stitched tiles.

    The student is scored on the tiles of the fold that it was trained without. The ensemble's masks of these are out of
    fold: each by one network a member. Images/s are of the command that predicts the test images, of the ensemble with
    all of its networks; the plans take turns, medians.
    """
    with np.load(place.validation) as file:
        index, truth, groups = file["index"], file["labels"], file["groups"]
    plans = {"the final ensemble": place.plan}
    plans |= {f"{STUDENT.title}{told}": _plan(place, views) for told, views in VIEWS.items()}
    rates = _rates(list(plans.values()), f"{place.original}:test_set")
    found: list[Row] = []
    teacher: GroupedCounts | None = None
    for (title, plan), rate in zip(plans.items(), rates, strict=True):
        masks = (
            Labelled.of(place).masks(plan)[index] if teacher is None else masks_of(plan, f"{place.validation}:images")
        )
        counts = counts_of(masks, truth, groups)
        held = interval(counts, METRIC)
        row: Row = {"title": title, "networks": _networks(plan), "images_per_second": round(rate, 1)}
        row |= {"score": round(held.value, 4), "low": round(held.low, 4), "high": round(held.high, 4)}
        if teacher is not None:
            gain = paired_difference(counts, teacher, METRIC)
            row["gain"] = [round(value, 4) for value in (gain.value, gain.low, gain.high)]
            row["faster"] = round(rate / found[0]["images_per_second"], 2)
        teacher = counts if teacher is None else teacher
        found.append(row)
    return found


def student_table(found: Sequence[Row]) -> str:
    """Return the rows as a table."""
    lines = []
    for row in found:
        gain = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["gain"]) if "gain" in row else ""
        faster = f"{row['faster']:.1f}" if "faster" in row else ""
        held = f"{row['score']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        lines.append([row["title"], row["networks"], held, gain, f"{row['images_per_second']:.0f}", faster])
    header = ["", "networks", "MIoU", "over the ensemble", "images/s", "times the ensemble's"]
    return rows(header, lines)


def _plan(place: Place, views: tuple[str, ...]) -> Path:
    path = place.plan.with_name(f"student-{'-'.join(views) or 'plain'}.toml")
    member = PlannedMember(str(place.onnx(STUDENT).absolute()))
    write_plan(path, Plan((member,), views=views, input=STITCHED), "written by python -m benchmarks.findings")
    return path


def _networks(plan: Path) -> int:
    return sum(max(len(member.folds), 1) for member in read_plan(plan).members)


def _rates(plans: Sequence[Path], images: str) -> list[float]:
    """Return the images/s of each plan: medians of runs in turns."""
    seconds: list[list[float]] = [[] for _ in plans]
    count = 0
    for _ in range(ROUNDS):
        for own, plan in zip(seconds, plans, strict=True):
            out = plan.with_suffix(".masks.npy")
            told: Any = json.loads(
                engine(
                    "ensemble", "--plan", str(plan), "--input", images, "--json", "--output", str(out), "--overwrite"
                )
            )
            count = len(np.load(out, mmap_mode="r"))
            own.append(told["seconds"])
            out.unlink()
    return [count / statistics.median(own) for own in seconds]

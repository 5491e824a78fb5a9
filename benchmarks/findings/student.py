"""The distilled network beside the ensemble that it learned from: scores out of fold, and images/s."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.findings.out_of_fold import METRIC, STITCHED, Labelled, Row, engine, member_of
from benchmarks.findings.place import Place
from benchmarks.findings.systems import System
from benchmarks.table import gain_cell, held_cell, rows
from engine.bootstrap import GroupedCounts, interval, paired_difference
from engine.models.views import named_views
from engine.runs.plan import Plan, read_plan, write_plan
from engine.runs.plan_member import PlannedMember

ROUNDS = 3
#: Of the student: few enough to be several times as fast as the ensemble.
VIEWS: dict[str, tuple[str, ...]] = {"": (), ", flips": ("horizontal",)}


def student_rows(place: Place, student: System) -> list[Row]:
    """Return a row of the final ensemble and one of the student for each choice of views, all of stitched tiles.

    All are scored on all panoramas, out of fold: of the ensemble each tile is predicted by one network a member, of the
    student by one. Images/s are those of the command that predicts the test images, of the ensemble with all of its
    networks, of the student with one; the plans take turns, medians.
    """
    labelled = Labelled.of(place)
    plans = {"the final ensemble": (place.plan, place.plan)}
    for told, views in VIEWS.items():
        one = PlannedMember(str(place.onnx(student).absolute()))
        plans[f"{student.title}{told}"] = (
            write_student(
                place.plan.with_name(f"{student.name}-folds-{len(views)}.toml"), place, views, member_of(place, student)
            ),
            write_student(place.plan.with_name(f"{student.name}-{len(views)}.toml"), place, views, one),
        )
    rates = _rates([shipped for _, shipped in plans.values()], f"{place.original}:test_set")
    found: list[Row] = []
    teacher: GroupedCounts | None = None
    for (title, (plan, shipped)), rate in zip(plans.items(), rates, strict=True):
        counts = labelled.counts(plan)
        held = interval(counts, METRIC)
        row: Row = {"title": title, "runs": passes_of(shipped), "images_per_second": round(rate, 1)}
        row |= {"score": round(held.value, 4), "low": round(held.low, 4), "high": round(held.high, 4)}
        if teacher is not None:
            gain = paired_difference(counts, teacher, METRIC)
            row["gain"] = [round(value, 4) for value in (gain.value, gain.low, gain.high)]
            row["faster"] = round(rate / found[0]["images_per_second"], 2)
        teacher = counts if teacher is None else teacher
        found.append(row)
    return found


def write_student(path: Path, place: Place, views: tuple[str, ...], member: PlannedMember) -> Path:
    """Write the plan of a student, with the ensemble's biases, on stitched tiles; return its path."""
    plan = Plan((member,), strategy="mean-logit", bias=read_plan(place.plan).bias, views=views, input=STITCHED)
    write_plan(path, plan, "written by python -m benchmarks.findings")
    return path


def passes_of(plan: Path) -> int:
    """Return how often an image goes through a network."""
    read = read_plan(plan)
    networks = sum(max(len(member.folds), 1) for member in read.members)
    return networks * len(named_views(read.flips or "none" if read.views is None else read.views))


def student_table(found: Sequence[Row]) -> str:
    """Return the rows as a table."""
    lines = []
    for row in found:
        gain = gain_cell(row["gain"]) if "gain" in row else ""
        faster = f"{row['faster']:.1f}" if "faster" in row else ""
        lines.append([row["title"], row["runs"], held_cell(row), gain, f"{row['images_per_second']:.0f}", faster])
    header = ["", "runs of a network", "MIoU", "over the ensemble", "images/s", "times the ensemble's"]
    return rows(header, lines)


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

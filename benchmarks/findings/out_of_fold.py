"""Selects and scores the final ensemble on all panoramas: nets predict the tiles that they were trained without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.findings.place import Place
from benchmarks.findings.systems import System
from engine.bootstrap import GroupedCounts, interval, paired_difference
from engine.metrics import confusion_matrices
from engine.runs.plan import Plan, read_plan, write_plan
from engine.runs.plan_input import InputTable
from engine.runs.plan_member import PlannedMember

FLIPS = ("none", "horizontal")
#: The tiles of the task overlap by half, so the pictures they make are cut into as many tiles again.
STITCHED = InputTable(tile="64x128", stitch=True)
CLASSES = 5
METRIC = "keras-ignore"
Found = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Labelled:
    """All training tiles without outliers, as the engine reads them.

    Attributes:
        images: spec of the images.
        groups: file with the panorama of each.
        place: the files of the run.
    """

    images: str
    groups: Path
    place: Place

    @classmethod
    def of(cls, place: Place) -> Labelled:
        """Write the groups of the tiles that were kept."""
        from trainers.data import load

        pool = place.plan.parent
        pool.mkdir(exist_ok=True)
        groups = load(place.data, place.groups).groups
        assert groups is not None, "the out-of-fold scores need --groups"
        np.save(pool / "groups.npy", groups)
        return cls(f"{place.data}:training_set", pool / "groups.npy", place)

    @cached_property
    def truth(self) -> NDArray[np.uint8]:
        """Return the labels, uint8 (N, H, W)."""
        from trainers.data import load

        return load(self.place.data).labels

    def counts(self, plan: Path) -> GroupedCounts:
        """Return the counts by panorama of a plan's masks, predicted out of fold."""
        masks = plan.with_suffix(".masks.npz")
        out = ("--output", str(masks), "--overwrite")
        engine("ensemble", "--plan", str(plan), "--out-of-fold", "--input", self.images, *out)
        with np.load(masks, allow_pickle=False) as file:
            matrices = confusion_matrices(self.truth, file["masks"], CLASSES)
        masks.unlink()
        return GroupedCounts.of(matrices, np.unique(np.load(self.groups), return_inverse=True)[1], 0)


def engine(*words: str) -> str:
    """Run one command of the engine; return its stdout, exit with its message if it fails."""
    done = subprocess.run([sys.executable, "-m", "engine.cli", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"engine {words[0]} failed with exit code {done.returncode}")
    return done.stdout


def write_teacher(place: Place, members: Sequence[System]) -> Path:
    """Write the plan that others learn from: the members' mean, nothing of it chosen on labels."""
    return _write(place.plan.with_name("teacher.toml"), _mean(place, members))


def select_members(place: Place, members: Sequence[System]) -> dict[str, Found]:
    """Select the ensemble out of fold, without and with flips, and write the better plan to ``place.plan``.

    Returns:
        The output of `engine select`, by flips.
    """
    labelled = Labelled.of(place)
    pool = _write(place.plan.parent / "pool.toml", Plan(tuple(member_of(place, system) for system in members)))
    found = {}
    for flips in FLIPS:
        words = ("--plan", str(pool), "--input", labelled.images, "--labels", str(place.data))
        # Clean-up needs a further package, and what is installed by default must predict with the plan.
        more = ("--groups", str(labelled.groups), "--flips", flips, "--bags", "10", "--no-clean-up")
        out = pool.with_name(f"{flips}.toml")
        found[flips] = json.loads(engine("select", *words, *more, "--json", "--overwrite", "--out", str(out)))
    best = pool.with_name(f"{best_flips(found)}.toml")
    lines = [line[2:] for line in best.read_text("utf-8").splitlines() if line.startswith("# ")]
    plan = replace(read_plan(best), input=STITCHED)
    write_plan(place.plan, plan, "\n".join(line for line in lines if not line.startswith("SHA-256")))
    return found


def best_flips(found: Mapping[str, Found]) -> str:
    """Return the flips with the best cross-fitted score."""
    return max(found, key=lambda flips: chosen(found[flips])["cross_fitted"]["score"])


def chosen(found: Found) -> Row:
    """Return the level that `engine select` wrote."""
    return next(level for level in found["levels"] if level["chosen"])


def ablation(place: Place, systems: Sequence[System]) -> list[Row]:
    """Return what each step gains, out of fold; ``over`` is the number of the row that a gain is over.

    Args:
        place: where the networks are.
        systems: those that are exported.
    """
    labelled = Labelled.of(place)
    rows: list[Row] = []
    counts: list[GroupedCounts] = []

    def add(title: str, plan: Plan, over: int | None) -> int:
        counts.append(labelled.counts(_write(place.plan.with_name("step.toml"), plan)))
        rows.append(_row(title, counts[-1], None if over is None else counts[over], over))
        return len(rows) - 1

    alone: dict[str, int] = {}
    for system in (one for one in systems if one.folded):
        alone[system.name] = add(system.title, Plan((member_of(place, system),)), alone.get(system.first))
    teachers = [system for system in systems if system.teaches]
    stitched = _mean(place, teachers)
    flipped = replace(stitched, input=InputTable())
    best = max((alone[system.name] for system in teachers), key=lambda row: rows[row]["score"])
    both = add("mean of probabilities of the two", replace(flipped, views=()), best)
    with_flips = add("+ flips", flipped, both)
    fused = {"": add("+ stitched", stitched, with_flips)}
    for later in (system for system in systems if system.first):
        changed = [later if one.name == later.first else one for one in teachers]
        told = next(one.title for one in teachers if one.name == later.first)
        fused[later.name] = add(f"the same, {later.title} in place of {told}", _mean(place, changed), fused[""])
    members = [system for system in systems if system.member]
    over = next((fused[system.name] for system in members if system.name in fused), fused[""])
    final = add("the final ensemble, as selected", read_plan(place.plan), over)
    strongest = max(members, key=lambda one: rows[alone[one.name]]["score"])
    one = add(f"{strongest.title}, flips, stitched", _mean(place, [strongest]), alone[strongest.name])
    title = "the final ensemble against its best member, both with flips and stitched"
    rows.append(_row(title, counts[final], counts[one], one))
    return rows


def _row(title: str, counts: GroupedCounts, before: GroupedCounts | None, over: int | None) -> Row:
    held = interval(counts, METRIC)
    row: Row = {"title": title, "score": round(held.value, 4), "low": round(held.low, 4), "high": round(held.high, 4)}
    if before is not None:
        gain = paired_difference(counts, before, METRIC)
        row |= {"gain": [round(value, 4) for value in (gain.value, gain.low, gain.high)], "over": over}
    return row


def member_of(place: Place, system: System) -> PlannedMember:
    """Return the member that the networks of a system's folds are."""
    return PlannedMember("", folds=tuple(map(str, map(Path.absolute, place.onnx_files(system)))))


def _mean(place: Place, systems: Sequence[System]) -> Plan:
    """Return the mean of some members, with flips, on stitched tiles."""
    members = tuple(member_of(place, system) for system in systems)
    return Plan(members, strategy="mean-prob", views=("horizontal",), input=STITCHED)


def _write(path: Path, plan: Plan) -> Path:
    write_plan(path, plan, "written by python -m benchmarks.findings")
    return path

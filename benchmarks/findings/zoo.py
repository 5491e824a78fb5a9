"""Put the final ensemble into one folder: its networks with the records of their runs, its plan, and its student."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.findings.out_of_fold import Found, best_flips, chosen
from benchmarks.findings.place import Place
from benchmarks.findings.student import VIEWS, write_student
from benchmarks.findings.systems import System
from engine.runs.plan import read_plan, write_plan
from engine.runs.plan_member import PlannedMember

PLAN, STUDENT_PLAN = "ensemble.toml", "student.toml"
#: Size limit in the repository.
MOST_BYTES = 24_000_000


def build_zoo(
    place: Place, members: Sequence[System], students: Sequence[System], found: Mapping[str, Found], target: Path
) -> Path:
    """Write the final ensemble and return its plan; beside it a student and a plan of it alone.

    Args:
        place: where the networks are.
        members: the systems that were selected from.
        students: what learned from them; of its folds the first is taken.
        found: what :func:`benchmarks.findings.out_of_fold.select_members` returned.
        target: folder to make; its contents are replaced.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    plan = read_plan(place.plan)
    kept = {Path(name).name for member in plan.members for name in member.folds}
    for system in members:
        if {path.name for path in place.onnx_files(system)} & kept:
            for source, file in zip(place.networks(system), place.onnx_files(system), strict=True):
                _put(source, file, target / file.name)
    for student in students:
        name = target / f"{student.name}.onnx"
        _put(place.networks(student)[0], place.onnx(student), name)
        write_student(target / STUDENT_PLAN, place, list(VIEWS.values())[-1], PlannedMember(str(name)))
    moved = tuple(replace(member, folds=_inside(member, target)) for member in plan.members)
    lines = [line[2:] for line in place.plan.read_text("utf-8").splitlines() if line.startswith("# ")]
    write_plan(target / PLAN, replace(plan, members=moved), "\n".join(lines).replace(f"{place.runs}/", ""))
    size = sum(path.stat().st_size for path in target.iterdir())
    if size > MOST_BYTES:
        sys.exit(f"{target} holds {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}: quantize the members")
    flips = best_flips(found)
    score = chosen(found[flips])["cross_fitted"]["score"]
    print(f"{target / PLAN}: flips {flips}, cross-fitted {score:.4f}, {size / 1e6:.1f} MB", flush=True)
    return target / PLAN


def _inside(member: PlannedMember, folder: Path) -> tuple[str, ...]:
    return tuple(str(folder / Path(name).name) for name in member.folds)


def _put(source: Path, file: Path, target: Path) -> None:
    """Copy a network and the record of its run."""
    record = source.with_suffix("").with_suffix(".run.toml")
    target.with_suffix(".run.toml").write_text(without_folders(record.read_text("utf-8")), "utf-8")
    shutil.copy(file, target)


def runs_of(place: Place, system: System) -> list[dict[str, Any]]:
    """Return the records of the runs of a system's networks."""
    records = [path.with_suffix("").with_suffix(".run.toml") for path in place.networks(system)]
    return [tomllib.loads(path.read_text("utf-8")) for path in records]


def without_folders(text: str) -> str:
    """Return a run.toml that names files without the folders they lay in; their hashes say which they were."""
    return re.sub(r'^(data|out|groups|extra|soft|start_from) = ".*/([^/"]*)"$', r'\1 = "\2"', text, flags=re.MULTILINE)


def submit(plan: Path, images: Path, output: Path) -> None:
    """Write the submission of the plan's ensemble."""
    command = ["engine", "ensemble", "--plan", str(plan), "--input", str(images), "--output", str(output)]
    print("$", *command, flush=True)
    if subprocess.run([sys.executable, "-m", "engine.cli", *command[1:], "--overwrite"]).returncode:
        sys.exit("engine ensemble failed")

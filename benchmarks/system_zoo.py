"""Put the final ensemble together: copy the members, select on the shared tiles, keep what was chosen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.system_list import System

if TYPE_CHECKING:
    from benchmarks.systems import Place

ZOO = Path(__file__).parent / "zoo"
PLAN = "ensemble.toml"
#: What may lie in the repository.
MOST_BYTES = 40_000_000
FLIPS = ("none", "horizontal")


def build_zoo(place: Place, pool: Sequence[System], target: Path) -> Path:
    """Select the final ensemble and return its plan.

    The members are copied beside the plan with the records of their runs; those that the selection leaves out go again.
    Mirror images are used where the cross-fitted score is better with them.

    Args:
        place: where the networks are.
        pool: systems to select from, exported.
        target: folder to make; what is in it is replaced.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for system in pool:
        shutil.copy(place.onnx(system), target)
        for record in records(place, system):
            name = f"{system.name}.{record.name}" if system.is_set else record.name
            (target / name).write_text(without_folders(record.read_text("utf-8")), "utf-8")
    found = {flips: select(place, target, flips) for flips in FLIPS}
    best = max(FLIPS, key=lambda flips: score(found[flips]))
    select(place, target, best)
    plan = target / PLAN
    told = plan.read_text("utf-8")
    for folder in (place.runs, target.parent):
        told = told.replace(f"{folder}/", "")
    plan.write_text(told, "utf-8")
    kept = {Path(member["model"]).stem for member in tomllib.loads(told)["members"]}
    for path in target.iterdir():
        if path.name != PLAN and path.name.split(".")[0] not in kept:
            path.unlink()
    size = sum(path.stat().st_size for path in target.iterdir())
    if size > MOST_BYTES:
        sys.exit(f"{target} holds {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}: quantize the members")
    print(f"{plan}: flips {best}, cross-fitted {score(found[best]):.4f}, {size / 1e6:.1f} MB", flush=True)
    return plan


def records(place: Place, system: System) -> list[Path]:
    """Return the run.toml of each network of a system."""
    return sorted((place.runs / system.name).glob("k*.run.toml")) or [place.runs / f"{system.name}.run.toml"]


def without_folders(text: str) -> str:
    """Return a run.toml that names files without the folders they lay in; their hashes say which they were."""
    return re.sub(r'^(data|out|groups|extra|start_from) = ".*/([^/"]*)"$', r'\1 = "\2"', text, flags=re.MULTILINE)


def select(place: Place, target: Path, flips: str) -> dict[str, Any]:
    """Write the plan of `engine select` over the folder's models, and return what it says."""
    tiles = place.validation
    command = [sys.executable, "-m", "engine.cli", "select", "--models", str(target), "--input", f"{tiles}:images"]
    command += ["--labels", f"{tiles}:labels", "--flips", flips, "--json"]
    command += [] if place.groups is None else ["--groups", f"{tiles}:groups"]
    command += ["--overwrite", "--bags", "10", "--out", str(target / PLAN)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def score(found: dict[str, Any]) -> float:
    """Return the cross-fitted score of the level that was chosen."""
    return float(next(level for level in found["levels"] if level["chosen"])["cross_fitted"]["score"])


def submit(plan: Path, images: Path, output: Path) -> None:
    """Write the submission of the plan's ensemble."""
    command = ["engine", "ensemble", "--plan", str(plan), "--input", str(images), "--output", str(output)]
    print("$", *command, flush=True)
    if subprocess.run([sys.executable, "-m", "engine.cli", *command[1:], "--overwrite"]).returncode:
        sys.exit("engine ensemble failed")

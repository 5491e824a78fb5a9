"""Put the final ensemble together: select among the members on the shared tiles, keep what was chosen, refit it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.findings.place import Place
from benchmarks.findings.systems import PSEUDO, System
from engine.models.opening import open_net
from engine.runs.plan import Plan, PlannedMember, read_plan, write_plan

PLAN = "ensemble.toml"
#: What may lie in the repository.
MOST_BYTES = 40_000_000
FLIPS = ("none", "horizontal")
Found = dict[str, Any]


def select_both(place: Place, pool: Sequence[System]) -> dict[str, Found]:
    """Select among the members without and with mirror images; return what `engine select` says of each.

    The plans stay in the folder `pool` of the runs, `none.toml` and `horizontal.toml`, with copies of the members.
    """
    folder = place.runs / "pool"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for system in pool:
        shutil.copy(place.onnx(system), folder)
    return {flips: _select(place, folder, flips) for flips in FLIPS}


def _select(place: Place, folder: Path, flips: str) -> Found:
    tiles = place.validation
    command = [sys.executable, "-m", "engine.cli", "select", "--models", str(folder), "--input", f"{tiles}:images"]
    command += ["--labels", f"{tiles}:labels", "--flips", flips, "--json"]
    command += [] if place.groups is None else ["--groups", f"{tiles}:groups"]
    command += ["--bags", "10", "--out", str(folder / f"{flips}.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: Found = json.loads(done.stdout)
    return found


def pruned(pool: Sequence[System], scores: Mapping[str, float]) -> list[System]:
    """Return the pool without its worst fifth: members far behind make a selection overfit (Caruana et al. 2006)."""
    worst = sorted(pool, key=lambda system: scores[system.name])[: len(pool) // 5]
    return [system for system in pool if system not in worst]


def score(found: Found) -> float:
    """Return the cross-fitted score of the level that was chosen."""
    return float(next(level for level in found["levels"] if level["chosen"])["cross_fitted"]["score"])


def best_flips(found: Mapping[str, Found]) -> str:
    """Return with which mirror images the cross-fitted score is best."""
    return max(FLIPS, key=lambda flips: score(found[flips]))


def chosen(place: Place, pool: Sequence[System], found: Mapping[str, Found]) -> list[System]:
    """Return the members that the better selection kept."""
    plan = read_plan(place.runs / "pool" / f"{best_flips(found)}.toml")
    kept = {Path(member.model).stem for member in plan.members}
    return [system for system in pool if system.name in kept]


def refitted(system: System) -> System | None:
    """Return a member trained in the same way on every tile; None for one that pseudo-labels were made for."""
    if PSEUDO in system.arguments or system.is_set:
        return None
    name, title = system.name.replace("-zoo", "-all-zoo"), f"{system.title}, every tile"
    return replace(system, name=name, title=title, arguments=f"{system.arguments} --train-all", member=False)


def build_zoo(place: Place, pool: Sequence[System], found: Mapping[str, Found], target: Path) -> Path:
    """Write the final ensemble and return its plan.

    It holds the members that the better selection kept, with the records of their runs, and beside each the same
    network trained on every tile, where that is there: no tile is left to score it on, so it takes its twin's weight.

    Args:
        place: where the networks are.
        pool: the systems that were selected from.
        found: what :func:`select_both` returned.
        target: folder to make; what is in it is replaced.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    flips = best_flips(found)
    source = place.runs / "pool" / f"{flips}.toml"
    plan, members = read_plan(source), []
    twins = 0
    for member in plan.members:
        system = next(one for one in pool if one.name == Path(member.model).stem)
        members.append(replace(member, model=str(_put(place, system, target))))
        twin = refitted(system)
        if twin is not None and place.onnx(twin).exists():
            path = _put(place, twin, target)
            members.append(PlannedMember(str(path), member.weight, sha256=open_net(path).checksum))
            twins += 1
    _write(target / PLAN, replace(plan, members=tuple(members)), source, place, twins)
    size = sum(path.stat().st_size for path in target.iterdir())
    if size > MOST_BYTES:
        sys.exit(f"{target} holds {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}: quantize the members")
    print(f"{target / PLAN}: flips {flips}, cross-fitted {score(found[flips]):.4f}, {size / 1e6:.1f} MB", flush=True)
    return target / PLAN


def _put(place: Place, system: System, target: Path) -> Path:
    """Copy a network and its records; return where it lies."""
    for record in records(place, system):
        name = f"{system.name}.{record.name}" if system.is_set else record.name
        (target / name).write_text(without_folders(record.read_text("utf-8")), "utf-8")
    return Path(shutil.copy(place.onnx(system), target))


def _write(path: Path, plan: Plan, source: Path, place: Place, twins: int) -> None:
    """Write the plan under what `engine select` says of its members, without the folders they lay in."""
    lines = [line[2:] for line in source.read_text("utf-8").splitlines() if line.startswith("# ")]
    told = "\n".join(lines).replace(f"{place.runs}/", "")
    if twins:
        told = re.sub(r"^SHA-256 of the plan.*\n", "", told, flags=re.MULTILINE)
        told += f"\n{twins} of them stand here a second time, trained on every tile; the scores are without those."
    write_plan(path, plan, told)


def records(place: Place, system: System) -> list[Path]:
    """Return the run.toml of each network of a system."""
    return sorted((place.runs / system.name).glob("k*.run.toml")) or [place.runs / f"{system.name}.run.toml"]


def runs_of(place: Place, system: System) -> list[dict[str, Any]]:
    """Return what those records say."""
    return [tomllib.loads(path.read_text("utf-8")) for path in records(place, system)]


def without_folders(text: str) -> str:
    """Return a run.toml that names files without the folders they lay in; their hashes say which they were."""
    return re.sub(r'^(data|out|groups|extra|start_from) = ".*/([^/"]*)"$', r'\1 = "\2"', text, flags=re.MULTILINE)


def submit(plan: Path, images: Path, output: Path) -> None:
    """Write the submission of the plan's ensemble."""
    command = ["engine", "ensemble", "--plan", str(plan), "--input", str(images), "--output", str(output)]
    print("$", *command, flush=True)
    if subprocess.run([sys.executable, "-m", "engine.cli", *command[1:], "--overwrite"]).returncode:
        sys.exit("engine ensemble failed")

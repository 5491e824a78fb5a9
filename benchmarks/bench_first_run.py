"""First run after an install: seconds until the table, with no compiled kernel, against an older commit.

``python -m benchmarks.bench_first_run [--against 7da9fc7] [--rounds 5] [--input TILES.npz]`` writes
benchmarks/results/first_run.md. The older commit is checked out beside this tree and removed at the end; both run in
the same environment, in turns, first with an empty cache of kernels and then with that one. Commands: README's first
one (generated scenes, all strategies scored) and, where ``--input`` names tiles, its second one (the plan of the zoo).
Seconds of the processor are those of all processes of the command.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.older import BASELINE, ROOT, checkout
from benchmarks.table import rows, write

# Where the plan of the zoo lies: now, and in older commits.
PLANS = ("zoo/ensemble.toml", "benchmarks/zoo/ensemble.toml")
FULL = "no compiled kernels"
WARM = "kernels compiled before"
# By command, state of the cache, and tree.
Timings = dict[tuple[str, str, str], "Timing"]


@dataclass
class Timing:
    """Seconds of one command in one tree, a value per round.

    Attributes:
        wall: from the start of the process to its end.
        processor: user and system time of it and of the processes it started.
    """

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def commands(tree: Path, tiles: Path | None) -> dict[str, list[str]]:
    """Return the arguments of each command by its name in the table."""
    made = {"`engine ensemble`": ["ensemble"]}
    plan = next((tree / name for name in PLANS if (tree / name).exists()), None)
    if tiles is not None and plan is not None:
        made["`engine ensemble --plan zoo/ensemble.toml`"] = ["ensemble", "--plan", str(plan), "--input", str(tiles)]
    return made


def run(tree: Path, arguments: Sequence[str], cache: Path, timing: Timing) -> bytes:
    """Run a command of a tree in an empty folder; return the masks that it wrote.

    Raises:
        SystemExit: the command fails; its messages are shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = {**os.environ, "PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(cache)}
        line = [sys.executable, "-m", "engine.cli", *arguments, "--output", "masks.csv"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        done = subprocess.run(line, cwd=folder, env=place, capture_output=True, text=True)
        ended, after = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{' '.join(line)} failed in {tree}:\n{done.stderr}")
        timing.wall.append(ended - began)
        timing.processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return (Path(folder) / "masks.csv").read_bytes()


def measure(trees: dict[str, Path], tiles: Path | None, rounds: int) -> tuple[Timings, set[str]]:
    """Return the timings, and the commands whose masks differ between the trees."""
    timings: Timings = {}
    different = set()
    for turn in range(rounds):
        for name in commands(ROOT, tiles):
            written = {}
            # Neither tree always comes first.
            for side in sorted(trees, reverse=turn % 2 == 1):
                arguments = commands(trees[side], tiles)[name]
                with tempfile.TemporaryDirectory() as cache:
                    for kind in (FULL, WARM):
                        timing = timings.setdefault((name, kind, side), Timing())
                        written[side] = run(trees[side], arguments, Path(cache), timing)
                        told = f"round {turn + 1}, {name}, {side}, {kind}"
                        print(f"{told}: {timing.wall[-1]:.1f} s, processor {timing.processor[-1]:.1f} s", flush=True)
            if len(set(written.values())) > 1:
                different.add(name)
    return timings, different


def table(timings: Timings, older: str, newer: str) -> str:
    """Return a row per command and state of the cache: medians, and the median ratio within a round."""
    lines = []
    for name, kind in dict.fromkeys((name, kind) for name, kind, _ in timings):
        then, now = timings[name, kind, older], timings[name, kind, newer]
        ratio = median(b / a for a, b in zip(then.wall, now.wall, strict=True))
        work = median(b / a for a, b in zip(then.processor, now.processor, strict=True))
        seconds = [f"{median(part):.1f}" for part in (then.wall, now.wall, then.processor, now.processor)]
        lines.append([name, kind, *seconds[:2], f"{ratio:.2f}", *seconds[2:], f"{work:.2f}"])
    header = ["command", "cache", f"s, {older}", f"s, {newer}", "ratio"]
    return rows([*header, f"processor s, {older}", f"processor s, {newer}", "ratio of processor s"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default=BASELINE, metavar="REV", help="the older commit; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--input", type=Path, help="tiles for the zoo (.npz); without: generated scenes alone")
    options = parser.parse_args()
    tiles = options.input.resolve() if options.input else None
    newer = "this tree"
    with checkout(options.against) as tree:
        trees = {options.against: tree, newer: ROOT}
        timings, different = measure(trees, tiles, 1 if options.quick else options.rounds)
    told = (
        f"The whole command, from its start to its end, against commit {options.against} in the same environment; "
        f"{1 if options.quick else options.rounds} rounds in turns, medians; a ratio is the median of those within a "
        "round. With no compiled kernels, the cache of numba is an empty folder.\n"
    )
    same = "Both write the same masks, byte for byte.\n"
    if different:
        same = f"The masks differ: {', '.join(sorted(different))}.\n"
    command = "python -m benchmarks.bench_first_run"
    packages = ["numpy", "numba", "llvmlite", "onnxruntime-gpu"]
    path = write("first_run", "The first run", command, packages, told, table(timings, options.against, newer), same)
    print(path.read_text())


if __name__ == "__main__":
    main()

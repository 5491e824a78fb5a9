"""`engine bench` of this tree and of an older commit, in turns: the pipeline and its share of the nets' own limit.

``python -m benchmarks.bench_pipeline [--against 7da9fc7] [--rounds 7] [--nets A.onnx B.onnx]`` writes
benchmarks/results/pipeline.md. Every measurement is a process of its own, of one tree after the other; the older one is
checked out beside it for the time of the run. On generated scenes: four nets of the zoo, or those of ``--nets``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.older import BASELINE, ROOT, checkout
from benchmarks.table import rows, write
from benchmarks.zoo_nets import FOUR

WAYS = {
    "ONNX Runtime float32": ("--runtime", "onnxruntime"),
    "OpenVINO float32": ("--runtime", "openvino"),
    "OpenVINO bf16": ("--runtime", "openvino", "--precision", "bf16"),
}
# Rounds within a process: its very first one is slower than the others.
TURNS = 3
# Least share of the limit, and least ratio to the older commit; what the project asks of itself.
BARS = {"ONNX Runtime float32": (0.97, 1.15), "OpenVINO bf16": (0.92, 1.25)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default=BASELINE, help="the older commit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--only", nargs="*", default=[""], help="only ways whose name holds one of these texts")
    parser.add_argument("--nets", nargs="+", type=Path, default=FOUR, help="files instead of four nets of the zoo")
    options = parser.parse_args()
    nets = [net.resolve() for net in options.nets]
    ways = [way for way in installed_ways() if any(text.lower() in way.lower() for text in options.only)]
    taken: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with checkout(options.against) as older, tempfile.TemporaryDirectory() as place:
        for number in range(options.rounds + 1):
            for way in ways:
                for name, tree in ((options.against, older), ("now", ROOT)):
                    # The first round compiles and fills caches.
                    found = bench(tree, Path(place), nets, WAYS[way], 32 if number == 0 else options.images)
                    if number:
                        taken.setdefault((way, name), []).append(found)
                    told = f"{found['images_per_second']:.0f}/s, share {found['share_of_limit']:.3f}"
                    print(number, way, name, told, flush=True)
    told = (
        f"{', '.join(net.stem for net in nets)}; {options.images} images, {options.rounds} processes of each in turns, "
        f"{TURNS} rounds in each; medians (ratios of pairs, least and greatest behind). The limit is 1 over the sum of "
        "1 / images/s of each net alone at its best layout, in the same run.\n"
    )
    section = f"{told}\n{table(taken, ways, options.against)}"
    packages = ("numpy", "numba", "onnxruntime-gpu", "openvino")
    print(write("pipeline", "The pipeline against its limit", "python -m benchmarks.bench_pipeline", packages, section))


def installed_ways() -> dict[str, tuple[str, ...]]:
    """Return the ways to run that this environment has, by name: their options."""
    return {name: way for name, way in WAYS.items() if "OpenVINO" not in name or find_spec("openvino") is not None}


def bench(tree: Path, place: Path, nets: list[Path], way: tuple[str, ...], images: int) -> dict[str, Any]:
    """Return what ``engine bench`` of a tree says."""
    given = [part for net in nets for part in ("-m", str(net))]
    arguments = ["bench", *given, *way, "--images", str(images), "--rounds", str(TURNS), "--json"]
    command = [sys.executable, "-m", "engine.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def table(taken: dict[tuple[str, str], list[dict[str, Any]]], ways: list[str], older: str) -> str:
    """Return the table, with what misses its bar."""
    lines = []
    for way in ways:
        before, now = taken[way, older], taken[way, "now"]
        share = median(run["share_of_limit"] for run in now)
        ratios = [new["images_per_second"] / old["images_per_second"] for new, old in zip(now, before, strict=True)]
        least_share, least_ratio = BARS.get(way, (0.0, 0.0))
        lines.append(
            (
                way,
                f"{median(run['images_per_second'] for run in before):.0f}",
                f"{median(run['images_per_second'] for run in now):.0f}",
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}){missed(median(ratios), least_ratio)}",
                f"{median(run['share_of_limit'] for run in before):.2f}",
                f"{share:.2f}{missed(share, least_share)}",
            )
        )
    head = ("way", f"images/s, {older}", "images/s, now", "ratio", f"share, {older}", "share, now")
    return rows(head, lines)


def missed(value: float, bar: float) -> str:
    """Return the mark of a figure below its bar."""
    return f", below the bar of {bar}" if value < bar else ""


if __name__ == "__main__":
    main()

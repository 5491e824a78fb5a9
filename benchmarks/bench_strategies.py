"""Fusion strategies: MIoU raw, suppressed and tuned, with intervals, images/s, and the ablation, by ``engine compare``.

``python -m benchmarks.bench_strategies [--scenes 512] [--models FOLDER --input val.npz --groups val.npz:groups]``
writes benchmarks/results/strategies.md. By default the sample nets run on generated scenes, as ``engine ensemble`` does
without arguments; with --models and --input it is your nets on your labelled tiles.
"""

from __future__ import annotations

import argparse
import tempfile
from math import isnan
from pathlib import Path

import numpy as np

from benchmarks.table import rows, write
from engine.compare.command import compare
from engine.compare.options import CompareOptions
from engine.compare.result import Estimate, Facts, Row
from engine.job import SAMPLES, Options

STATES = ("raw", "suppressed", "tuned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=512, help="generated scenes, without --input")
    parser.add_argument("--models", action="append", help="files, folders or globs instead of the sample nets")
    parser.add_argument("--input", help="labelled tiles instead of scenes (.npz with images and labels)")
    parser.add_argument("--groups", default="", help="scene of each tile")
    parser.add_argument("--metric", default="keras-ignore")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tiles = options.input or str(save_scenes(Path(temporary) / "scenes.npz", options.scenes))
        job = Options(models=options.models or (str(SAMPLES),), input=tiles, labels=tiles)
        facts = compare(CompareOptions(job, groups=options.groups, metric=options.metric, gallery=0)).facts
    what = f"tiles of {Path(options.input).name}" if options.input else "generated scenes"
    drawn = f"{facts.groups:,} groups" if facts.groups else "single images"
    names = ", ".join(member.name for member in facts.members)
    held = ", ".join(facts.classes[index] for index in facts.suppressed) or "no class"
    text = (
        f"{len(facts.members)} members ({names}), {facts.images:,} {what}, {facts.workers} workers. MIoU by the "
        f"convention {facts.metric}. Suppressed: {held}. Tuned: with class biases, cross-fitted. Interval and "
        f"difference are of the best state of each: {facts.level:.0%} bootstrap over {drawn}; the difference is paired "
        "and to the best single member in its best state.\n"
    )
    path = write(
        "strategies",
        "Fusion strategies",
        "python -m benchmarks.bench_strategies",
        ["numpy", "numba", "onnxruntime-gpu"],
        text,
        strategies_table(facts),
        "## One step at a time\n\n" + ablation_table(facts),
    )
    print(path.read_text())


def save_scenes(path: Path, count: int) -> Path:
    from engine.samples.scenes import generate

    scenes = generate(count)
    np.savez(path, images=scenes.images, labels=scenes.labels)
    return path


def strategies_table(facts: Facts) -> str:
    """A line a member or strategy, in the order of its best state."""
    lines, seen = [], set()
    for best in facts.rows:
        if best.name in seen:
            continue
        seen.add(best.name)
        own = {row.state: row for row in facts.rows if row.name == best.name}
        found = best.scores[facts.metric]
        cells = [score(own.get(state), facts.metric) for state in STATES]
        kind = "member" if best.member >= 0 else "strategy"
        lines.append([best.name, kind, f"{best.rate:,.0f}", *cells, ends(found), gain(found)])
    header = ["", "", "images/s", *STATES, "interval", "difference"]
    return rows(header, lines)


def score(row: Row | None, metric: str) -> str:
    return "" if row is None or isnan(row.scores[metric].value) else f"{row.scores[metric].value:.4f}"


def ends(found: Estimate) -> str:
    return f"[{found.low:.3f}, {found.high:.3f}]"


def gain(found: Estimate) -> str:
    return f"{found.gain:+.4f} [{found.gain_low:+.3f}, {found.gain_high:+.3f}]"


def ablation_table(facts: Facts) -> str:
    lines = []
    for step in facts.ablation:
        change = "" if isnan(step.change) else f"{step.change:+.4f} [{step.change_low:+.3f}, {step.change_high:+.3f}]"
        lines.append([step.name, step.detail, f"{step.value:.4f}", change, f"{step.rate:,.0f}"])
    return rows(["step", "what", "MIoU", "change", "images/s"], lines)


if __name__ == "__main__":
    main()

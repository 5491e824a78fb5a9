"""Fusion strategies: MIoU raw, suppressed and tuned, with intervals, images/s, and the ablation, by ``engine compare``.

``python -m benchmarks.bench_strategies --models FOLDER --input val.npz --groups val.npz:groups`` compares your nets on
your labelled tiles and writes benchmarks/results/strategies.md, and README's table between its two marks. The variables
MASKFUSE_POOL, MASKFUSE_VALIDATION and MASKFUSE_GROUPS do the same for ``python -m benchmarks strategies``. Without them
the sample nets run on generated scenes, as ``engine ensemble`` does without arguments: strategies_scenes.md.
``--check`` measures nothing: its exit code is 1 if README's table is not that of strategies.md, row by row.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from math import isnan
from pathlib import Path

import numpy as np

from benchmarks.table import STANDING, rows, write
from engine.compare.command import compare
from engine.compare.options import CompareOptions
from engine.compare.result import Estimate, Facts, Row
from engine.fusion.strategies import STRATEGIES
from engine.runs.options import Options
from engine.samples import SAMPLES

STATES = ("raw", "suppressed", "tuned")
README = Path(__file__).resolve().parents[1] / "README.md"
FIRST_MARK, LAST_MARK = "<!-- strategies: written by python -m benchmarks strategies -->", "<!-- end of strategies -->"
# README's description of each strategy.
TOLD = {
    "mean-logit": "weighted mean of the members' logits: the geometric mean of their probabilities (default)",
    "mean-prob": "weighted mean of their softmax probabilities (soft vote)",
    "vote": "total weight of the members whose best class it is; ties go to the higher mean probability",
    "borda": "weighted mean rank among the classes",
    "max-confidence": "its probability under the most confident member",
    "entropy-weighted": "like `mean-prob`, each member scaled by exp(-entropy) at that pixel",
    "median-prob": "weighted median of their probabilities: robust to a broken member",
    "trimmed-mean": "weighted mean of their probabilities without a quarter of the weight at each end",
    "staple": "posterior under reliabilities estimated from the label maps alone (Warfield's EM)",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=512, help="generated scenes, without --input")
    pool = os.environ.get("MASKFUSE_POOL")
    parser.add_argument(
        "--models", action="append", default=None, help="files, folders or globs instead of the sample nets"
    )
    parser.add_argument(
        "--input",
        default=os.environ.get("MASKFUSE_VALIDATION", ""),
        help="labelled tiles (.npz)",
    )
    parser.add_argument("--groups", default=os.environ.get("MASKFUSE_GROUPS", ""), help="scene of each tile")
    parser.add_argument("--metric", default="keras-ignore")
    parser.add_argument("--check", action="store_true", help="compare README's table with strategies.md, and stop")
    options = parser.parse_args()
    if options.check:
        return check()
    models = options.models or ([pool] if pool else [])
    if bool(models) != bool(options.input):
        parser.error("your own nets and tiles go together: give --models and --input, or neither")
    with tempfile.TemporaryDirectory() as temporary:
        tiles = options.input or str(save_scenes(Path(temporary) / "scenes.npz", options.scenes))
        job = Options(models=models or (str(SAMPLES),), input=tiles, labels=tiles)
        groups = options.groups if options.input else ""
        facts = compare(CompareOptions(job, groups=groups, metric=options.metric, gallery=0)).facts
    real = bool(options.input)
    path = publish(facts, real)
    if real and path.parent == STANDING:
        README.write_text(with_block(README.read_text("utf-8"), block(facts)), "utf-8")
    print(path.read_text("utf-8"))
    return 0


def check() -> int:
    """Print how README's table differs from the measured one or from this script; return the exit code."""
    texts = [path.read_text("utf-8") for path in (README, STANDING / "strategies.md")]
    shown, measured = (text.partition(FIRST_MARK)[2].partition(LAST_MARK)[0] for text in texts)
    said = {row[0]: row[1] for row in re.findall(r"^\| `([a-z-]+)` \| \S.*\| (.*) \|$", shown, flags=re.MULTILINE)}
    wrong = [] if shown == measured else ["README.md: its table of strategies differs from results/strategies.md"]
    wrong += [f"README.md: no row for {name}" for name in STRATEGIES if name not in said]
    wrong += [f"README.md: {name} is no strategy" for name in said if name not in STRATEGIES]
    wrong += [
        f"README.md: {name} is described differently in bench_strategies.py"
        for name in said
        if said[name] != TOLD.get(name)
    ]
    print("\n".join(wrong) or "README.md: the table of strategies is up to date")
    return int(bool(wrong))


def publish(facts: Facts, real: bool) -> Path:
    """Write the page of a comparison, on real tiles or on generated scenes."""
    drawn = f"{facts.groups:,} scenes" if facts.groups else "single images"
    names = ", ".join(member.name for member in facts.members)
    held = ", ".join(facts.classes[index] for index in facts.suppressed) or "no class"
    text = (
        f"{len(facts.members)} members ({names}) on {facts.images:,} "
        f"{'labelled validation tiles' if real else 'generated scenes'}, {facts.workers} workers. "
        f"MIoU by the convention {facts.metric}. Suppressed: never predicting {held}. Tuned: with class biases, "
        f"cross-fitted. Intervals: {facts.level:.0%} bootstrap over {drawn}; differences are paired, to the best "
        "single member in its best state, which is chosen on these tiles. Images/s: a run with only this.\n"
    )
    told = "Nets of `trainers fit` kept the epoch that scored best on these tiles, so all scores are somewhat high.\n"
    return write(
        "strategies" if real else "strategies_scenes",
        f"Fusion strategies on {'real tiles' if real else 'generated scenes'}",
        "python -m benchmarks strategies",
        ["numpy", "numba", "onnxruntime-gpu"],
        *([text, told] if real else [text]),
        block(facts) + "\n",
        "## Every member and strategy\n\n"
        "Interval and difference are of the best state of each.\n\n" + strategies_table(facts),
        "## One step at a time\n\n" + ablation_table(facts),
    )


def block(facts: Facts) -> str:
    """Return the table, also shown in README, between its marks: one row per strategy, suppressed."""
    metric = facts.metric
    single = facts.rows[facts.baseline[metric]]
    lines = [[f"best single member ({single.name})", *figures(single, metric, True), ""]]
    state = "suppressed" if facts.suppressed else "raw"
    for row in facts.rows:
        if row.member < 0 and row.state == state:
            lines.append([f"`{row.name}`", *figures(row, metric), TOLD.get(row.name, "")])
    chosen = next((step for step in facts.ablation if step.name == "+ selection"), None)
    if chosen is not None:
        what = "members and strategy chosen by `engine select`, cross-fitted, with flips"
        value = f"{chosen.value:.4f}"
        change = f"{chosen.value - single.scores[metric].value:+.4f}"
        lines.append(["selected", value, change, f"{chosen.rate:,.0f}", what])
    table = rows(["strategy", f"MIoU, {state}", "vs best single", "images/s", "class score at a pixel"], lines)
    return f"{FIRST_MARK}\n{left(table, 5)}{LAST_MARK}"


def left(table: str, column: int) -> str:
    """Return a table one of whose columns, counted from 1, is aligned to the left."""
    lines = table.splitlines()
    cells = lines[1].split("|")
    cells[column] = " --- "
    lines[1] = "|".join(cells)
    return "\n".join(lines) + "\n"


def figures(row: Row, metric: str, single: bool = False) -> list[str]:
    found = row.scores[metric]
    change = "" if single else f"{found.gain:+.4f} [{found.gain_low:+.3f}, {found.gain_high:+.3f}]"
    return [f"{found.value:.4f}", change, f"{row.rate:,.0f}"]


def with_block(text: str, block: str) -> str:
    """Return a text with the part between its marks replaced."""
    before, mark, rest = text.partition(FIRST_MARK)
    _, end, after = rest.partition(LAST_MARK)
    if not (mark and end):
        raise SystemExit(f"README.md lacks its marks {FIRST_MARK} and {LAST_MARK}")
    return before + block + after


def save_scenes(path: Path, count: int) -> Path:
    from engine.samples.scenes import generate

    scenes = generate(count)
    np.savez(path, images=scenes.images, labels=scenes.labels)
    return path


def strategies_table(facts: Facts) -> str:
    """One row per member or strategy, in the order of its best state."""
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
    header = ["name", "kind", "images/s", *STATES, "interval", "difference"]
    return left(rows(header, lines), 2)


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
    return left(rows(["step", "what", "MIoU", "change", "images/s"], lines), 2)


if __name__ == "__main__":
    sys.exit(main())

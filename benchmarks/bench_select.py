"""Selection speed: candidate ensembles per second, against the plain engine on the same pixels and on all of them.

``python -m benchmarks.bench_select [--tiles 500] [--members 8] [--pixels 100000,200000] [--repeats 5]`` writes
benchmarks/results/select.md. All figures of a table come from one run; a figure is the median of its repeats.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import median
from time import perf_counter
from types import SimpleNamespace

import numpy as np

from benchmarks.table import rows, write
from engine.select.additive import ADDITIVE
from engine.select.cache import log_probabilities
from engine.select.crossfit import assign_folds, cross_fit
from engine.select.pool import Choice, Pool
from engine.select.sample import Sample, draw
from engine.select.search import Settings, exhaustive, greedy, prepare
from engine.utils.threads import available_cores

CLASSES, SIZE, FOLDS, ROUNDS = 5, (64, 128), 5, 20


def make_pool(tiles: int, members: int, seed: int = 0) -> Pool:
    """Members that see blocks of one class through independent noise; class 4 is rare, a scene has ten tiles."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(CLASSES, (tiles, 8, 16), p=[0.28, 0.5, 0.1, 0.1, 0.02])
    truth = np.kron(coarse, np.ones((1, 8, 8), np.int64)).reshape(tiles, -1).astype(np.uint8)
    logs = []
    for _ in range(members):
        made = np.empty((tiles, CLASSES, truth.shape[1]), np.float16)
        for tile in range(tiles):
            shown = np.eye(CLASSES, dtype=np.float32)[truth[tile]].T * rng.uniform(1, 3)
            made[tile] = log_probabilities(shown + rng.normal(0, 1.2, shown.shape).astype(np.float32))
        logs.append(made)
    members = [SimpleNamespace(is_set=False, name=f"member {index}") for index in range(members)]
    names = tuple(f"class {index}" for index in range(CLASSES))
    return Pool(members, logs, truth, np.arange(tiles) // 10, SIZE, names, 0, frozenset({0}))


def timed(work: Callable[[], int], repeats: int) -> float:
    """Return the candidates per second of ``work``, which returns how many it scored."""
    work()
    rates = []
    for _ in range(repeats):
        began = perf_counter()
        count = work()
        rates.append(count / (perf_counter() - began))
    return median(rates)


def search_rates(sample: Sample, repeats: int) -> list[list[object]]:
    """Return one row per strategy: greedy on one core and with one fold per core, exhaustive on one core."""
    cores = available_cores()
    lines = []
    for name in ADDITIVE:
        base = prepare(sample, name, len(sample.logits) + ROUNDS)

        def run_greedy(fold: int | None = None, base=base) -> int:
            own = replace(base, fold=fold)
            greedy(own, ROUNDS)
            return own.tried

        def run_exhaustive(base=base) -> int:
            own = replace(base)
            exhaustive(own)
            return own.tried

        def run_all(run_greedy=run_greedy) -> int:
            with ThreadPoolExecutor(cores) as pool:
                return sum(pool.map(run_greedy, range(cores)))

        rates = [timed(work, repeats) for work in (run_greedy, run_all, run_exhaustive)]
        lines.append([name, base.packed.dtype, *(f"{rate:,.0f}" for rate in rates)])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--pixels", default="100000,200000")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    pool = make_pool(options.tiles, options.members)
    folds = assign_folds(pool.truth, pool.groups, FOLDS, CLASSES, 0)
    choice = Choice("mean-prob", (1,) * options.members, pool.decoding)
    all_pixels = timed(lambda: len(pool.confusions(choice)[:1]), options.repeats)
    sections = []
    for pixels in map(int, options.pixels.split(",")):
        sample = draw(pool, "labelled", folds, pixels, 0)
        same = timed(lambda sample=sample: len(sample.fused_confusions(choice)), options.repeats)
        lines = search_rates(sample, options.repeats)
        best = float(str(lines[1][2]).replace(",", ""))
        began = perf_counter()
        fitted = cross_fit(pool, sample, folds, Settings(rounds=ROUNDS), clean_up=False)
        seconds = perf_counter() - began
        header = ["strategy", "scores", "greedy, 1 core", f"greedy, {available_cores()} cores", "exhaustive, 1 core"]
        sections.append(
            f"## {sample.logits.shape[2]:,} of {sample.available:,} labelled pixels\n\n"
            "Candidate ensembles per second, including the score:\n\n" + rows(header, lines) + "\n"
            f"The engine's own fusion and counting of {options.members} members (mean-prob): {same:,.0f} candidates/s "
            f"on the same pixels (greedy on one core is {best / same:.0f} times that) and {all_pixels:.1f} on all "
            f"pixels with all cores ({best / all_pixels:,.0f} times).\n\n"
            f"A whole selection with {FOLDS} folds, all strategies, biases and thresholds, without clean-up: "
            f"{fitted.tried:,} candidates in {seconds:.1f} s.\n"
        )
    text = (
        f"{options.members} members, {options.tiles} tiles of {SIZE[0]}x{SIZE[1]}, {CLASSES} classes, class 0 "
        f"suppressed; {ROUNDS} rounds; median of {options.repeats}.\n"
    )
    path = write(
        "select", "Selection", "python -m benchmarks.bench_select", ["numpy", "numba"], text, "\n".join(sections)
    )
    print(path.read_text())


if __name__ == "__main__":
    main()

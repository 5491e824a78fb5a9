"""Memory of the sessions: speed and peak of nets that run in turns, by how ONNX Runtime allocates.

``python -m benchmarks.bench_arenas [--rounds 5] [--quick]`` writes benchmarks/results/arenas.md. Every setting is a
process of its own, since an arena belongs to a process; the settings take turns. Each of two threads runs all nets of
four nets of the zoo on 16 images, 4 at a time, as a worker of the engine does.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.table import rows, write
from benchmarks.zoo_nets import FOUR

BATCH, PART, THREADS = 16, 4, 2
# Names of mallopt in glibc, and values: memory up to the most that it allows is kept when it is freed.
KEEP = {-3: 32 << 20, -1: 1 << 30}
SETTINGS = {
    "no arena": {},
    "no arena, memory kept by malloc": {"kept": True},
    "one per session": {"enable_cpu_mem_arena": True},
    "one per session, no memory pattern": {"enable_cpu_mem_arena": True, "enable_mem_pattern": False},
    "one for all (the engine's)": {"shared": True},
    "one for all, no memory pattern": {"shared": True, "enable_mem_pattern": False},
    "one for all, no memory pattern, shrunk after each run": {
        "shared": True, "enable_mem_pattern": False, "shrunk": True
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="2 rounds of a second")
    parser.add_argument("--one", choices=tuple(SETTINGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 1.0
    if options.one:
        print(json.dumps(measured(SETTINGS[options.one], options.seconds)))
        return
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
    for _ in range(options.rounds):
        for name, found in taken.items():
            command = [sys.executable, "-m", "benchmarks.bench_arenas", "--one", name]
            done = subprocess.run([*command, "--seconds", str(options.seconds)], capture_output=True, check=True)
            found.append(tuple(json.loads(done.stdout)))
            print(name, *(f"{value:.0f}" for value in found[-1]), flush=True)
    print(write("arenas", "Memory arenas", "python -m benchmarks.bench_arenas",
                ("numpy", "onnxruntime-gpu"), table(taken)))  # fmt: skip


def table(taken: dict[str, list[tuple[float, float]]]) -> str:
    """Return the table; the ratio is the median of the rounds' own ratios."""
    base = [rate for rate, _ in taken["no arena"]]
    lines = []
    for name, found in taken.items():
        rates = [rate for rate, _ in found]
        ratio = median(rate / other for rate, other in zip(rates, base, strict=True))
        peak = max(peak for _, peak in found)
        spread = f"{min(rates):,.1f} to {max(rates):,.1f}"
        lines.append((name, f"{median(rates):,.1f}", spread, f"{ratio:.2f}", f"{peak:,.0f}"))
    head = ("arena", "images/s", "least and greatest", "against no arena", "peak MB")
    told = f"{len(files())} nets, {len(base)} rounds in turns, medians; peak memory of the process.\n"
    return f"{told}\n{rows(head, lines)}"


def files() -> list[Path]:
    """Return the nets that are run."""
    return list(FOUR)


def measured(setting: dict[str, bool], seconds: float) -> tuple[float, float]:
    """Return images/s and the peak memory in MB."""
    import onnxruntime

    from engine.models.runtimes.arena import USE_ARENA, register_arena

    if setting.get("kept"):
        own = ctypes.CDLL(None)
        if not all(own.mallopt(name, value) for name, value in KEEP.items()):
            raise SystemExit("mallopt refuses: this malloc is not that of glibc")
    onnxruntime.set_default_logger_severity(4)
    run = onnxruntime.RunOptions()
    if setting.get("shrunk"):
        run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    sessions = []
    for path in files():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = bool(setting.get("enable_cpu_mem_arena"))
        options.enable_mem_pattern = setting.get("enable_mem_pattern", True)
        if setting.get("shared"):
            register_arena()
            options.enable_cpu_mem_arena = True
            options.add_session_config_entry(USE_ARENA, "1")
        sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    with ThreadPoolExecutor(THREADS) as pool:
        for duration in (0.3, seconds):
            end = perf_counter() + duration
            rate = sum(done.result() for done in [pool.submit(rounds, sessions, run, end) for _ in range(THREADS)])
    return rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rounds(sessions: list[Any], run: Any, end: float) -> float:
    """Run all nets on a batch, part by part, until the time is over; return images/s."""
    work = []
    for session in sessions:
        given, found = session.get_inputs()[0], session.get_outputs()[0]
        images = np.random.default_rng(0).random((BATCH, *given.shape[1:]), np.float32)
        work.append((session, given.name, images, found.name, np.empty((BATCH, *found.shape[1:]), np.float32)))
    began, count = perf_counter(), 0
    while not count or perf_counter() < end:
        for session, name, images, output, out in work:
            for start in range(0, BATCH, PART):
                part, goal = images[start : start + PART], out[start : start + PART]
                binding = session.io_binding()
                binding.bind_cpu_input(name, part)
                binding.bind_output(output, "cpu", 0, np.float32, goal.shape, goal.ctypes.data)
                session.run_with_iobinding(binding, run)
        count += BATCH
    return count / (perf_counter() - began)


if __name__ == "__main__":
    main()

"""What --scores and --doubt cost: a run of nets with and without them, in turns, and the memory of long runs.

    python -m benchmarks evidence                                            # sample nets on generated scenes
    python -m benchmarks.bench_evidence --models zoo/pan-zoo-fold0.onnx \
        --models zoo/residual-zoo-fold0.onnx --models zoo/residual-zoo-fold1.onnx --input mars_for_students.npz

Writes benchmarks/results/evidence.md. Each run is a process of its own (``engine ensemble``); times are medians of the
runs' own seconds, from the first image to the last mask; memory is the process's peak, also on four times the images.
``--add rounds --rounds 1`` and ``--add long`` measure in pieces, and keep them in evidence.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bench_strategies import save_scenes
from benchmarks.table import RESULTS, rows, write
from engine.samples import SAMPLES
from engine.sources.open import open_source

PLAIN, LONG, TIMES = "masks alone", ("masks alone", "--scores s.npy --doubt d.npy"), 4
FORMS = {
    PLAIN: (),
    "--scores s.npy": ("--scores", "s.npy"),
    "--doubt d.npy (entropy)": ("--doubt", "d.npy"),
    "--doubt d.npy --doubt-map mutual-information": ("--doubt", "d.npy", "--doubt-map", "mutual-information"),
    "--scores s.npy --doubt d.npy": ("--scores", "s.npy", "--doubt", "d.npy"),
    "--scores s.npz --doubt d.npz": ("--scores", "s.npz", "--doubt", "d.npz"),
}
# Runs in a process of its own, which prints its seconds and its peak memory.
CHILD = """
import json, resource, sys
from contextlib import redirect_stdout
from io import StringIO
from engine.cli import app
out = StringIO()
with redirect_stdout(out):
    try:
        app(sys.argv[1:])
    except SystemExit as left:
        if left.code:
            raise
found = json.loads(out.getvalue())
print(json.dumps([found["seconds"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def run(models: list[str], images: Path, more: tuple[str, ...]) -> tuple[float, float]:
    """Return seconds and peak megabytes of one run; its files are removed."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["ensemble", *(part for name in models for part in ("-m", name)), "-i", str(images)]
        fixed = ["-o", "m.npy", "--json", "--batch-size", "4", "--strategy", "mean-prob"]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *given, *fixed, *more],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), float(peak) * (1024 if sys.platform != "darwin" else 1) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", action="append", default=None, help="files, folders or globs")
    parser.add_argument("--input", default="", help="images; generated scenes without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--add", choices=["rounds", "long"], help="measure this part alone and add it to evidence.json")
    options = parser.parse_args()
    models = [str(Path(name).resolve()) for name in options.models or [str(SAMPLES)]]
    rounds = 2 if options.quick else options.rounds
    RESULTS.mkdir(exist_ok=True)
    held = RESULTS / "evidence.json"
    found: dict[str, Any] = json.loads(held.read_text("utf-8")) if options.add and held.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        images, many = Path(temporary) / "images.npy", Path(temporary) / "many.npy"
        source = options.input or str(save_scenes(Path(temporary) / "scenes.npz", 664))
        pixels = np.concatenate(list(open_source(source).read(64)))
        np.save(images, pixels)
        found |= {"models": len(models), "images": len(pixels), "size": "x".join(map(str, pixels.shape[1:3]))}
        if options.add != "long":
            run(models, images, FORMS["--scores s.npy --doubt d.npy"])  # compiles, and fills the caches
            for _ in range(rounds):
                for name, more in FORMS.items():
                    found.setdefault("runs", {}).setdefault(name, []).append(run(models, images, more))
        if options.add != "rounds":
            np.save(many, np.concatenate([pixels] * TIMES))
            found["long"] = {name: run(models, many, FORMS[name])[1] for name in LONG}
    held.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if "runs" in found:
        print(page(found).read_text("utf-8"))
    return 0


def page(found: dict[str, Any]) -> Path:
    """Write the table of all runs that were measured."""
    times = {name: median(seconds for seconds, _ in runs) for name, runs in found["runs"].items()}
    lines = []
    for name, runs in found["runs"].items():
        cost = "" if name == PLAIN else f"{times[name] / times[PLAIN] - 1:+.1%}"
        shown = f"{found['long'][name]:,.0f}" if name in found.get("long", {}) else ""
        peak = f"{median(peak for _, peak in runs):,.0f}"
        lines.append([f"`{name}`" if name != PLAIN else name, f"{times[name]:.2f}", cost, peak, shown])
    head = ["files", "seconds", "cost", "peak memory, MB", f"the same, {TIMES * found['images']:,} images"]
    rounds = len(found["runs"][PLAIN])
    told = f"{found['models']} models, {found['images']:,} images of {found['size']}, {rounds} rounds in turns.\n"
    return write(
        "evidence", "What scores and doubt cost", "python -m benchmarks.bench_evidence", ("numpy", "onnxruntime-gpu"),
        told + "\n" + rows(head, lines),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())

"""`engine select` against the best row of `engine compare`, on drawn sets of 21 classes where that is hard.

``python -m benchmarks.bench_select_draws [--draws 10] [--against 7da9fc7]`` writes benchmarks/results/select_draws.md;
the older commit selects on the first sets as well. Each has forty tiles of overlapping boxes, on which classes are
rare, and two small nets: random convolutions, the last layer fitted by ridge regression. Both commands score every tile
by what was fitted without it, on the same folds.
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
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

from benchmarks.older import BASELINE, ROOT, checkout
from benchmarks.table import rows, write

CLASSES, SIZE, COUNT, MAPS = 21, (64, 128), 40, 16
NETS = {"small": (3, 1), "wide": (5, 2)}
MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FACTS = ("--scale", str(1 / 255), "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--against", default=BASELINE, metavar="REV", help="the older commit; default: %(default)s")
    parser.add_argument("--timed", type=int, default=2, help="sets that the older commit also selects on")
    parser.add_argument("--folder", type=Path, help="folders 0, 1, ... of other sets: val.npz, small.onnx, wide.onnx")
    options = parser.parse_args()
    lines, ratios = [], []
    with checkout(options.against) as older:
        for number in range(options.first, options.first + options.draws):
            with tempfile.TemporaryDirectory() as temporary:
                place = options.folder / str(number) if options.folder else Path(temporary)
                if not options.folder:
                    draw_set(place, number)
                cells, rate = line(number, place)
                if len(ratios) < options.timed:
                    before, old_rate = selection(older, place)
                    score = next(level for level in before["levels"] if level["chosen"])["cross_fitted"]["score"]
                    ratios.append(rate / old_rate)
                    cells += [f"{score:.4f}", f"{old_rate:,.0f}", f"{ratios[-1]:.1f}"]
                else:
                    cells += ["", "", ""]
                lines.append(cells)
                print(*cells, flush=True)
    below = sum("below" in str(cell) for row in lines for cell in row)
    head = ("draw", "best single member", "compare, best row", "its score", "select, cross-fitted", "difference",
            "plan on its own tiles", "candidates/s", f"select, {options.against}", f"candidates/s, {options.against}",
            "ratio")  # fmt: skip
    told = (
        f"{len(lines)} sets of {COUNT} tiles of {SIZE[0]}x{SIZE[1]}, {CLASSES} classes; {below} figures are below what "
        "they must reach. Candidates per second of the whole command, start and nets included"
        + (f": {median(ratios):.1f} times the older commit's, the median of {len(ratios)} sets.\n" if ratios else ".\n")
    )
    packages = ("numpy", "numba", "onnxruntime-gpu")
    title, own = "Selection against every row of a comparison", "python -m benchmarks.bench_select_draws"
    print(write("select_draws", title, own, packages, f"{told}\n{rows(head, lines)}"))


def draw_set(place: Path, number: int) -> None:
    """Write val.npz and the two nets."""
    draw = np.random.default_rng(number)
    colours = draw.integers(0, 256, (CLASSES, 3))
    labels = np.zeros((COUNT, *SIZE), np.uint8)
    for label in labels:
        for _ in range(6):
            top, left = draw.integers(0, SIZE[0] - 16), draw.integers(0, SIZE[1] - 32)
            label[top : top + draw.integers(10, 40), left : left + draw.integers(10, 60)] = draw.integers(0, CLASSES)
    images = np.clip(colours[labels] + draw.normal(0, 20, (*labels.shape, 3)), 0, 255).astype(np.uint8)
    np.savez(place / "val.npz", images=images, labels=labels)
    for name, (kernel, seed) in NETS.items():
        net(place / f"{name}.onnx", images, labels, kernel, np.random.default_rng((number, seed)))


def net(path: Path, images: np.ndarray, labels: np.ndarray, kernel: int, draw: np.random.Generator) -> None:
    """Write a convolution of random weights, a rectifier, and a linear layer fitted to the labels."""
    pixels = ((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    first = draw.normal(0, 1 / kernel, (MAPS, 3, kernel, kernel)).astype(np.float32)
    margin = kernel // 2
    padded = np.pad(pixels, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    windows = sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    maps = np.maximum(np.einsum("nchwij,mcij->nhwm", windows, first, optimize=True), 0).reshape(-1, MAPS)
    seen = np.c_[maps, np.ones(len(maps), np.float32)].astype(np.float64)
    wanted = 8.0 * np.eye(CLASSES)[labels.reshape(-1)]
    fitted = np.linalg.solve(seen.T @ seen + 1e-3 * np.eye(MAPS + 1), seen.T @ wanted).astype(np.float32)
    weights = {"first": first, "last": fitted[:-1].T.reshape(CLASSES, MAPS, 1, 1).copy(), "bias": fitted[-1]}
    nodes = [
        helper.make_node("Conv", ["pixels", "first"], ["maps"], pads=[margin] * 4),
        helper.make_node("Relu", ["maps"], ["kept"]),
        helper.make_node("Conv", ["kept", "last", "bias"], ["logits"]),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, *SIZE])]
        for name, channels in (("pixels", 3), ("logits", CLASSES))
    ]
    graph = helper.make_graph(nodes, "net", *ports, [numpy_helper.from_array(np.ascontiguousarray(value), name)
                                                     for name, value in weights.items()])  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def command(tree: Path, place: Path, *arguments: str) -> dict[str, Any]:
    """Run a command of a tree's engine in a folder; return its JSON."""
    nets = [part for name in NETS for part in ("-m", f"{name}.onnx")]
    data = ("-i", "val.npz:images", "--labels", "val.npz:labels")
    line = [sys.executable, "-m", "engine.cli", arguments[0], *nets, *data, *FACTS, *arguments[1:], "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def selection(tree: Path, place: Path) -> tuple[dict[str, Any], float]:
    """Return what ``engine select`` of a tree says, and its candidates per second."""
    began = perf_counter()
    selected = command(tree, place, "select", "--out", "plan.toml", "--overwrite")
    return selected, selected["candidates"] / (perf_counter() - began)


def line(number: int, place: Path) -> tuple[list[object], float]:
    """Return the row of one set, and the candidates per second."""
    compared = command(ROOT, place, "compare", "--out", "run.npz", "--overwrite")
    selected, rate = selection(ROOT, place)
    metric = compared["metric"]
    best = max(compared["rows"], key=lambda row: row["scores"][metric]["value"])
    single = max(row["scores"][metric]["value"] for row in compared["rows"] if row["member"] >= 0)
    chosen = next(level for level in selected["levels"] if level["chosen"])
    alone = next(level for level in selected["levels"] if level["name"] == "best single member")
    value, score = best["scores"][metric]["value"], chosen["cross_fitted"]["score"]
    own, least = chosen["same_images"], alone["same_images"]
    cells: list[object] = [
        number,
        f"{single:.4f}",
        f"{best['name']}, {best['state']}",
        f"{value:.4f}",
        f"{score:.4f}" + (" below" if score < value else ""),
        f"{score - value:+.4f}",
        f"{own:.4f}" + (" below" if own < least else ""),
        f"{rate:,.0f}",
    ]
    return cells, rate


if __name__ == "__main__":
    main()

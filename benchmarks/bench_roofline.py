"""Where a net's time goes, and what share of peak arithmetic it reaches: what is left to gain in float32.

``python -m benchmarks.bench_roofline NETS --tiles tiles.npz:test_set`` writes benchmarks/results/roofline.md. The peak
is NumPy's own multiplication of two large float32 matrices on all cores, timed alternately with each net. Operations
are counted from the shapes of convolutions and matrix products, two per multiply-add; the time per kind of node comes
from ONNX Runtime's profile on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.bench_peers import load_tiles
from benchmarks.peers.contenders import scaled
from benchmarks.subject import nets_and_tiles
from benchmarks.table import rows, write

BATCH, SECONDS = 4, 0.4
SIDE = 2048
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Names of the kinds of nodes in the table; ONNX Runtime fuses and renames some.
KINDS = {"Conv": "convolution", "FusedConv": "convolution", "ConvTranspose": "convolution"}
KINDS |= {"MatMul": "matrix product", "FusedMatMul": "matrix product", "Gemm": "matrix product"}
KINDS |= {"ReorderInput": "layout", "ReorderOutput": "layout", "Transpose": "layout"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path, nargs="?", help="folder of NAME.onnx; without it the sample nets")
    parser.add_argument("--tiles", default="", help="uint8 (n, height, width) tiles: FILE.npz:KEY; needed with NETS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if bool(options.nets) != bool(options.tiles):
        parser.error("your own nets and tiles go together: give NETS and --tiles, or neither")
    with nets_and_tiles(options.nets, options.tiles) as (nets, tiles):
        images = scaled(load_tiles(tiles, BATCH))
        paths = sorted(path for path in nets.glob("*.onnx") if not path.stem.endswith("_int8"))
        lines = [line(path, images, options.rounds, options.workers) for path in paths]
    header = ["net", "GFLOP per image", "images/s", "GFLOP/s", "peak GFLOP/s", "share of the peak"]
    header += ["convolution", "matrix product", "layout", "other nodes"]
    text = (
        f"{BATCH} images at a time on {options.workers} threads, one session of one thread, as the engine runs them; "
        f"medians of {options.rounds} rounds that alternate between net and peak. Last columns: share of the time.\n"
    )
    title, command = "How close the nets come to the machine's peak arithmetic", "python -m benchmarks.bench_roofline"
    print(write("roofline", title, command, ["numpy", "onnxruntime-gpu"], text, rows(header, lines)))


def line(path: Path, images: np.ndarray, rounds: int, workers: int) -> list[object]:
    """Return the row of a net."""
    from engine.models.runtimes.onnxruntime import OnnxSession

    session = OnnxSession(path)
    name = session.raw.get_outputs()[0].name
    work = operations(path, images.shape[1:])
    left, right = (np.random.default_rng(seed).random((SIDE, SIDE), np.float32) for seed in (0, 1))
    rates, peaks = [], []
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(rounds):
            rates.append(sum(pool.map(lambda _: rate(lambda: session.run(name, images)), range(workers))) * len(images))
            peaks.append(rate(lambda: left @ right) * 2 * SIDE**3 / 1e9)
    reached = [own * work / 1e9 for own in rates]
    share = median(own / peak for own, peak in zip(reached, peaks, strict=True))
    spent = profile(path, images)
    kinds = [f"{spent[kind]:.0%}" for kind in ("convolution", "matrix product", "layout", "other")]
    told = [f"{work / 1e9:.3f}", *(f"{median(of):,.0f}" for of in (rates, reached, peaks)), f"{share:.2f}", *kinds]
    return [path.stem, *told]


def rate(call: Callable[[], object]) -> float:
    """Return calls per second."""
    call()
    began, count = perf_counter(), 0
    while perf_counter() - began < SECONDS:
        call()
        count += 1
    return count / (perf_counter() - began)


def operations(path: Path, shape: tuple[int, ...]) -> int:
    """Return the floating-point operations of one image (channels, height, width)."""
    import onnx
    from onnx import shape_inference

    model = onnx.load(path)
    held = model.graph.input[0].type.tensor_type.shape.dim
    for dimension, size in zip(held, (1, *shape), strict=True):
        dimension.dim_value = size
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            continue
        given, weights, made = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
        if node.op_type == "Conv":
            total += 2 * math.prod(made) * math.prod(weights[1:])
        elif node.op_type == "ConvTranspose":
            total += 2 * math.prod(given) * math.prod(weights[1:])
        else:
            total += 2 * math.prod(made) * given[-1]
    return total


def profile(path: Path, images: np.ndarray) -> Counter[str]:
    """Return the share of the time per kind of node."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(10):
            session.run(None, {session.get_inputs()[0].name: images})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[KINDS.get(event["args"]["op_name"], "other")] += event["dur"]
    whole = sum(spent.values())
    return Counter({kind: taken / whole for kind, taken in spent.items()})


if __name__ == "__main__":
    main()

"""The whole job against its peers: the same nets, tiles and machine, alternating, each in a separate process.

``python -m benchmarks.bench_peers NETS --tiles tiles.npz:test_set`` writes benchmarks/results/peers.md. NETS is a
folder of NAME.onnx (and NAME.keras for Keras; NAME_int8.onnx, made by `exporters quantize`, for int8); without it the
sample nets run on generated scenes. Every process
opens its nets and warms up once, then waits; the rounds alternate between all of them. The table shows medians.
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

from benchmarks.peers.contenders import CONTENDERS
from benchmarks.subject import nets_and_tiles
from benchmarks.table import rows, write

PACKAGES = ("numpy", "numba", "onnxruntime-gpu", "onnxruntime", "openvino", "torch", "keras", "tensorflow")
PLAIN, SLOW = "ONNX Runtime + NumPy", "Keras predict + NumPy"
ASYNC, ASYNC_LOW = "OpenVINO async float32 + NumPy", "OpenVINO async bf16 + NumPy"
# On the same int8 files, so it runs where all nets have one.
ASYNC_INT8 = "OpenVINO async int8 + NumPy"
INT8 = "maskfuse --runtime auto --precision int8"
FLOAT = ("maskfuse", "maskfuse --runtime openvino", "maskfuse --runtime auto")
LOW = ("maskfuse --runtime auto --precision bf16", INT8)
# What is compared, and the project's own requirements.
BARS = (
    ("maskfuse", PLAIN, 1.25),
    ("maskfuse", SLOW, 3.0),
    ("best of maskfuse in float32", ASYNC, 1.1),
    ("best of maskfuse below float32", ASYNC_LOW, 1.2),
    (INT8, ASYNC_INT8, 1.15),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path, nargs="?", help="folder of NAME.onnx and NAME.keras")
    parser.add_argument("--tiles", default="", help="uint8 (n, height, width) tiles: FILE.npz:KEY; needed with NETS")
    parser.add_argument("--images", type=int, default=332, help="images per round; tiles are repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="only contenders whose names contain one of these; writes no table")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if bool(options.nets) != bool(options.tiles):
        parser.error("your own nets and tiles go together: give NETS and --tiles, or neither")
    with nets_and_tiles(options.nets, options.tiles) as (options.nets, options.tiles):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Run all contenders and write the table, or run as one of them."""
    names = sorted(path.stem for path in options.nets.glob("*.onnx") if not path.stem.endswith("_int8"))
    tiles = load_tiles(options.tiles, options.images)
    if options.contender:
        serve(options.contender, options.nets, names, tiles)
        return
    chosen = [name for name in CONTENDERS if not options.only or any(part in name for part in options.only)]
    for contender, ending in ((SLOW, ".keras"), (ASYNC_INT8, "_int8.onnx")):
        if not all((options.nets / f"{name}{ending}").exists() for name in names):
            chosen = [name for name in chosen if name != contender]
    with tempfile.TemporaryDirectory() as folder:
        found = compete(chosen, Path(folder), options)
    sections = tables(found, options, names)
    if options.only:
        print("\n".join(sections))
    else:
        print(write("peers", "Peers", "python -m benchmarks.bench_peers", PACKAGES, *sections))


def load_tiles(spec: str, count: int) -> np.ndarray:
    path, _, key = spec.rpartition(":")
    with np.load(path) as archive:
        return np.resize(archive[key], (count, *archive[key].shape[1:]))


def serve(name: str, folder: Path, names: list[str], tiles: np.ndarray) -> None:
    """Run as one contender: warm up, then predict once per line on stdin and answer each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    output = Path(tempfile.gettempdir()) / f"peer-{os.getpid()}.npy"
    contender = CONTENDERS[name]()
    try:
        told = contender.load(folder, names, tiles)
        contender.predict(tiles[:32], output)
    except Exception as error:  # one that cannot take these nets is a row that says so, not the end of the table
        answer(failed=f"{type(error).__name__}: {error}"[:300])
        return
    answer(told=told)
    for line in sys.stdin:
        began = perf_counter()
        contender.predict(tiles, Path(line.strip()))
        answer(seconds=perf_counter() - began, peak=_peak())
    output.unlink(missing_ok=True)


def _peak() -> int:
    from engine.bench import peak_memory

    return peak_memory()


def compete(chosen: list[str], folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Start all contenders in sequence, then alternate between them."""
    found: dict[str, dict[str, Any]] = {}
    running: dict[str, subprocess.Popen[str]] = {}
    for name in chosen:
        command = [sys.executable, "-m", "benchmarks.bench_peers", str(options.nets), "--tiles", options.tiles]
        command += ["--images", str(options.images), "--contender", name]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        found[name] = _answer(process)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
        if "failed" not in found[name]:
            running[name] = process
            found[name]["seconds"] = []
    for _ in range(options.rounds):
        for number, (name, process) in enumerate(running.items()):
            assert process.stdin is not None
            process.stdin.write(f"{folder / str(number)}.npy\n")
            process.stdin.flush()
            done = _answer(process)
            if "failed" in done:
                raise SystemExit(f"{name}: {done['failed']}")
            found[name]["seconds"].append(done["seconds"])
            found[name]["peak"] = done["peak"]
            found[name]["labels"] = np.load(f"{folder / str(number)}.npy")
    for process in running.values():
        process.communicate()
    return found


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    return json.loads(line) if line else {"failed": f"its process ended with {process.wait()}"}


def tables(found: dict[str, dict[str, Any]], options: argparse.Namespace, names: list[str]) -> list[str]:
    rates = {name: options.images / median(held["seconds"]) for name, held in found.items() if "seconds" in held}
    reference = next((found[name]["labels"] for name in (PLAIN, *found) if name in rates), None)
    lines = []
    for name, held in found.items():
        if name not in rates:
            lines.append((name, "fails", "", "", held["failed"]))
            continue
        same = float((held["labels"] == reference).mean())
        lines.append((name, f"{rates[name]:.1f}", f"{held['peak'] / 1e6:,.0f}", f"{same:.4%}", held["told"]))
    told = (
        f"{len(names)} nets ({', '.join(names)}), {options.images} tiles a round, {options.rounds} rounds in turns, "
        "medians. Mean logits, class 0 suppressed, labels into an .npy file.\n"
    )
    first = rows(("contender", "images/s", "peak MB", "same labels as plain ONNX Runtime", "settings"), lines)
    for title, group in (("best of maskfuse in float32", FLOAT), ("best of maskfuse below float32", LOW)):
        rates[title] = max((rates[name] for name in group if name in rates), default=0.0)
    bars = []
    for ours, peer, bar in BARS:
        if rates.get(ours) and peer in rates:
            ratio = rates[ours] / rates[peer]
            bars.append((ours, peer, f"{ratio:.2f}", f"{bar:.2f}", "reached" if ratio >= bar else "missed"))
    return [told, first, "## Against the bars\n", rows(("ours", "peer", "ratio", "bar", ""), bars)]


if __name__ == "__main__":
    main()

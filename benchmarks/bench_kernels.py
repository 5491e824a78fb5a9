"""Fusion speed: every strategy in GB/s of logits read, against the machine's read bandwidth, NumPy and torch.

``python -m benchmarks.bench_kernels [--images 256] [--repeats 7]`` writes benchmarks/results/kernels.md. All figures
of a table come from one run; a figure is the median of its repeats, and the contenders alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.table import rows, write
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse
from engine.fusion.strategies import STRATEGIES
from engine.kernels.counting import first_not_finite
from engine.utils.threads import available_cores

MEMBERS, CLASSES, PIXELS = 6, 5, 64 * 128
# Requirements, as shares of the read bandwidth.
BARS = {"mean-logit": 0.6, "vote": 0.6, "mean-prob": 0.3}
SUPPRESS = Decoding(frozenset({0}))
ONE_CALL = "NumPy mean-prob, one call"


def make_logits(images: int, seed: int, shared: float = 3.0, noise: float = 0.5) -> np.ndarray:
    """Return float32 (members, images, classes, pixels): a common blocky signal and each member's own noise."""
    draw = np.random.default_rng(seed)
    signal = np.kron(draw.normal(0, shared, (images, CLASSES, 8, 16)), np.ones((8, 8))).astype(np.float32)
    logits = draw.standard_normal((MEMBERS, images, CLASSES, PIXELS), dtype=np.float32)
    logits *= noise
    logits += signal.reshape(1, images, CLASSES, PIXELS)
    return logits


def agreement(logits: np.ndarray) -> tuple[float, float]:
    """Return the share of pixels on which two members agree on average, and the share with a tied vote."""
    labels = logits[:, :, 1:].argmax(axis=2)
    pairs = [(labels[a] == labels[b]).mean() for a, b in combinations(range(MEMBERS), 2)]
    ties = fuse(logits, "vote", None, SUPPRESS).ties.sum() / labels[0].size
    return float(np.mean(pairs)), float(ties)


def seconds_to_compile() -> dict[str, float]:
    """Return the seconds of each strategy's first use, in a fresh process with an empty cache."""
    code = (
        "import json, time\n"
        "from engine.fusion.compiling import compile_ahead\n"
        "from engine.fusion.strategies import STRATEGIES\n"
        "took = {}\n"
        "for name in STRATEGIES:\n"
        "    began = time.perf_counter()\n"
        f"    compile_ahead([name], {CLASSES})\n"
        "    took[name] = time.perf_counter() - began\n"
        "print(json.dumps(took))"
    )
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | {"NUMBA_CACHE_DIR": empty}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def numpy_mean_prob(logits: np.ndarray) -> np.ndarray:
    terms = np.exp(logits - logits.max(axis=2, keepdims=True))
    return (terms / terms.sum(axis=2, keepdims=True)).mean(axis=0).argmax(axis=1)


def numpy_mean_logit(logits: np.ndarray) -> np.ndarray:
    return logits.mean(axis=0).argmax(axis=1)


def torch_contenders(logits: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return torch's soft vote, eager and compiled, on all cores; nothing if torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(available_cores())
    tensor = torch.from_numpy(logits)

    def soft_vote(x):
        return torch.softmax(x, dim=2).mean(dim=0).argmax(dim=1).to(torch.uint8)

    compiled = torch.compile(soft_vote)
    try:
        compiled(tensor)
    except Exception as error:  # torch raises many kinds where no C++ compiler is at hand
        print("torch.compile does not work here:", str(error).splitlines()[0])
        return {"torch mean-prob, eager": lambda: soft_vote(tensor)}
    return {
        "torch mean-prob, eager": lambda: soft_vote(tensor),
        "torch mean-prob, torch.compile": lambda: compiled(tensor),
    }


def fused(name: str) -> Callable[[np.ndarray], object]:
    """Return the strategy in the form a worker runs it."""
    return lambda share: fuse(share, name, None, SUPPRESS)


def read(share: np.ndarray) -> object:
    """Read every logit once and do almost nothing with it: the memory bandwidth."""
    return first_not_finite(share.view(np.int32).reshape(MEMBERS, -1))


def all_contenders(pool: ThreadPoolExecutor, images: int) -> tuple[dict[str, Callable[[], object]], float, str]:
    """Return the contenders by name, the GB of logits each reads, and a description of the logits."""
    cores = available_cores()
    shares = [make_logits(images // cores, seed) for seed in range(cores)]
    apart = [make_logits(images // cores, seed, shared=0.0, noise=3.0) for seed in range(cores)]
    whole = np.concatenate(shares, axis=1)

    def on_all_cores(work: Callable[[np.ndarray], object], given: list[np.ndarray]) -> Callable[[], object]:
        return lambda: list(pool.map(work, given))

    contenders = {"read": on_all_cores(read, shares)}
    contenders |= {name: on_all_cores(fused(name), shares) for name in STRATEGIES}
    contenders["vote, unrelated members"] = on_all_cores(fused("vote"), apart)
    contenders[ONE_CALL] = lambda: numpy_mean_prob(whole)
    contenders["NumPy mean-prob, one call per core"] = on_all_cores(numpy_mean_prob, shares)
    contenders["NumPy mean-logit, one call"] = lambda: numpy_mean_logit(whole)
    contenders |= torch_contenders(whole)
    (agree, ties), (agree_apart, ties_apart) = agreement(shares[0]), agreement(apart[0])
    told = (
        f"{MEMBERS} members, {images} images of {PIXELS} pixels, {CLASSES} classes, float32, class 0 suppressed; "
        f"{whole.nbytes / 1e9:.2f} GB of logits; one worker a core ({cores}). Members share a signal: two agree on "
        f"{agree:.0%} of the pixels, {ties:.1%} are tied in the vote. Unrelated members, the worst case of ties: "
        f"{agree_apart:.0%} and {ties_apart:.1%}."
    )
    return contenders, whole.nbytes / 1e9, told


def take_turns(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, after a warm-up run."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()
    for _ in range(repeats):
        for name, contender in contenders.items():
            began = perf_counter()
            contender()
            seconds[name].append(perf_counter() - began)
    return {name: median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    compiled = seconds_to_compile()
    with ThreadPoolExecutor(available_cores()) as pool:
        contenders, size, told = all_contenders(pool, options.images)
        speed = {name: size / seconds for name, seconds in take_turns(contenders, options.repeats).items()}
    bandwidth = speed.pop("read")
    peers = [name for name in speed if name.startswith(("NumPy mean-prob", "torch"))]
    lines = []
    for name in speed:
        bar = f">= {BARS[name]}" if name in BARS else ""
        against = [f"{speed[name] / speed[peer]:.1f}" for peer in peers]
        lines.append([name, f"{speed[name]:.2f}", f"{speed[name] / bandwidth:.2f}", bar, *against])
    header = ["strategy", "GB/s of logits", "share of read bandwidth", "bar", *(f"times {peer}" for peer in peers)]
    text = (
        f"{told} Median of {options.repeats} turns. Read bandwidth, measured in the same run: {bandwidth:.1f} GB/s. "
        f"Required for mean-prob: >= 30 times plain NumPy, >= 5 times torch.compile.\n"
    )
    first = (
        f"First use, once per installation: {sum(compiled.values()):.1f} s for all strategies "
        f"({', '.join(f'{name} {seconds:.1f}' for name, seconds in compiled.items())}); each holds what those before "
        "it did not compile already.\n"
    )
    command = "python -m benchmarks.bench_kernels"
    path = write("kernels", "Fusion kernels", command, ["numpy", "numba", "torch"], text, rows(header, lines), first)
    print(path.read_text())


if __name__ == "__main__":
    main()

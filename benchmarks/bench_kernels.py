"""Fusion speed: every strategy in GB/s of logits read, against the machine's read bandwidth, NumPy and torch.

``python -m benchmarks.bench_kernels [--images 256] [--repeats 7]`` writes benchmarks/results/kernels.md. All figures
of a table come from one run; a figure is the median of its repeats, and the contenders take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.table import rows, write
from engine.decode import Decoding
from engine.fuse import fuse
from engine.kernels.counting import first_not_finite
from engine.pipeline import available_cores
from engine.strategies import STRATEGIES

MEMBERS, CLASSES, PIXELS = 6, 5, 64 * 128
# What issue trackers and the design ask for, as shares of the read bandwidth.
BARS = {"mean-logit": 0.6, "vote": 0.6, "mean-prob": 0.3}


def make_logits(images: int, seed: int) -> np.ndarray:
    """Return float32 (members, images, classes, pixels): members that mostly agree, as trained ones do."""
    draw = np.random.default_rng(seed)
    shared = np.kron(draw.normal(0, 3, (images, CLASSES, 8, 16)), np.ones((8, 8)))
    noise = draw.normal(0, 1, (MEMBERS, images, CLASSES, PIXELS))
    return (shared.reshape(1, images, CLASSES, PIXELS) + noise).astype(np.float32)


def numpy_mean_prob(logits: np.ndarray) -> np.ndarray:
    terms = np.exp(logits - logits.max(axis=2, keepdims=True))
    return (terms / terms.sum(axis=2, keepdims=True)).mean(axis=0).argmax(axis=1)


def numpy_mean_logit(logits: np.ndarray) -> np.ndarray:
    return logits.mean(axis=0).argmax(axis=1)


def torch_contenders(logits: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return torch's soft vote, eager and compiled, on all cores; nothing when torch is not installed."""
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


def on_all_cores(pool: ThreadPoolExecutor, work: Callable[[np.ndarray], object], shares: list[np.ndarray]) -> object:
    """One worker a core, each with its share of the images."""
    return list(pool.map(work, shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    cores = available_cores()
    shares = [make_logits(options.images // cores, seed) for seed in range(cores)]
    whole = np.concatenate(shares, axis=1)
    size = whole.nbytes / 1e9
    pool = ThreadPoolExecutor(cores)
    suppress = Decoding(frozenset({0}))

    def read(share: np.ndarray) -> object:
        return first_not_finite(share.view(np.int32).reshape(MEMBERS, -1))

    def fused(name: str) -> Callable[[np.ndarray], object]:
        return lambda share: fuse(share, name, None, suppress)

    contenders: dict[str, Callable[[], object]] = {"read": lambda: on_all_cores(pool, read, shares)}
    for name in STRATEGIES:
        contenders[name] = lambda name=name: on_all_cores(pool, fused(name), shares)
    contenders["NumPy mean-logit"] = lambda: on_all_cores(pool, numpy_mean_logit, shares)
    contenders["NumPy mean-prob"] = lambda: on_all_cores(pool, numpy_mean_prob, shares)
    contenders |= torch_contenders(whole)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()
    for _ in range(options.repeats):
        for name, contender in contenders.items():
            began = perf_counter()
            contender()
            seconds[name].append(perf_counter() - began)
    speed = {name: size / median(times) for name, times in seconds.items()}
    peers = [name for name in speed if name.startswith(("NumPy", "torch"))]
    lines = []
    for name in [*STRATEGIES, *peers]:
        against = [f"{speed[name] / speed[peer]:.1f}" for peer in peers]
        bar = f">= {BARS[name]}" if name in BARS else ""
        lines.append([name, f"{speed[name]:.2f}", f"{speed[name] / speed['read']:.2f}", bar, *against])
    header = ["strategy", "GB/s of logits", "share of read bandwidth", "bar", *(f"times {peer}" for peer in peers)]
    ties = fuse(shares[0], "vote", None, suppress).ties.sum() / (shares[0].shape[1] * PIXELS)
    text = (
        f"{MEMBERS} members, {options.images} images of {PIXELS} pixels, {CLASSES} classes, float32, class 0 "
        f"suppressed, {ties:.1%} of the pixels tied in the vote; "
        f"{size:.2f} GB of logits; one worker a core ({cores}); median of {options.repeats}. "
        f"Read bandwidth, measured in the same run: {speed['read']:.1f} GB/s.\n"
    )
    path = write(
        "kernels",
        "Fusion kernels",
        "python -m benchmarks.bench_kernels",
        ["numpy", "numba", "torch"],
        text,
        rows(header, lines),
    )
    print(path.read_text())


if __name__ == "__main__":
    main()

"""How fast each architecture trains: images/s of a training epoch for every preset, and the number of parameters.

    python -m benchmarks.bench_trainers            # all of it: writes benchmarks/results/trainers.md
    python -m benchmarks.bench_trainers --quick    # one timed epoch of the tiny presets, printed only

A step is what `trainers fit` does: augmented tiles of 64x128, batch 16, AdamW, cross-entropy on the pixels that count.
Tiles are generated; their content does not change the time.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from pathlib import Path

from benchmarks.table import rows, write

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIZE, CLASSES, BATCH = (64, 128), 5, 16
#: Steps of a timed epoch: the smaller the network, the more there must be before the start of an epoch stops to show.
STEPS = {"tiny": 2, "small": 16, "base": 6, "large": 3}


def measure(arch: str, preset: str, epochs: int) -> tuple[int, float]:
    """Return the parameters, and the median images/s over epochs of a few steps after a first, traced one."""
    import keras
    import numpy as np

    from trainers.batches import Batches
    from trainers.config import FitConfig
    from trainers.data import Dataset
    from trainers.learner import make_learner
    from trainers.losses.base import Target
    from trainers.models import ARCHITECTURES

    rng = np.random.default_rng(0)
    count = BATCH * STEPS[preset]
    images = rng.integers(0, 256, (count, *SIZE, 1), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, (count, *SIZE), dtype=np.uint8)
    data = Dataset(images, labels, None, tuple(f"class {k}" for k in range(CLASSES)), np.arange(count))
    class_id = 1 if ARCHITECTURES[arch].specialist else None
    config = FitConfig(arch=arch, data="none", out="none.keras", preset=preset, batch_size=BATCH, class_id=class_id)
    learner = make_learner(config, (*SIZE, 1), Target(CLASSES, 0, class_id), steps=STEPS[preset])
    speeds = []
    for epoch in range(1 + epochs):
        batches = Batches(data, config, epoch)
        began = time.perf_counter()
        learner.trained.fit(batches, verbose=0, shuffle=False)
        speeds.append(count / (time.perf_counter() - began))
    parameters = int(learner.model.count_params())
    keras.utils.clear_session()
    gc.collect()
    return parameters, statistics.median(speeds[1:])


def report(lines: list[tuple[str, str, int, float]]) -> Path:
    import keras

    told = (
        f"Images/s of a training epoch: tiles of {SIZE[0]}x{SIZE[1]}, batch {BATCH}, augmentation included; median of\n"
        f"the epochs after the first, which traces the graph. Backend: {keras.backend.backend()}.\n"
    )
    cells = [(arch, preset, f"{parameters:,}", f"{speed:.1f}") for arch, preset, parameters, speed in lines]
    table = rows(["architecture", "preset", "parameters", "images/s"], cells)
    packages = ["keras", "tensorflow"]
    return write("trainers", "Training speed", "python -m benchmarks.bench_trainers", packages, told, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny presets, one timed epoch, nothing written")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs")
    parser.add_argument("--only", default="", help="architectures, separated by commas; all by default")
    options = parser.parse_args()
    from trainers.models import ARCHITECTURES

    presets = ("tiny",) if options.quick else ("small", "base", "large")
    wanted = options.only.split(",") if options.only else list(ARCHITECTURES)
    rows_measured = []
    for arch in wanted:
        for preset in presets:
            rows_measured.append((arch, preset, *measure(arch, preset, 1 if options.quick else options.epochs)))
            print(
                f"{arch} {preset}: {rows_measured[-1][2]:,} parameters, {rows_measured[-1][3]:.1f} images/s", flush=True
            )
    if options.quick or options.only:
        return
    print(report(rows_measured))


if __name__ == "__main__":
    main()

"""Two Ray workers against two local ones, a breakdown of the difference, and a projection to 10^9 images.

``python -m benchmarks.bench_ray [--images 2048] [--quick]`` writes benchmarks/results/ray.md and ray.json.
Both run the same command on the same images, alternating; the median of the repeats counts. Everything runs on one
machine: network transfer between machines is only projected, in bytes, not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import engine.runs.on_ray.stream
from benchmarks.ray_plan import SIZE, WORKERS, Measured, report
from engine.inference.prediction import Predicted
from engine.inference.tuning import tune
from engine.models.runtimes import RuntimeOptions
from engine.runs.image_job import prepare
from engine.runs.on_ray.cluster import Cluster, connect, leave, predicted_rows
from engine.runs.on_ray.predictor import Predictor
from engine.runs.on_ray.stream import portable
from engine.runs.on_ray.wire import packed, unpacked
from engine.runs.options import Options
from engine.runs.predict import run
from engine.runs.provenance import plan_hash
from engine.samples import SAMPLES

BATCH = 16


class Timed(Predictor):
    """An actor that reports how long it worked on a block."""

    def __call__(self, block: dict[str, Any]) -> dict[str, list[Any]]:
        """Predict one block and add the seconds."""
        began = time.time()
        row = super().__call__(block)
        return {**row, "worked": [[float(os.getpid()), began, time.time()]]}


class Idle:
    """An actor that predicts nothing and returns blocks of the usual size."""

    def __init__(self, pixels: int, asked: Sequence[Any]) -> None:
        """Create the labels once."""
        self._pixels, self._asked = pixels, list(asked)

    def __call__(self, block: dict[str, Any]) -> dict[str, list[Any]]:
        """Return zeros."""
        start, count = int(block["start"][0]), int(block["count"][0])
        ids = [str(index) for index in range(start, start + count)]
        part = Predicted(start, ids, np.zeros((count, self._pixels), np.uint8), member_seconds=[], member_runs=[])
        return {key: [value] for key, value in packed(start, [part], self._asked, False).items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", default=str(SAMPLES / "unet.onnx"), help="what predicts")
    parser.add_argument("--quick", action="store_true", help="fewer images, one repeat")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.repeats = min(options.images, 512), 1
    with tempfile.TemporaryDirectory() as folder:
        draw = np.random.default_rng(0)
        np.save(Path(folder) / "images.npy", draw.integers(0, 256, (options.images, *SIZE)).astype(np.uint8))
        found = measure(Path(folder), options.models, options.images, options.repeats)
    report(found, options)


def measure(folder: Path, models: str, images: int, repeats: int) -> Measured:
    """Run both, alternating, then each part alone."""
    asked = Options(models=(models,), input=str(folder / "images.npy"), output=folder / "masks.csv")
    here, there, first, busy = [], [], [], []
    began = time.perf_counter()
    assert connect(Cluster()), "a cluster already runs in this process"
    connecting = time.perf_counter() - began
    try:
        for _ in range(repeats):
            here.append(local_rate(asked))
            rate, start, each = ray_rate(asked)
            there.append(rate)
            first.append(start)
            busy.append(each)
        driver = idle_rate(images)
    finally:
        leave()
    journal, output = journal_rate(asked, folder)
    block = engine.runs.on_ray.stream.BLOCK_IMAGES
    told = (median(here), median(there), connecting, median(first), median(busy))
    return Measured(images, block, *told, driver, journal, output)


def local_rate(asked: Options) -> float:
    """Return images/s of the local pipeline; nets are open and kernels compiled before the clock starts."""
    job = prepare(replace(asked, overwrite=True))
    tune(job.ensemble, job.images, RuntimeOptions(), BATCH, WORKERS)
    done = run(job.ensemble, job.images, batch_size=BATCH, workers=WORKERS)
    return done.images / done.seconds


def ray_rate(asked: Options) -> tuple[float, float, float]:
    """Return images/s on Ray after the first blocks, seconds until then, and an actor's seconds per image."""
    job = prepare(replace(asked, overwrite=True))
    job.ensemble.runtime_options = RuntimeOptions()
    arguments = (portable(asked), RuntimeOptions(), BATCH, plan_hash(job.ensemble), False)
    block = engine.runs.on_ray.stream.BLOCK_IMAGES
    begins = range(0, len(job.images), block)
    began = time.perf_counter()
    spans = []
    first = 0.0
    pixels, classes, asked_for = math.prod(SIZE), len(job.ensemble.classes), [job.ensemble.variant]
    with quietly():
        for row in predicted_rows(Timed, arguments, Cluster(workers=WORKERS), begins, len(job.images)):
            unpacked(row, pixels, classes, asked_for)
            first = first or time.perf_counter() - began
            spans.append(row["worked"])
    rate, busy = steady(np.asarray(spans), block)
    return rate, first, busy


def steady(spans: np.ndarray, block: int) -> tuple[float, float]:
    """Return images/s while all actors worked, and an actor's seconds per image.

    Args:
        spans: float64 (blocks, 3): an actor's process, and when it began and ended a block, in seconds.
        block: images of a block.
    """
    actors = [spans[spans[:, 0] == process] for process in np.unique(spans[:, 0])]
    # From the end of the last actor's first block until the first actor runs out of work.
    begin, end = max(own[:, 2].min() for own in actors), min(own[:, 2].max() for own in actors)
    shares = (np.minimum(spans[:, 2], end) - np.maximum(spans[:, 1], begin)) / (spans[:, 2] - spans[:, 1])
    inside = np.clip(shares, 0, 1)
    assert len(actors) == WORKERS and end > begin, "too few images to keep both actors busy: give more"
    return float(inside.sum() * block / (end - begin)), float(
        np.median((spans[:, 2] - spans[:, 1])[inside > 0]) / block
    )


def idle_rate(images: int) -> float:
    """Return the images/s that one driver receives from actors that do nothing."""
    block, pixels = engine.runs.on_ray.stream.BLOCK_IMAGES, math.prod(SIZE)
    count = 16 * max(images, 8 * block)
    times = []
    with quietly():
        for row in predicted_rows(Idle, (pixels, ["own"]), Cluster(workers=WORKERS), range(0, count, block), count):
            unpacked(row, pixels, 5, ["own"])  # type: ignore[list-item]
            times.append(time.perf_counter())
    half = len(times) // 2
    return (len(times) - 1 - half) * block / (times[-1] - times[half])


def journal_rate(asked: Options, folder: Path) -> tuple[float, float]:
    """Return images/s of the submission writer, and the bytes per mask."""
    from engine.outputs.open import open_writer

    count = 8192
    masks = np.random.default_rng(0).integers(0, 5, (count, math.prod(SIZE))).astype(np.uint8)
    ids = [str(index) for index in range(count)]
    began = time.perf_counter()
    with open_writer(folder / "written.csv", ids, SIZE, 5) as writer:
        for start in range(0, count, 256):
            writer.write(ids[start : start + 256], masks[start : start + 256])
    seconds = time.perf_counter() - began
    return count / seconds, (folder / "written.csv").stat().st_size / count


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep Ray's warnings off the terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()

"""The batch size of a graph on a device: what suits it, fits its memory, and is the fastest where the run is long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

from engine.errors import ModelError
from engine.inference.device import DeviceFusion
from engine.inference.execution import GAIN
from engine.models.runtimes import GRAPH_ON_CPU
from engine.sources.base import Batch

# Images and pixels of a batch to start from: on a GPU a launch must be worthwhile (four nets of the zoo reached 0.95 of
# their limit with 256 tiles of 64x128), on a CPU the cache decides.
GPU_SIZE, GPU_PIXELS, CPU_SIZE, CPU_PIXELS = 256, 1 << 21, 16, 1 << 17
# A run of fewer batches a lane is over before other sizes have been measured.
LONG = 40
# Maximum share of the run, and seconds, for measuring, and how often each size is timed.
SHARE, MOST_SECONDS, ROUNDS = 0.02, 6.0, 3


def first_size(provider: str, sample: Batch, images: int, lanes: int) -> int:
    """Return a batch size to start from: what suits the device, and leaves work for every lane."""
    most, pixels = (CPU_SIZE, CPU_PIXELS) if provider == GRAPH_ON_CPU else (GPU_SIZE, GPU_PIXELS)
    fair = -(-images // lanes) or most
    return max(1, min(most, pixels // (sample.size[0] * sample.size[1]), fair))


def settle_size(device: DeviceFusion, sample: Batch, images: int, size: int, fixed: bool) -> None:
    """Open a device at the batch size of the run: halved until it fits the memory, measured where the run is long.

    Args:
        device: built.
        sample: a few images.
        images: of the run; 0 if that is not known.
        size: images per batch to start from.
        fixed: whether it must be that size.

    Raises:
        ModelError: the provider fails, or has too little memory.
    """
    while True:
        try:
            device.open(size)
            _turn(device, sample, 1)
            break
        except ModelError:
            device.close()
            if fixed or size == 1:
                raise
            size //= 2
    alone = device.batch_size != size  # a net of it takes one number of images
    if fixed or alone or device.provider == "tensorrt" or images < LONG * size * device.lanes:
        return
    rate = _turn(device, sample, ROUNDS)
    end = perf_counter() + min(MOST_SECONDS, SHARE * images / rate)
    while perf_counter() < end and size > 1:
        other = size // 2 if device.provider == GRAPH_ON_CPU else size * 2
        try:
            device.open(other)
            _turn(device, sample, 1)
            now = _turn(device, sample, ROUNDS)
        except ModelError:
            device.close()
            break
        if now < rate * GAIN:
            break
        size, rate = other, now
    device.open(size)


def _turn(device: DeviceFusion, sample: Batch, rounds: int) -> float:
    """Run so many batches in every lane; return images/s."""
    count = device.batch_size
    places = np.arange(count) % len(sample.ids)
    batch = Batch(0, [sample.ids[at] for at in places], sample.pixels[places])
    with ThreadPoolExecutor(device.lanes, thread_name_prefix="maskfuse-warm-up") as pool:
        began = perf_counter()
        for done in [pool.submit(device.run, batch) for _ in range(rounds * device.lanes)]:
            done.result()
        return rounds * device.lanes * count / (perf_counter() - began)

"""How the members run on this machine: provider, runtime, batch size and workers, settled by a short measurement."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, ModelError, PlanError
from engine.fusion.compiling import compile_kernels
from engine.inference.execution import GAIN, PART, Way, fastest_way, present_way, ways_of
from engine.inference.gpu import DeviceFusion, why_not
from engine.models.runtimes import Wanted
from engine.models.runtimes.onnxruntime import OnnxSession
from engine.models.runtimes.providers import choose_provider
from engine.sources.base import Batch, Source
from engine.utils import console
from engine.utils.threads import available_cores

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble

# One net takes all parts of a batch in turn, while its weights are in the cache: 16 were a tenth faster than 4.
BATCH_SIZE = 16
PARTS = (2, 4, 8)
# On a GPU a launch must be worth its while; of its two lanes one copies and fuses while the other computes.
GPU_BATCH_SIZE, GPU_WORKERS = 32, 2
# A batch of more pixels leaves every cache, and large images take much memory.
MOST_PIXELS = 1 << 17
# How many images are measured on, and what share of the whole run, and seconds, that may take.
SAMPLE, SHARE, MOST_SECONDS = 16, 0.01, 4.0
# A measurement shorter than this says nothing.
LEAST_SECONDS = 0.2


@dataclass
class Settled:
    """How a run goes.

    Attributes:
        batch_size: images a worker takes at a time.
        workers: threads.
        told: lines for people about what was chosen and why.
        seconds: what settling took.
    """

    batch_size: int
    workers: int
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0


def settle(
    ensemble: Ensemble,
    images: Source | None,
    wanted: Wanted | None = None,
    batch_size: int = 0,
    workers: int = 0,
) -> Settled:
    """Settle how the members run, and put their sessions in place.

    Neither batch size nor workers change the labels. Another runtime rounds differently; arithmetic below float32 is
    used only when ``wanted`` allows it, and its agreement with float32 on the sample is then measured and told.

    Args:
        ensemble: its members' sessions and its ``parts`` are replaced.
        images: what will be predicted; the first few are measured on. None where they are not at hand: then a choice
            of runtimes is measured on blank images of the size the members declare.
        wanted: what the user allows; None for ONNX Runtime in float32, on a GPU where one works.
        batch_size: images a worker takes at a time; 0 to measure.
        workers: threads; 0 for the faster of one a core and one every other core.

    Raises:
        PlanError: a negative number, a provider or runtime that is not there.
        ModelError: a net that the runtime asked for cannot run.
    """
    if batch_size < 0 or workers < 0:
        raise PlanError(f"batch size {batch_size}, workers {workers}: give a number above 0, or 0 to have it measured")
    wanted = wanted or Wanted()
    began = perf_counter()
    settled = Settled(batch_size or BATCH_SIZE, workers or available_cores())
    ensemble.wanted = wanted
    if wanted.runtime != "openvino" and _on_gpu(ensemble, wanted, settled):
        settled.batch_size, settled.workers = batch_size or GPU_BATCH_SIZE, workers or GPU_WORKERS
        reason = why_not(ensemble, ensemble.early_exit is not None)
        ensemble.device = None if reason else DeviceFusion(ensemble, settled.batch_size)
        if reason:
            settled.told.append(f"logits are fused on the CPU: {reason}")
    else:
        sample, real = _sample(ensemble, images)
        if sample is not None:
            count = len(images) if images is not None else 0
            _interruptible(ensemble, partial(_on_cpu, ensemble, sample, real, count, settled, batch_size, workers))
    settled.seconds = perf_counter() - began
    return settled


def _on_gpu(ensemble: Ensemble, wanted: Wanted, settled: Settled) -> bool:
    """Move the members to the provider that works; return whether that is a GPU."""
    choice = choose_provider(wanted.provider)
    if choice.told:
        settled.told.append(choice.told)
    if choice.provider == "cpu":
        return False
    for index, voter in enumerate(ensemble.members):
        sessions = tuple(OnnxSession(net.path, choice.provider, wanted.precision) for net in voter.nets)
        ensemble.use(index, Way(sessions, 0))
    return True


def _interruptible(ensemble: Ensemble, call: Callable[[], None]) -> None:
    """Call in a thread, so that Ctrl-C reaches this one while a net is in the middle of a batch."""
    with ThreadPoolExecutor(1, thread_name_prefix="maskfuse-warm-up") as pool:
        try:
            pool.submit(call).result()
        except (KeyboardInterrupt, SystemExit):
            ensemble.interrupt()
            raise


def _sample(ensemble: Ensemble, images: Source | None) -> tuple[Batch | None, bool]:
    """Return a few images to measure on, and whether they are real ones; blank ones where those cannot be read."""
    if images is not None:
        with contextlib.suppress(EngineError):
            first = next(images.batches(min(SAMPLE, max(1, len(images)))), None)
            return first, first is not None
    declared = (voter.contract.size for voter in ensemble.members)
    size = images.size if images is not None else next((size for size in declared if size), None)
    if size is None:
        return None, False
    channels = images.channels if images is not None else ensemble.members[0].contract.channels
    names = [str(index) for index in range(SAMPLE)]
    return Batch(0, names, np.zeros((SAMPLE, *size, channels), np.uint8)), False


def _on_cpu(
    ensemble: Ensemble,
    sample: Batch,
    real: bool,
    images: int,
    settled: Settled,
    batch_size: int,
    workers: int,
) -> None:
    """Choose runtime and precision of each member where there is a choice, then its batch size where there is time."""
    wanted = ensemble.wanted
    choice = (wanted.runtime, wanted.precision) != ("onnxruntime", "float32")
    try:
        want = _labels(ensemble, sample) if real and wanted.precision != "float32" else None
        expected = _seconds_an_image(ensemble, sample)
    except ModelError:
        # What is wrong with an image is for the run to say, which knows what to do then.
        sample, want = Batch(0, sample.ids, np.zeros_like(sample.pixels)), None
        try:
            expected = _seconds_an_image(ensemble, sample)
        except ModelError:
            return
    share = min(SHARE * expected * images / settled.workers, MOST_SECONDS) / len(ensemble.members)
    fair = -(-images // (2 * settled.workers)) or BATCH_SIZE
    settled.batch_size = batch_size or min(BATCH_SIZE, _most(sample), fair)
    few = Batch(0, sample.ids[: max(PARTS)], sample.pixels[: max(PARTS)])
    chosen = []
    for index, voter in enumerate(ensemble.members):
        way = present_way(voter, min(PART, settled.batch_size))
        if choice:
            ways = ways_of(voter, wanted, settled.batch_size, settled.workers)
            way = fastest_way(voter, ways, sample, settled.workers, share)
        # OpenVINO compiles anew for each number of images, which takes longer than the choice gains.
        if way.sessions[0].runtime == "onnxruntime" and share * len(ensemble.members) > LEAST_SECONDS:
            others = [replace(way, part=size) for size in PARTS if size != way.part and size <= settled.batch_size]
            way = fastest_way(voter, [way, *others], few, settled.workers, share)
        ensemble.use(index, way)
        chosen.append(way)
    if choice:
        _tell(ensemble, chosen, sample, want, settled)
    if not workers:
        _spare_twins(ensemble, sample, images, settled)


def _seconds_an_image(ensemble: Ensemble, sample: Batch) -> float:
    one = Batch(sample.start, sample.ids[:1], sample.pixels[:1])
    began = perf_counter()
    ensemble.logits(one)
    return perf_counter() - began


def _most(sample: Batch) -> int:
    return max(1, MOST_PIXELS // (sample.size[0] * sample.size[1]))


def _labels(ensemble: Ensemble, sample: Batch) -> NDArray[np.uint8]:
    logits, _ = ensemble.logits(sample)
    return ensemble.decode(logits, ensemble.variant, sample.size)[0].copy()


def _tell(
    ensemble: Ensemble, chosen: list[Way], sample: Batch, want: NDArray[np.uint8] | None, settled: Settled
) -> None:
    names = [f"{voter.name} {way.name}" for voter, way in zip(ensemble.members, chosen, strict=True)]
    settled.told.append(f"fastest by measurement: {', '.join(names)}")
    lowered = [way for way in chosen if way.precision != "float32"]
    if ensemble.wanted.precision != "float32" and not lowered:
        told = f"--precision {ensemble.wanted.precision}: nothing below float32 is both at hand and faster here"
        settled.told.append(told)
    if lowered:
        told = "their agreement with float32 could not be measured on the first images"
        if want is not None:
            same = float((_labels(ensemble, sample) == want).mean())
            told = f"labels agree with float32 on {same:.3%} of the {want.size:,} pixels of the warm-up batch"
        settled.told.append(f"{len(lowered)} of {len(chosen)} members run below float32: {told}")


def _spare_twins(ensemble: Ensemble, sample: Batch, images: int, settled: Settled) -> None:
    """Halve the workers where that is faster: two threads that share a core can be slower than one."""
    if settled.workers < 4 or images < 16 * settled.workers * settled.batch_size:
        return
    part = Batch(0, sample.ids[: settled.batch_size], sample.pixels[: settled.batch_size])
    seconds = {}
    for workers in (settled.workers, settled.workers // 2):
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(ensemble.logits, [part] * workers))
            began = perf_counter()
            list(pool.map(ensemble.logits, [part] * settled.workers * 2))
            seconds[workers] = perf_counter() - began
    if seconds[settled.workers // 2] * GAIN < seconds[settled.workers]:
        settled.workers //= 2


def make_ready(
    ensemble: Ensemble, images: Source | None, wanted: Wanted, batch_size: int = 0, workers: int = 0
) -> Settled:
    """Settle how an ensemble runs; on a terminal say at once what was chosen. Arguments, errors: :func:`settle`."""
    compile_kernels({ensemble.variant.strategy}, len(ensemble.classes))
    settled = settle(ensemble, images, wanted, batch_size, workers)
    if sys.stderr.isatty():
        _say(settled)
    return settled


def tell(settled: Settled) -> None:
    """Say behind the run what was chosen, where it was not said before: in a pipe an error stays the only line."""
    if not sys.stderr.isatty():
        _say(settled)


def _say(settled: Settled) -> None:
    for line in settled.told:
        console.say(line)

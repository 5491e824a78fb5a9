"""How the members run on this machine: provider, runtime, batch size and workers, chosen by a short measurement."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, ModelError, PlanError
from engine.fusion.compiling import compile_kernels
from engine.inference.execution import GAIN, Execution, executions_of, fastest_execution, present_execution
from engine.inference.fixed_batches import WORTH_OPENING, open_batches
from engine.inference.on_device import Known, Tuned, labels_of, move_to_device
from engine.models.runtimes import DEFAULT, RuntimeOptions, automatic_runtimes
from engine.models.runtimes.onnxruntime import PART
from engine.sources.base import Batch, Source
from engine.utils import console
from engine.utils.threads import available_cores

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble

Result = TypeVar("Result")

# One net runs all parts of a batch in turn while its weights are in the cache: 16 images were 10 % faster than 4.
BATCH_SIZE = 16
# More at a time gained 1 % on an AMD EPYC, and the trial alone raised the peak of memory by a fifth.
PARTS = (2, 4)
# A batch of more pixels exceeds every cache, and large images need much memory.
MOST_PIXELS = 1 << 17
# Number of images for measurements, and the maximum share of the run, and seconds, for them.
SAMPLE, SHARE, MOST_SECONDS = 16, 0.01, 4.0
# Opening the nets in a second runtime takes seconds: worth it in runs that take about so long.
LONG_SECONDS = 30.0
# A shorter measurement is meaningless.
LEAST_SECONDS = 0.2


@dataclass(frozen=True)
class ToCome:
    """Images that come later, as those of a server do: one by one, whole.

    Attributes:
        count: about how many; decides how long may be measured.
        size: (height, width) to measure on where the members declare none.
    """

    count: int = 10_000
    size: tuple[int, int] = (256, 256)


def tune(
    ensemble: Ensemble,
    images: Source | None,
    runtime_options: RuntimeOptions | None = None,
    batch_size: int = 0,
    workers: int = 0,
    scored: bool = False,
    to_come: ToCome | None = None,
) -> Tuned:
    """Choose how the members run, and install their sessions.

    Neither batch size nor workers change the labels. Another runtime rounds differently; precision below float32 is
    used only if ``runtime_options`` allows it; its agreement with float32 on the sample is measured and reported.

    Args:
        ensemble: its members' sessions and its ``parts`` are replaced.
        images: the images to predict; the first few are used for measuring. None if not available: then runtimes are
            measured on blank images of the size that the members declare.
        runtime_options: what the user allows; None for ONNX Runtime in float32, on a GPU where one works.
        batch_size: images per batch; 0 to measure.
        workers: threads; 0 for the faster of one per core and one per two cores.
        scored: whether the run scores further members and strategies, which need the logits.
        to_come: what is expected, where there are no images yet and they will not be tiles of a scene.

    Raises:
        PlanError: a negative number, or an unavailable provider or runtime.
        ModelError: a net that the requested runtime cannot run.
    """
    if batch_size < 0 or workers < 0:
        raise PlanError(f"batch size {batch_size}, workers {workers}: give a number above 0, or 0 to measure it")
    runtime_options = runtime_options or RuntimeOptions()
    began = perf_counter()
    tuned = Tuned(batch_size or BATCH_SIZE, workers or available_cores())
    ensemble.runtime_options, ensemble.device, ensemble.sessions_elsewhere = runtime_options, None, None
    sample, real = _sample(ensemble, images, None if to_come is None else to_come.size)
    count = len(images) if images is not None else to_come.count if to_come is not None else 0
    alone = not scored or len(ensemble.every_variant()) == 1
    known = Known(sample, real, count, images is not None or to_come is not None, alone)
    moved = False
    if runtime_options.on_gpu and runtime_options.provider != "cpu":
        moved = _interruptible(ensemble, partial(move_to_device, ensemble, known, tuned, batch_size, workers))
    if sample is not None and not moved:
        _interruptible(ensemble, partial(_on_cpu, ensemble, sample, real, count, tuned, batch_size, workers))
    tuned.seconds = perf_counter() - began
    return tuned


def _interruptible(ensemble: Ensemble, call: Callable[[], Result]) -> Result:
    """Call in a thread, so that Ctrl-C reaches this thread while a net is running a batch."""
    with ThreadPoolExecutor(1, thread_name_prefix="maskfuse-warm-up") as pool:
        try:
            return pool.submit(call).result()
        except (KeyboardInterrupt, SystemExit):
            ensemble.interrupt()
            if ensemble.device is not None:
                ensemble.device.stop()
            raise


def _sample(ensemble: Ensemble, images: Source | None, otherwise: tuple[int, int] | None) -> tuple[Batch | None, bool]:
    """Return a few images to measure on, and whether they are real; blank ones if those cannot be read."""
    if images is not None:
        with contextlib.suppress(EngineError):
            first = next(images.batches(min(SAMPLE, max(1, len(images)))), None)
            return first, first is not None
    declared = (member.contract.size for member in ensemble.members)
    size = images.size if images is not None else next((size for size in declared if size), otherwise)
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
    tuned: Tuned,
    batch_size: int,
    workers: int,
) -> None:
    """Choose runtime and precision of each member if there is a choice, then its batch size if there is time."""
    runtime_options = ensemble.runtime_options
    choice = (runtime_options.runtime, runtime_options.precision) != (DEFAULT, "float32")
    if real and images >= WORTH_OPENING:
        tuned.told += open_batches(ensemble, sample)
    try:
        want = labels_of(ensemble, sample) if real and runtime_options.precision != "float32" else None
        expected = _seconds_an_image(ensemble, sample)
    except ModelError:
        # Bad images are reported by the run, which knows how to handle them.
        sample, want = Batch(0, sample.ids, np.zeros_like(sample.pixels)), None
        try:
            expected = _seconds_an_image(ensemble, sample)
        except ModelError:
            return
    share = min(SHARE * expected * images / tuned.workers, MOST_SECONDS) / len(ensemble.members)
    fair = -(-images // (2 * tuned.workers)) or BATCH_SIZE
    tuned.batch_size = batch_size or min(BATCH_SIZE, most_images(sample.size), fair)
    few = Batch(0, sample.ids[: max(PARTS)], sample.pixels[: max(PARTS)])
    elsewhere: dict[int, Execution] = {}
    if not runtime_options.stated and expected * images / tuned.workers > LONG_SECONDS:
        elsewhere = _faster_elsewhere(ensemble, sample, tuned, share)
    chosen = []
    for index, member in enumerate(ensemble.members):
        execution = elsewhere.get(index) or present_execution(member, min(PART, tuned.batch_size))
        if not member.nets:
            chosen.append(execution)
            continue
        if choice:
            executions = executions_of(member, runtime_options, tuned.batch_size, tuned.workers)
            execution = fastest_execution(member, executions, sample, tuned.workers, share)
        # Others (OpenVINO) compile again for each number of images, which takes longer than the choice gains.
        if execution.sessions[0].runtime == DEFAULT and share * len(ensemble.members) > LEAST_SECONDS:
            others = [
                replace(execution, part=size) for size in PARTS if size != execution.part and size <= tuned.batch_size
            ]
            execution = fastest_execution(member, [execution, *others], few, tuned.workers, share)
        ensemble.use(index, execution)
        chosen.append(execution)
    if choice:
        _tell(ensemble, chosen, sample, want, tuned)
    if not workers:
        _spare_twins(ensemble, sample, images, tuned)


def _faster_elsewhere(ensemble: Ensemble, sample: Batch, tuned: Tuned, share: float) -> dict[int, Execution]:
    """Return every member's execution in another runtime, where one is installed that is faster for all; else nothing.

    All of them or none: so a run has one runtime, which its record names and ``--resume`` finds again.
    """
    options = ensemble.runtime_options
    for name in automatic_runtimes():
        other = replace(options, runtime=name)
        found: dict[int, Execution] = {}
        if name == DEFAULT or options.precision != "float32":
            continue
        for index, member in enumerate(ensemble.members):
            if not member.nets:
                continue
            try:
                executions = executions_of(member, other, tuned.batch_size, tuned.workers)
            except EngineError:
                break
            here = present_execution(member, min(PART, tuned.batch_size))
            fastest = fastest_execution(member, [here, *executions], sample, tuned.workers, share)
            if fastest is here:
                break
            found[index] = fastest
        else:
            ensemble.runtime_options = other
            tuned.told.append(f"{name} runs the nets: faster than {DEFAULT} here, by measurement (--runtime decides)")
            return found
    return {}


def _seconds_an_image(ensemble: Ensemble, sample: Batch) -> float:
    one = Batch(sample.start, sample.ids[:1], sample.pixels[:1])
    # A net's first run takes many times as long as the others.
    ensemble.logits(one)
    began = perf_counter()
    ensemble.logits(one)
    return perf_counter() - began


def most_images(size: tuple[int, int]) -> int:
    """Return how many images of (height, width) a batch on the CPU should hold at most."""
    return max(1, MOST_PIXELS // (size[0] * size[1]))


def _tell(
    ensemble: Ensemble, chosen: list[Execution], sample: Batch, want: NDArray[np.uint8] | None, tuned: Tuned
) -> None:
    names = [f"{member.name} {execution.name}" for member, execution in zip(ensemble.members, chosen, strict=True)]
    tuned.told.append(f"fastest by measurement: {', '.join(names)}")
    lowered = [execution for execution in chosen if execution.precision != "float32"]
    if ensemble.runtime_options.precision != "float32" and not lowered:
        told = f"--precision {ensemble.runtime_options.precision}: nothing below float32 is available and faster here"
        tuned.told.append(told)
    if lowered:
        told = "their agreement with float32 could not be measured on the first images"
        if want is not None:
            same = float((labels_of(ensemble, sample) == want).mean())
            told = f"labels agree with float32 on {same:.3%} of the {want.size:,} pixels of the warm-up batch"
        tuned.told.append(f"{len(lowered)} of {len(chosen)} members run below float32: {told}")


def _spare_twins(ensemble: Ensemble, sample: Batch, images: int, tuned: Tuned) -> None:
    """Halve the workers where that is faster: two threads that share a core can be slower than one."""
    if tuned.workers < 4 or images < 16 * tuned.workers * tuned.batch_size:
        return
    part = Batch(0, sample.ids[: tuned.batch_size], sample.pixels[: tuned.batch_size])
    seconds = {}
    for workers in (tuned.workers, tuned.workers // 2):
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(ensemble.logits, [part] * workers))
            began = perf_counter()
            list(pool.map(ensemble.logits, [part] * tuned.workers * 2))
            seconds[workers] = perf_counter() - began
    if seconds[tuned.workers // 2] * GAIN < seconds[tuned.workers]:
        tuned.workers //= 2


def make_ready(
    ensemble: Ensemble,
    images: Source | None,
    runtime_options: RuntimeOptions,
    batch_size: int = 0,
    workers: int = 0,
    scored: bool = False,
    to_come: ToCome | None = None,
) -> Tuned:
    """Choose how an ensemble runs; on a terminal report the choice at once. Arguments, errors: :func:`tune`."""
    every = scored and ensemble.early_exit is None
    variants = [ensemble.variant, *(ensemble.every_variant() if every else [])]
    strategies = {variant.strategy for variant in variants}
    compile_kernels(strategies, len(ensemble.classes), ensemble.variant.decoding.suppress)
    tuned = tune(ensemble, images, runtime_options, batch_size, workers, scored, to_come)
    if sys.stderr.isatty():
        _say(tuned)
    return tuned


def tell(tuned: Tuned) -> None:
    """Report the choice after the run if not done before: in a pipe an error stays the only line."""
    if not sys.stderr.isatty():
        _say(tuned)


def _say(tuned: Tuned) -> None:
    for line in tuned.told:
        console.say(line)

"""The ways a member can run on the CPU (runtime, precision, images per run), and the choice of the fastest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from engine.errors import ModelError, PlanError
from engine.models.members import Member, Prepared
from engine.models.runtimes import AUTO, DEFAULT, RuntimeOptions, automatic_runtimes, fed_as, named_runtime
from engine.models.runtimes.base import Session
from engine.models.twins import twin_of
from engine.sources.base import Batch

# Minimum gain over the previous one: less is noise.
GAIN = 1.03
# How often each one is timed if there is time, and if there is little.
ROUNDS, LEAST_ROUNDS = 5, 2


@dataclass(frozen=True)
class Execution:
    """One way to run a member.

    Attributes:
        sessions: one per net of the member; none for masks.
        part: number of images per run.
    """

    sessions: tuple[Session, ...]
    part: int

    @property
    def name(self) -> str:
        """Return its name in messages; masks are read, not run."""
        if not self.sessions:
            return "masks"
        first = self.sessions[0]
        what = first.runtime if first.provider == "cpu" else first.provider
        return what if self.precision == "float32" else f"{what} {self.precision}"

    @property
    def precision(self) -> str:
        """Return the lowest precision of its sessions."""
        return self.sessions[0].precision if self.sessions else "float32"

    def of(self, member: Member) -> Member:
        """Return the member with these sessions."""
        nets = [replace(net, session=session) for net, session in zip(member.nets, self.sessions, strict=True)]
        return replace(member, nets=tuple(nets))


def present_execution(member: Member, part: int) -> Execution:
    """Return the member's current execution, with this number of images per run."""
    return Execution(tuple(net.session for net in member.nets), part)


def executions_of(member: Member, runtime_options: RuntimeOptions, batch_size: int, workers: int) -> list[Execution]:
    """Return the allowed executions, the most precise first.

    Args:
        member: the member, opened in ONNX Runtime.
        runtime_options: what the user allows.
        batch_size: images per batch; a net takes at most this many per run, as suits its runtime.
        workers: threads that run it in parallel.

    Raises:
        PlanError: the requested runtime is not installed, or supports no allowed precision.
        ModelError: the requested runtime cannot read a net.
    """
    asked = runtime_options.runtime
    twins = _int8_twins(member) if runtime_options.allows("int8") else []
    files = [net.path for net in member.nets]
    found: list[Execution] = []
    for name in automatic_runtimes() if asked == AUTO else [asked]:
        runtime = named_runtime(name)
        kinds = [kind for kind in runtime.precisions() if runtime_options.allows(kind) and (kind != "int8" or twins)]
        opened = []
        try:
            for kind in kinds:
                if (name, kind) == (DEFAULT, "float32"):
                    sessions = present_execution(member, 0).sessions
                else:
                    paths = twins if kind == "int8" else files
                    own = zip(paths, member.nets, strict=True)
                    sessions = tuple(fed_as(runtime.open(path, kind, workers), net.session) for path, net in own)
                opened.append(Execution(sessions, min(runtime.part, batch_size)))
        except ModelError:
            if asked != AUTO or name == DEFAULT:
                raise
            continue
        found += opened
    if not found:
        raise PlanError(f"--runtime {asked} does not compute in {runtime_options.precision}: choose another runtime")
    return found


def _int8_twins(member: Member) -> list[Path]:
    """Return the quantised files beside a member's nets (NAME_int8.onnx), if each net has one made from it."""
    found = [twin_of(net, "int8") for net in member.nets]
    return [path for path in found if path is not None] if None not in found else []


def fastest_execution(
    member: Member, executions: Sequence[Execution], sample: Batch, workers: int, seconds: float
) -> Execution:
    """Return the fastest execution, timed in turns with all workers busy; an earlier one unless a later one gains 3 %.

    Args:
        member: the member.
        executions: the candidates; those that fail are left out.
        sample: images to run on.
        workers: threads.
        seconds: approximate time limit; each one is timed at least twice, after a warm-up run.

    Raises:
        ModelError: all executions fail.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="maskfuse-warm-up") as pool:
        timers = []
        refusal: ModelError | None = None
        for execution in executions:
            timer = _timer(execution.of(member), execution.part, sample, pool, workers)
            try:
                timer()
            except ModelError as error:
                refusal = refusal or error
                continue
            timers.append((execution, timer))
        if refusal is not None and not timers:
            raise refusal
        if len(timers) == 1:
            return timers[0][0]
        best = [float("inf")] * len(timers)
        end = perf_counter() + seconds
        for turn in range(ROUNDS):
            if turn >= LEAST_ROUNDS and perf_counter() > end:
                break
            for index, (_, timer) in enumerate(timers):
                best[index] = min(best[index], timer())
    chosen = 0
    for index, taken in enumerate(best):
        if taken * GAIN < best[chosen]:
            chosen = index
    return timers[chosen][0]


def _timer(member: Member, part: int, sample: Batch, pool: ThreadPoolExecutor, workers: int) -> Callable[[], float]:
    """Return a function that measures the seconds that each worker takes for the sample."""
    pixels = sample.size[0] * sample.size[1]
    outs = [np.empty((len(sample.ids), len(member.contract.classes), pixels), np.float32) for _ in range(workers)]
    prepared: Prepared = {net.input_key: net.prepare(sample.pixels) for net in member.nets}

    def measure() -> float:
        began = perf_counter()
        for done in [pool.submit(member.run, sample.pixels, prepared, out, (), part) for out in outs]:
            done.result()
        return perf_counter() - began

    return measure

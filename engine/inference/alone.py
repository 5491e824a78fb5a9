"""A single member outside the pipeline: images/s at its best batch size and thread layout."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from engine.inference.execution import present_execution
from engine.models.members import Member
from engine.models.net import Net
from engine.models.runtimes import DEFAULT, fed_as
from engine.models.runtimes.onnxruntime import OnnxSession

BATCH_SIZES = (1, 2, 4, 8, 16)
# Batches of more pixels are not tried: large images fill every cache by themselves.
MOST_PIXELS = 1 << 18
# Minimum duration of one timing of a setting: during the choice, and afterwards.
CHOOSING_SECONDS, SECONDS = 0.15, 0.3
# Number of settings of a member that are timed again.
FINALISTS = 3
CHOOSING_ROUNDS = 2


@dataclass(frozen=True)
class MemberSpeed:
    """The speed of a single member outside the pipeline.

    Attributes:
        name: name of the member.
        runtime: the runtime that runs it.
        rate: images/s, the median at the best setting.
        batch_size: batch size of that setting.
        layout: thread layout of that setting, in words.
        tried: images/s of every setting during the choice, by name.
    """

    name: str
    runtime: str
    rate: float
    batch_size: int
    layout: str
    tried: dict[str, float]


class MemberBenchmark:
    """A single member: every batch size, with one thread per worker and with one session of all threads."""

    def __init__(self, member: Member, sample: NDArray[Any], workers: int, skip: Collection[int]) -> None:
        self.member, self.workers = member, workers
        self.runtime = present_execution(member, 0).name
        self.pool = ThreadPoolExecutor(workers)
        pixels = sample.shape[1] * sample.shape[2]
        sizes = [size for size in BATCH_SIZES if size <= len(sample) and size * pixels <= MOST_PIXELS] or [1]
        # As in the pipeline: the specialist of a suppressed class does not run.
        nets = [net for net in member.nets if net.contract.class_id is None or net.contract.class_id not in skip]
        layouts = [(f"{workers} x 1 thread", nets, workers)]
        if workers > 1 and self.runtime == DEFAULT:
            whole = [replace(net, session=fed_as(OnnxSession(net.path, threads=workers), net.session)) for net in nets]
            layouts.append((f"1 x {workers} threads", whole, 1))
        self.calls: dict[tuple[str, int], Callable[[float], float]] = {}
        for layout, opened, threads in layouts:
            for size in sizes:
                self.calls[layout, size] = self._call(opened, sample, size, threads)
        self.tried: dict[tuple[str, int], float] = {}
        self.rates: dict[tuple[str, int], list[float]] = {}

    def _call(self, nets: list[Net], sample: NDArray[Any], size: int, threads: int) -> Callable[[float], float]:
        fed = [(net, net.prepare(sample[:size])) for net in nets]

        def work(end: float) -> float:
            began, done = perf_counter(), 0
            while done == 0 or perf_counter() < end:
                for net, batch in fed:
                    net.infer(batch)
                done += size
            return done / (perf_counter() - began)

        def measure(seconds: float) -> float:
            # Each thread is timed separately: none waits for another at the end, as in the pipeline.
            end = perf_counter() + seconds
            return sum(done.result() for done in [self.pool.submit(work, end) for _ in range(threads)])

        return measure

    def choose(self) -> None:
        """Try every setting and keep the fastest few."""
        rates: dict[tuple[str, int], list[float]] = {key: [] for key in self.calls}
        for turn in range(CHOOSING_ROUNDS + 1):
            for key, call in self.calls.items():
                rate = call(CHOOSING_SECONDS if turn else 0.0)
                if turn:  # the first run warms up
                    rates[key].append(rate)
        self.tried = {key: median(held) for key, held in rates.items()}
        self.rates = {key: [] for key in sorted(self.tried, key=self.tried.__getitem__)[-FINALISTS:]}

    def measure(self) -> None:
        """Time the remaining settings once more."""
        for key, rates in self.rates.items():
            rates.append(self.calls[key](SECONDS))

    def best(self) -> MemberSpeed:
        """Return the result."""
        layout, size = self._fastest()
        tried = {f"{name}, batches of {count}": rate for (name, count), rate in self.tried.items()}
        self.pool.shutdown()
        return MemberSpeed(self.member.name, self.runtime, median(self.rates[layout, size]), size, layout, tried)

    def rate_at(self, turn: int) -> float:
        """Return the images/s of the fastest setting in one turn."""
        return self.rates[self._fastest()][turn]

    def _fastest(self) -> tuple[str, int]:
        return max(self.rates, key=lambda key: median(self.rates[key]))

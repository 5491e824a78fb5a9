"""How fast an ensemble runs here, and how far that is from what its members could do with nothing between them.

The limit is the harmonic one: if member i alone runs r_i images/s at its best batch size and thread layout, all of them
on every image cannot be faster than 1 / sum(1 / r_i). Each member's best settings are chosen first and timed anew then, in
turns with the pipeline, and medians are compared: the best of many noisy timings is above what its setting truly does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from engine.images import Source
from engine.masks import open_writer
from engine.members import Voter
from engine.outcome import Outcome
from engine.pipeline import Ensemble
from engine.run import run
from engine.runtimes import Session
from engine.runtimes.onnxruntime import OnnxSession
from engine.sessions import Member
from engine.tuning import Settled
from engine.ways import present_way

BATCH_SIZES = (1, 2, 4, 8, 16)
# A batch of more pixels is not tried: large images alone fill every cache.
MOST_PIXELS = 1 << 18
# How long one timing of one setting takes, at least: while it is chosen, and once it is.
CHOOSING_SECONDS, SECONDS = 0.15, 0.3
# How many settings of a member stay in the choice.
FINALISTS = 3
CHOOSING_ROUNDS = 2


@dataclass(frozen=True)
class Bare:
    """What one member does with nothing around it.

    Attributes:
        name: the member.
        runtime: what runs it.
        rate: images/s, the median at the best setting.
        batch_size: images at a time there.
        layout: how the threads are used there, in words.
        tried: images/s of every setting when it was chosen, by its name.
    """

    name: str
    runtime: str
    rate: float
    batch_size: int
    layout: str
    tried: dict[str, float]


@dataclass
class Benched:
    """What a benchmark found.

    Attributes:
        members: a row a member.
        rate: images/s of the whole pipeline, the median of the rounds.
        stages: seconds by stage, as a share of the workers' time: read, infer, fuse, decode, write.
        peak: the most memory the process held while the pipeline ran, in bytes.
        images: how many a round predicted.
        settled: batch size, workers, and what was told about them.
        rates: images/s of each round.
    """

    members: list[Bare]
    rate: float
    stages: dict[str, float]
    peak: int
    images: int
    settled: Settled
    rates: list[float] = field(default_factory=list)

    @property
    def limit(self) -> float:
        """Return the harmonic limit, in images/s."""
        return 1 / sum(1 / member.rate for member in self.members)

    @property
    def share(self) -> float:
        """Return what the pipeline reaches of the limit."""
        return self.rate / self.limit

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return {
            "images_per_second": round(self.rate, 3),
            "harmonic_limit": round(self.limit, 3),
            "share_of_limit": round(self.share, 4),
            "rounds": [round(rate, 3) for rate in self.rates],
            "stages": {name: round(share, 5) for name, share in self.stages.items()},
            "peak_bytes": self.peak,
            "images": self.images,
            "batch_size": self.settled.batch_size,
            "workers": self.settled.workers,
            "warm_up_seconds": round(self.settled.seconds, 3),
            "told": self.settled.told,
            "members": [
                {
                    "name": member.name,
                    "runtime": member.runtime,
                    "images_per_second": round(member.rate, 3),
                    "batch_size": member.batch_size,
                    "layout": member.layout,
                    "tried": {name: round(rate, 3) for name, rate in member.tried.items()},
                }
                for member in self.members
            ],
        }


def bench(
    ensemble: Ensemble,
    images: Source,
    settled: Settled,
    rounds: int = 3,
    advance: Callable[[], object] = lambda: None,
) -> Benched:
    """Measure the pipeline and its members in turns.

    Args:
        ensemble: made ready, see :mod:`engine.tuning`.
        images: what a round of the pipeline predicts; masks go to a submission in a temporary folder.
        settled: batch size and workers.
        rounds: how often each side is measured.
        advance: called after each round of a side.

    Raises:
        EngineError: images, members or the disk fail.
    """
    _forget_peak()
    outcomes = [_pipeline(ensemble, images, settled)]
    peak = peak_memory()
    advance()
    sample = next(images.batches(max(BATCH_SIZES))).pixels
    skip = ensemble.variant.decoding.suppress
    bare = [_Bare(voter, sample, settled.workers, skip) for voter in ensemble.members]
    for member in bare:
        member.choose()
    for turn in range(rounds):
        for member in bare:
            member.measure()
        advance()
        if turn + 1 < rounds:
            outcomes.append(_pipeline(ensemble, images, settled))
            advance()
    rates = [outcome.images / outcome.seconds for outcome in outcomes]
    shares = [stage_shares(outcome, ensemble) for outcome in outcomes]
    stages = {name: median(share[name] for share in shares) for name in shares[0]}
    return Benched([member.best() for member in bare], median(rates), stages, peak, len(images), settled, rates)


def _pipeline(ensemble: Ensemble, images: Source, settled: Settled) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        goal = Path(folder) / "submission.csv"
        with open_writer(goal, images.ids, images.size, len(ensemble.classes)) as writer:
            return run(ensemble, images, writer, batch_size=settled.batch_size, workers=settled.workers)


def stage_shares(outcome: Outcome, ensemble: Ensemble) -> dict[str, float]:
    """Return where the time went, each stage as a share of workers x wall time.

    Reading and writing have threads of their own; theirs is the processor time they took from the workers. Fusion and
    argmax are one pass over the logits (``fuse``); ``decode`` is the clean-up of small regions behind it.
    """
    whole = outcome.seconds * outcome.workers
    decoded = outcome.variant_seconds.get(ensemble.variant, 0.0)
    seconds = {
        "read": outcome.read_seconds,
        "infer": sum(outcome.member_seconds),
        "fuse": decoded - outcome.clean_seconds,
        "decode": outcome.clean_seconds,
        "write": outcome.write_seconds,
    }
    return {name: taken / whole for name, taken in seconds.items()}


class _Bare:
    """One member by itself: every batch size, on one thread a worker and on one session of all threads."""

    def __init__(self, voter: Voter, sample: NDArray[Any], workers: int, skip: Collection[int]) -> None:
        self.voter, self.workers = voter, workers
        self.runtime = present_way(voter, 0).name
        self.pool = ThreadPoolExecutor(workers)
        pixels = sample.shape[1] * sample.shape[2]
        sizes = [size for size in BATCH_SIZES if size <= len(sample) and size * pixels <= MOST_PIXELS] or [1]
        # As in the pipeline: the specialist of a suppressed class does not run.
        nets = [net for net in voter.nets if net.contract.class_id is None or net.contract.class_id not in skip]
        own: list[tuple[Session, Member]] = [(net.session, net) for net in nets]
        layouts = [(f"{workers} x 1 thread", own, workers)]
        if workers > 1 and self.runtime == "onnxruntime":
            whole: list[tuple[Session, Member]] = [(OnnxSession(net.path, threads=workers), net) for net in nets]
            layouts.append((f"1 x {workers} threads", whole, 1))
        self.calls: dict[tuple[str, int], Callable[[float], float]] = {}
        for layout, sessions, threads in layouts:
            for size in sizes:
                self.calls[layout, size] = self._call(sessions, sample, size, threads)
        self.tried: dict[tuple[str, int], float] = {}
        self.rates: dict[tuple[str, int], list[float]] = {}

    def _call(
        self, sessions: list[tuple[Session, Member]], sample: NDArray[Any], size: int, threads: int
    ) -> Callable[[float], float]:
        fed = [(session, net.output_name, net.prepare(sample[:size])) for session, net in sessions]

        def work(end: float) -> float:
            began, done = perf_counter(), 0
            while done == 0 or perf_counter() < end:
                for session, output, batch in fed:
                    session.run(output, batch)
                done += size
            return done / (perf_counter() - began)

        def measure(seconds: float) -> float:
            # Each thread by its own clock: none waits at the end for another, as none does in the pipeline.
            end = perf_counter() + seconds
            return sum(done.result() for done in [self.pool.submit(work, end) for _ in range(threads)])

        return measure

    def choose(self) -> None:
        """Try every setting and keep the fastest few."""
        rates: dict[tuple[str, int], list[float]] = {key: [] for key in self.calls}
        for turn in range(CHOOSING_ROUNDS + 1):
            for key, call in self.calls.items():
                rate = call(CHOOSING_SECONDS if turn else 0.0)
                if turn:  # the first warms up
                    rates[key].append(rate)
        self.tried = {key: median(held) for key, held in rates.items()}
        self.rates = {key: [] for key in sorted(self.tried, key=self.tried.__getitem__)[-FINALISTS:]}

    def measure(self) -> None:
        """Time the settings that were kept once more."""
        for key, rates in self.rates.items():
            rates.append(self.calls[key](SECONDS))

    def best(self) -> Bare:
        """Return what was found."""
        medians = {key: median(rates) for key, rates in self.rates.items()}
        layout, size = max(medians, key=medians.__getitem__)
        tried = {f"{name}, batches of {count}": rate for (name, count), rate in self.tried.items()}
        self.pool.shutdown()
        return Bare(self.voter.name, self.runtime, medians[layout, size], size, layout, tried)


def repeated(source: Source, count: int) -> Source:
    """Return the images of a source over and over, ``count`` in all."""

    def read(size: int) -> Iterator[NDArray[Any]]:
        left = count
        while left:
            for pixels in source.read(size):
                yield pixels[:left]
                left -= len(pixels[:left])
                if not left:
                    return

    return replace(source, ids=[str(index) for index in range(count)], read=read, named=False)


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes; on Linux since :func:`_forget_peak`."""
    status = Path("/proc/self/status")
    if status.exists():
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if found:
            return int(found[0].split()[1]) * 1024
    import resource  # there is none on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the peak then counts from the start of the process

"""How fast an ensemble runs here, and how close that is to what its members could do without overhead.

The limit is the harmonic one: if member i alone runs r_i images/s at its best batch size and thread layout, running all
on every image cannot be faster than 1 / sum(1 / r_i). Each member's best settings are chosen first and timed again,
since the best of many noisy timings overstates the true speed. Members and pipeline take turns, and the share of the
limit is the median over the turns: the speed of a shared machine changes between turns.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engine.errors import PlanError
from engine.inference.alone import BATCH_SIZES, MemberBenchmark, MemberSpeed
from engine.inference.ensemble import Ensemble
from engine.inference.on_device import Tuned
from engine.inference.tuning import make_ready
from engine.models.runtimes import RuntimeOptions
from engine.outputs.open import open_writer
from engine.runs.opened import open_ensemble
from engine.runs.options import Options, reading_of
from engine.runs.outcome import Outcome
from engine.runs.plan import Plan
from engine.runs.plan_member import PlannedMember
from engine.runs.predict import run
from engine.samples import SAMPLES
from engine.sources.base import Source, from_array
from engine.sources.open import open_source
from engine.sources.slices import repeated

# Number of distinct generated scenes; beyond that they are repeated.
SCENES = 64


@dataclass
class Benched:
    """Results of a benchmark.

    Attributes:
        members: one row per member.
        rate: images/s of the whole pipeline, the median of the rounds.
        stages: time per stage, as a share of the workers' time: read, infer, fuse, decode, write.
        peak: peak memory of the process while the pipeline ran, in bytes.
        images: number of images predicted per round.
        tuned: batch size, workers, and the messages about them.
        rates: images/s of each round.
        limits: the harmonic limit measured in each round.
    """

    members: list[MemberSpeed]
    rate: float
    stages: dict[str, float]
    peak: int
    images: int
    tuned: Tuned
    rates: list[float]
    limits: list[float]

    @property
    def limit(self) -> float:
        """Return the harmonic limit, in images/s."""
        return 1 / sum(1 / member.rate for member in self.members)

    @property
    def share(self) -> float:
        """Return the share of the limit that the pipeline reaches, the median of the rounds."""
        return median(rate / limit for rate, limit in zip(self.rates, self.limits, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return {
            "images_per_second": round(self.rate, 3),
            "harmonic_limit": round(self.limit, 3),
            "share_of_limit": round(self.share, 4),
            "rounds": [round(rate, 3) for rate in self.rates],
            "limits": [round(limit, 3) for limit in self.limits],
            "stages": {name: round(share, 5) for name, share in self.stages.items()},
            "peak_bytes": self.peak,
            "images": self.images,
            "batch_size": self.tuned.batch_size,
            "workers": self.tuned.workers,
            "warm_up_seconds": round(self.tuned.seconds, 3),
            "told": self.tuned.told,
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
    tuned: Tuned,
    rounds: int = 3,
    advance: Callable[[], object] = lambda: None,
) -> Benched:
    """Measure the pipeline and its members in turns.

    Args:
        ensemble: made ready, see :mod:`engine.inference.tuning`.
        images: images that the pipeline predicts in each round; masks go to a submission in a temporary folder.
        tuned: batch size and workers.
        rounds: how often each side is measured.
        advance: called after each round of a side.

    Raises:
        EngineError: images, members or the disk fail.
    """
    sample = next(images.batches(max(BATCH_SIZES))).pixels
    _forget_peak()
    _pipeline(ensemble, images, tuned)
    peak = peak_memory()
    skip = ensemble.variant.decoding.suppress
    ensemble.open_sessions()
    bare = [MemberBenchmark(member, sample, tuned.workers, skip) for member in ensemble.members]
    for member in bare:
        member.choose()
    outcomes = []
    for _ in range(rounds):
        outcomes.append(_pipeline(ensemble, images, tuned))
        for member in bare:
            member.measure()
        advance()
    members = [member.best() for member in bare]
    limits = [1 / sum(1 / member.rate_at(turn) for member in bare) for turn in range(rounds)]
    rates = [outcome.images / outcome.seconds for outcome in outcomes]
    shares = [stage_shares(outcome, ensemble) for outcome in outcomes]
    stages = {name: median(share[name] for share in shares) for name in shares[0]}
    return Benched(members, median(rates), stages, peak, len(images), tuned, rates, limits)


def _pipeline(ensemble: Ensemble, images: Source, tuned: Tuned) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "submission.csv"
        with open_writer(output, images.ids, images.size, len(ensemble.classes)) as writer:
            return run(ensemble, images, writer, batch_size=tuned.batch_size, workers=tuned.workers)


def stage_shares(outcome: Outcome, ensemble: Ensemble) -> dict[str, float]:
    """Return the time per stage as a share of workers x wall time.

    Reading and writing run in separate threads; their share is the processor time they took from the workers.
    Fusion and argmax are one pass over the logits (``fuse``); ``decode`` is the clean-up of small regions after it.
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


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes; on Linux since :func:`_forget_peak`."""
    status = Path("/proc/self/status")
    if status.exists():
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if found:
            return int(found[0].split()[1]) * 1024
    import resource  # not available on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the peak then counts from the start of the process


def bench_job(
    options: Options, runtime_options: RuntimeOptions, count: int, rounds: int, batch_size: int = 0, workers: int = 0
) -> Benched:
    """Measure the ensemble that the options name.

    Args:
        options: models, input and strategy; the sample nets and generated scenes by default.
        runtime_options: which runtimes and arithmetic are allowed.
        count: images per round.
        rounds: how often each side is timed.
        batch_size: images per batch; 0 to measure.
        workers: threads; 0 for one per core.

    Raises:
        EngineError: a number below 1, or an input or model that cannot be opened or run.
    """
    if count < 1 or rounds < 1:
        raise PlanError(f"--images {count}, --rounds {rounds}: give numbers above 0")
    specs = options.models or [str(SAMPLES)]
    plan = Plan(tuple(PlannedMember(spec) for spec in specs))
    if options.input:
        source = open_source(options.input, reading=reading_of(plan, options))
    else:
        from engine.samples.scenes import generate

        source = from_array(generate(min(SCENES, count)).images, "images", "sample scenes")
    ensemble = open_ensemble(plan, options, source)
    images = repeated(source, count)
    tuned = make_ready(ensemble, images, runtime_options, batch_size, workers)
    return bench(ensemble, images, tuned, rounds)

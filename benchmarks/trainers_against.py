"""`trainers fit` of this tree beside that of an older commit, in alternating rounds of whole commands."""

from __future__ import annotations

import csv
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCORE_SEEDS, SCORE_EPOCHS = (0, 1, 2), 10


@dataclass(frozen=True)
class Run:
    """What one `trainers fit` took.

    Attributes:
        images_per_s: median over the epochs after the first, which traces the graph; as ``history.csv`` tells.
        processor: seconds of user and system time of the whole command: start, training, validation, records.
        memory: largest resident size, MiB.
        score: validation score of the best epoch, the ignored class suppressed.
    """

    images_per_s: float
    processor: float
    memory: float
    score: float


@dataclass(frozen=True)
class Subject:
    """A tree to measure: its label in the table, its folder, and options of `fit` that it alone is given."""

    label: str
    tree: Path
    options: tuple[str, ...] = ()


def timed(subject: Subject, arch: str, options: Sequence[str]) -> Run:
    """Run one `trainers fit` of a tree in a process of its own.

    Raises:
        SystemExit: the command failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "net.keras"
        command = [sys.executable, "-m", "trainers.cli", "fit", arch, *options, *subject.options, "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(subject.tree)}
        with (Path(folder) / "log").open("w+") as log:
            # From the temporary folder: `-m` puts the working folder before PYTHONPATH.
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                raise SystemExit(f"{subject.label}: {shlex.join(command)} failed: {log.read()[-2000:]}")
        epochs = list(csv.DictReader(out.with_name("net.history.csv").open()))
        result = tomllib.loads(out.with_name("net.run.toml").read_text())["result"]
    speed = statistics.median(float(epoch["images_per_s"]) for epoch in (epochs[1:] or epochs))
    # macOS counts bytes, Linux KiB.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Run(speed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit, float(result["validation_suppressed"]))


def alternating(subjects: Sequence[Subject], arch: str, options: Sequence[str], rounds: int) -> dict[str, list[Run]]:
    """Return the runs of each subject; the order is turned from round to round, so that neither always goes first."""
    found: dict[str, list[Run]] = {subject.label: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            run = timed(subject, arch, [*options, "--seed", str(number)])
            found[subject.label].append(run)
            told = f"{run.images_per_s:.1f} images/s, {run.processor:.1f} processor s, {run.memory:.0f} MiB"
            print(f"{arch} round {number + 1} {subject.label}: {told}, score {run.score:.4f}", flush=True)
    return found


def speed_rows(arch: str, runs: dict[str, list[Run]]) -> list[list[str]]:
    """Return a line per subject: medians, and how many times as fast as the first subject it is."""

    def median(label: str, name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs[label])

    first, lines = next(iter(runs)), []
    for label in runs:
        speed, processor = (median(label, name) for name in ("images_per_s", "processor"))
        faster, cheaper = speed / median(first, "images_per_s"), median(first, "processor") / processor
        memory = median(label, "memory")
        lines.append(
            [arch, label, f"{speed:.1f}", f"{faster:.2f}", f"{processor:.1f}", f"{cheaper:.2f}", f"{memory:.0f}"]
        )
    return lines


def score_rows(arch: str, runs: dict[str, list[Run]]) -> list[list[str]]:
    """Return a line per subject: the scores of each seed, their mean, and its difference from the first subject's."""
    means = {label: statistics.fmean(run.score for run in each) for label, each in runs.items()}
    first = next(iter(means))
    return [
        [
            *(arch, label, ", ".join(f"{run.score:.4f}" for run in each)),
            *(f"{means[label]:.4f}", f"{means[label] - means[first]:+.4f}"),
        ]
        for label, each in runs.items()
    ]

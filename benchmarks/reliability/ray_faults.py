"""Kills workers and nodes of a Ray cluster in the middle of runs, and compares each output with that of a local run.

    python -m benchmarks.reliability.ray_faults --kills 10 --nodes 10
    python -m benchmarks.reliability.ray_faults --kills 10 --nodes 10 --json benchmarks/results/ray_faults.json

Three faults: an actor's process gets SIGKILL or SIGTERM at a random moment of its run; a second node of the cluster
(``ray.cluster_utils.Cluster``) is removed with the actor on it. Prints a row for each; leaves with 1 when any output
differs or a run fails. Everything runs on this machine; processes that are not this script's own are left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import engine.runs.on_ray.stream
from benchmarks.reliability.kill_and_resume import digest
from benchmarks.reliability.ray_cluster import Blows, cluster, kill, node_fault, save
from engine.samples import SAMPLES
from engine.utils import console

# Small blocks, so that a short run has many.
IMAGES, SIZE, BLOCK = 768, (64, 128), 8
# A run is hit so often at most; a removed node stays away.
EACH = 4


@dataclass
class Row:
    """What a kind of fault led to.

    Attributes:
        fault: the kind.
        faults: how many there were before a run was over.
        runs: over how many runs.
        identical: how many outputs were the local run's, byte for byte, with nothing beside them.
        seconds: the median time of such a run.
        undisturbed_seconds: the time of a run without a fault in the same cluster.
    """

    fault: str
    faults: int = 0
    runs: int = 0
    identical: int = 0
    seconds: float = 0.0
    undisturbed_seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how many with each signal")
    parser.add_argument("--signals", nargs="+", choices=("KILL", "TERM"), default=["KILL", "TERM"])
    parser.add_argument("--nodes", type=int, default=10, help="runs that lose a node")
    parser.add_argument("--images", type=int, default=IMAGES, help="how many images a run predicts")
    parser.add_argument("--models", default=str(SAMPLES / "one_class_*.onnx"), help="what predicts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args(arguments)
    draw = np.random.default_rng(options.seed)
    rows: list[Row] = []

    def keep(rows: Sequence[Row]) -> None:
        if options.json:
            save(options.json, [asdict(row) for row in rows], images=options.images, seed=options.seed)

    engine.runs.on_ray.stream.BLOCK_IMAGES = BLOCK
    print("| fault | faults | runs | identical | undisturbed s | median s |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npy"
        np.save(images, draw.integers(0, 256, (options.images, *SIZE)).astype(np.uint8))
        job = Job(Path(folder), ["-m", options.models, "-i", str(images)])
        want, seconds = job.run("here")
        print(f"  here: {options.images} images in {seconds:.1f} s", file=sys.stderr)
        if options.kills:
            with cluster(1):
                for name in options.signals:
                    strike = partial(kill, name, draw)
                    fault = f"SIG{name} of a worker"
                    rows.append(trials(fault, options.kills, EACH, job, want, draw, lambda strike=strike: strike))
                    keep(rows)
        if options.nodes:
            with cluster(2) as started:
                fault = "the second node removed"
                rows.append(trials(fault, options.nodes, 1, job, want, draw, node_fault(started)))
                keep(rows)
    return int(any(row.identical < row.runs for row in rows))


@dataclass
class Job:
    """A run of ``engine ensemble`` in this process.

    Attributes:
        folder: where outputs come to lie.
        arguments: models and input.
    """

    folder: Path
    arguments: list[str]

    def run(self, name: str, *more: str) -> tuple[str, float]:
        """Return the output's hash, or the error, and the seconds the run took."""
        from engine.cli import app

        place = self.folder / name
        place.mkdir()
        command = ["ensemble", *self.arguments, "-o", str(place / "masks.csv"), *more]
        told = io.StringIO()
        code: object = 0
        began = time.perf_counter()
        with contextlib.redirect_stderr(told):
            try:
                console.exit_code(lambda: app(command, standalone_mode=False))
            except SystemExit as left:
                code = left.code
        seconds = time.perf_counter() - began
        found = digest(place) if not code else f"exit code {code}"
        if code:
            print(told.getvalue(), file=sys.stderr)
        shutil.rmtree(place)
        return found, seconds


def trials(
    fault: str, faults: int, each: int, job: Job, want: str, draw: Any, strikes: Callable[[], Callable[[], bool]]
) -> Row:
    """Run undisturbed, then with faults at random moments until there were enough; return the row and print it.

    Args:
        fault: its name.
        faults: how many.
        each: of a run, at most.
        job: what is run.
        want: hash of the local run's output.
        draw: chooses the moments, a ``numpy.random.Generator``.
        strikes: called before each run; returns what strikes.
    """
    row, times = Row(fault), []
    on = ("--on", "ray", "--workers", "2")
    look = Blows(strikes(), [])
    found, row.undisturbed_seconds = job.run("none", *on)
    look.over()
    assert found == want, f"an undisturbed run on Ray: {found}"
    # Moments behind the end of a run strike nothing.
    while row.faults < faults and row.runs < 2 * faults:
        moments = sorted(draw.uniform(0, look.window, min(each, faults - row.faults)))
        blows = Blows(strikes(), moments)
        found, seconds = job.run(f"fault{row.runs}", *on)
        blows.over()
        row.runs += 1
        row.faults += blows.hits
        row.identical += found == want
        times.append(seconds)
        print(f"  {fault}: {blows.hits} of {len(moments)}, {found[:12]}, {seconds:.1f} s", file=sys.stderr)
    row.seconds = median(times or [0.0])
    told = (row.fault, row.faults, row.runs, row.identical, f"{row.undisturbed_seconds:.1f}", f"{row.seconds:.1f}")
    print(f"| {' | '.join(map(str, told))} |", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())

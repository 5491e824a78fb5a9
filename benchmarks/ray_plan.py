"""What Ray's measured unit costs come to: tables, and a plan for 10^9 images."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.reliability.ray_cluster import PACKAGES, save
from benchmarks.table import RESULTS, rows, write
from engine.runs.durable.shards import MOST_BYTES, MOST_IMAGES

SIZE, WORKERS = (64, 128), 2
# What the plan is for.
PLANNED, HOURS, CORES = 10**9, 24, 16
# A run's driver is kept no busier than this, and an input file is about so large.
LOAD, FILE_BYTES = 0.5, 1 << 30


@dataclass
class Measured:
    """Seconds and images/s of one machine.

    Attributes:
        images: of a run.
        block: images of a block.
        here: images/s of the local pipeline.
        ray: images/s on Ray, from the first block on.
        connect: seconds until a cluster of this machine alone answers.
        actors: seconds until the first block is there: processes, imports, nets, and that block's work.
        busy: seconds an actor works on an image.
        driver: images/s that one driver takes when nobody predicts: dispatch, transport, unpacking.
        journal: images/s that the driver's shards and writer take.
        output: bytes a mask of the submission takes.
    """

    images: int
    block: int
    here: float
    ray: float
    connect: float
    actors: float
    busy: float
    driver: float
    journal: float
    output: float


def plan(found: Measured) -> list[tuple[str, str]]:
    """Return what 10^9 images take at the measured unit costs, as rows of a table."""
    pixels = math.prod(SIZE)
    actor = found.ray / WORKERS
    actors = math.ceil(PLANNED / (HOURS * 3600 * actor))
    machines = math.ceil(actors / CORES)
    rate = machines * CORES * actor
    driver = 1 / (1 / found.driver + 1 / found.journal)
    runs = max(1, math.ceil(rate / (LOAD * driver)))
    part = math.ceil(PLANNED / runs)
    shard = min(MOST_IMAGES, MOST_BYTES // pixels)
    file_images = FILE_BYTES // pixels
    return [
        ("images", f"{PLANNED:,} of {SIZE[0]}x{SIZE[1]}, one byte a pixel"),
        ("images/s of an actor on one core (measured)", f"{actor:,.1f}"),
        ("images/s one driver takes and writes (measured)", f"{driver:,.0f}"),
        (f"actors for {HOURS} hours", f"{actors:,}"),
        (f"machines of {CORES} cores", f"{machines:,}"),
        ("hours with whole machines", f"{PLANNED / rate / 3600:.1f}"),
        ("core hours", f"{PLANNED / actor / 3600:,.0f}"),
        (f"runs side by side, so that no driver is busy for more than {LOAD:.0%}", f"{runs:,} of {part:,} images"),
        ("bytes read by the actors", f"{PLANNED * pixels / 1e12:.2f} TB, {rate * pixels / 1e6:,.0f} MB/s in all"),
        ("bytes of labels to the drivers", f"{PLANNED * pixels / 1e12:.2f} TB, {rate * pixels / 1e6:,.0f} MB/s in all"),
        ("bytes of the submissions (CSV)", f"{PLANNED * found.output / 1e12:.1f} TB"),
        ("bytes of .npy masks instead", f"{PLANNED * pixels / 1e12:.2f} TB"),
        ("input files of about 1 GiB", f"{math.ceil(PLANNED / file_images):,} of {file_images:,} images"),
        (
            "shards of the journals",
            f"{math.ceil(PLANNED / shard):,} of {shard:,} masks, {shard * pixels / 2**20:.0f} MiB",
        ),
        ("disk for the shards of a run while it lasts", f"{part * pixels / 1e9:,.0f} GB"),
        ("done again when an actor dies", f"at most {found.block} images and {found.actors:.0f} s to start"),
    ]


def parts(found: Measured) -> list[tuple[str, str, str]]:
    """Return where the time of an image goes on Ray, against the local pipeline, in milliseconds of the machine."""
    whole, local = 1000 / found.ray, 1000 / found.here
    busy, dispatch = 1000 * found.busy / WORKERS, 1000 / found.driver
    return [
        ("local pipeline, both workers", f"{local:.3f}", ""),
        ("Ray, both actors", f"{whole:.3f}", f"{whole / local - 1:+.1%} of local"),
        ("of it: actors at work (read, predict, fuse, pack)", f"{busy:.3f}", f"{busy / local - 1:+.1%} of local"),
        ("of it: actors waiting", f"{whole - busy:.3f}", f"{(whole - busy) / whole:.1%} of Ray"),
        (
            "a driver with idle actors (dispatch, transport, unpack)",
            f"{dispatch:.3f}",
            f"{dispatch / whole:.1%} of Ray",
        ),
        ("a driver's writer (submission)", f"{1000 / found.journal:.3f}", f"{found.ray / found.journal:.1%} of Ray"),
    ]


def report(found: Measured, options: argparse.Namespace) -> None:
    """Write the tables and the figures."""
    start = found.connect + found.actors
    including = found.images / (start + found.images / found.ray)
    speed = rows(
        ["way", "images/s", "against local"],
        [
            ["local, 2 workers", f"{found.here:,.1f}", "1.00"],
            ["Ray, 2 actors, while both work", f"{found.ray:,.1f}", f"{found.ray / found.here:.2f}"],
            [f"Ray, {found.images:,} images with the start", f"{including:,.1f}", f"{including / found.here:.2f}"],
            *(
                [f"Ray, {count:,} images with the start (computed)", f"{rate:,.1f}", f"{rate / found.here:.2f}"]
                for count in (100_000, 1_000_000)
                for rate in [count / (start + count / found.ray)]
            ),
        ],
    )
    command = f"python -m benchmarks.bench_ray --images {options.images} --repeats {options.repeats}"
    net = Path(options.models).name
    begin = f"The start: {found.connect:.1f} s for a cluster, {found.actors:.1f} s for actors and their first block.\n"
    write(
        "ray",
        "The same run on Ray",
        command,
        PACKAGES,
        f"Medians of {options.repeats}; {found.images:,} images of {SIZE[0]}x{SIZE[1]}, model {net}, "
        f"blocks of {found.block}; nets open and kernels compiled before the local clock starts.\n",
        speed,
        begin,
        "## Where the time of an image goes\n",
        rows(["part", "ms an image", ""], parts(found)),
        f"## A plan for {PLANNED:,} images\n",
        "Computed from the figures above, not tried: the net and the processor above, one actor a core, and a network "
        "and a store that give the stated MB/s.\n",
        rows(["what", "figure"], plan(found)),
    )
    figures = {**asdict(found), "ratio": found.ray / found.here, "ratio_with_start": including / found.here}
    save(
        RESULTS / "ray.json",
        [figures],
        plan=[list(row) for row in plan(found)],
        parts=[list(row) for row in parts(found)],
    )

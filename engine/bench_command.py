"""What ``engine bench`` does: open, make ready, measure, print."""

from __future__ import annotations

import json

from engine.bench import Benched, bench
from engine.errors import PlanError
from engine.inference.tuning import make_ready
from engine.models.runtimes import Wanted
from engine.runs.image_job import SAMPLES
from engine.runs.options import Options, open_ensemble
from engine.runs.plan import Plan, PlannedMember
from engine.sources.base import from_array
from engine.sources.open import open_source
from engine.sources.slices import repeated
from engine.utils import console
from engine.utils.console import plain_table

# Of generated scenes so many differ; more are repeated.
SCENES = 64


def bench_job(
    options: Options, wanted: Wanted, count: int, rounds: int, batch_size: int = 0, workers: int = 0
) -> Benched:
    """Measure what the options name.

    Args:
        options: models, input and strategy; the sample nets and generated scenes where they name none.
        wanted: which runtimes and arithmetic are allowed.
        count: images a round.
        rounds: how often each side is timed.
        batch_size: images a worker takes at a time; 0 to measure.
        workers: threads; 0 for one a core.

    Raises:
        EngineError: a number below 1, or whatever does not open or run.
    """
    if count < 1 or rounds < 1:
        raise PlanError(f"--images {count}, --rounds {rounds}: give numbers above 0")
    if options.input:
        source = open_source(options.input)
    else:
        from engine.samples.scenes import generate

        source = from_array(generate(min(SCENES, count)).images, "images", "sample scenes")
    specs = options.models or [str(SAMPLES)]
    ensemble = open_ensemble(Plan(tuple(PlannedMember(spec) for spec in specs)), options, source)
    images = repeated(source, count)
    settled = make_ready(ensemble, images, wanted, batch_size, workers)
    return bench(ensemble, images, settled, rounds)


def print_bench(found: Benched, as_json: bool) -> None:
    """Print what was measured on stdout: tables, or JSON."""
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
        return
    out = console.stdout()
    table = plain_table("Members alone, each at its best setting")
    for name in ("member", "runtime", "images/s", "batch size", "threads"):
        table.add_column(name, justify="right" if name in ("images/s", "batch size") else "left")
    for member in found.members:
        table.add_row(member.name, member.runtime, f"{member.rate:,.1f}", str(member.batch_size), member.layout)
    out.print(table)
    table = plain_table("The pipeline")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("harmonic limit, images/s", f"{found.limit:,.1f}")
    table.add_row("pipeline, images/s", f"{found.rate:,.1f}")
    table.add_row("share of the limit", f"{found.share:.1%}")
    for name, share in found.stages.items():
        table.add_row(f"time in {name}", f"{share:.2%}")
    table.add_row("peak memory, MB", f"{found.peak / 1e6:,.0f}")
    table.add_row("batch size, workers", f"{found.settled.batch_size}, {found.settled.workers}")
    out.print(table)
    for line in found.settled.told:
        out.print(line)

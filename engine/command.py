"""What ``engine ensemble`` does with a checked job: compile, predict, write, draw, report."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from time import perf_counter

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine import console
from engine.job import Job
from engine.masks import open_writer
from engine.metrics import find_trap
from engine.preview import draw
from engine.record import run_record
from engine.run import Outcome, as_dict, early_exit_summary, every_variant, preview_tiles, run
from engine.strategies import STRATEGIES, compile_ahead, not_compiled
from engine.tables import scores_table


def run_job(job: Job, batch_size: int, workers: int, overwrite: bool) -> Outcome:
    """Predict, score, write the masks and the picture.

    Raises:
        EngineError: the images, the labels, a member or the disk fails; nothing is left half-written.
    """
    assert job.output is not None
    scored = job.labels is not None and job.ensemble.early_exit is None
    variants = every_variant(job.ensemble) if scored else []
    _compile({job.ensemble.variant.strategy, *(variant.strategy for variant in variants)})
    record = run_record(job.ensemble, images=len(job.images))
    writer = open_writer(job.output, job.images.ids, job.images.size, len(job.ensemble.classes), overwrite, record)
    with writer, _progress(len(job.images)) as advance:
        outcome = run(job.ensemble, job.images, writer, job.labels, variants, batch_size, workers, advance)
    rate = outcome.images / outcome.seconds
    console.say(f"wrote {job.output}: {outcome.images:,} masks in {outcome.seconds:.1f} s, {rate:,.0f} images/s")
    if job.preview is not None:
        draw(preview_tiles(job.ensemble, job.images, job.labels), job.ensemble.classes, job.preview)
        console.say(f"wrote {job.preview}")
    return outcome


def report(job: Job, outcome: Outcome, as_json: bool) -> None:
    """Print the results on stdout and the class-0 trap on stderr."""
    if as_json:
        print(json.dumps(as_dict(outcome, job.ensemble), indent=2))
    elif outcome.scores:
        console.stdout().print(scores_table(outcome, job.ensemble))
    if outcome.ties:
        console.say(f"tied votes: {outcome.ties / outcome.pixels:.3%} of the pixels, decided by the mean probability")
    if job.ensemble.early_exit is not None:
        console.say(early_exit_summary(outcome, job.ensemble))
    own = outcome.scores.get(job.ensemble.variant)
    trap = find_trap(own.confusion, own.ignored_class) if own is not None else None
    if trap is not None:
        console.say(f"warning: {trap}")


def _compile(strategies: set[str]) -> None:
    """Compile what has not been, and say so on a terminal: else the first run looks slow."""
    missing = not_compiled(name for name in STRATEGIES if name in strategies)
    if not missing:
        return
    told = console.say if sys.stderr.isatty() else lambda text: None
    told(f"first use on this machine: compiling {', '.join(missing)}")
    began = perf_counter()
    compile_ahead(missing)
    told(f"compiled in {perf_counter() - began:.1f} s, kept for the next run")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar with images/s and the time left on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = (
        TextColumn("predicting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console.stderr(), transient=True) as bar:
        task = bar.add_task("predicting", total=total, rate="-")

        def advance(count: int) -> None:
            bar.update(task, advance=count)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:,.0f}" if speed else "-")

        yield advance

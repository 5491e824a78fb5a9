"""Progress bars on a terminal, nothing in a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.utils import console

Starting = Callable[[str, int], Callable[[int], object]]


@contextlib.contextmanager
def progress(total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
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
        task = bar.add_task("predicting", total=total, completed=done, rate="-")

        def advance(count: int) -> None:
            bar.update(task, advance=count)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:,.0f}" if speed else "-")

        yield advance


@contextmanager
def bars() -> Iterator[Starting]:
    """Yield a function that shows a bar for each long part on a terminal, and nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda name, total: lambda count: None
        return
    with Progress(console=console.stderr(), transient=True) as shown:

        def starting(name: str, total: int) -> Callable[[int], object]:
            task = shown.add_task(name, total=total)
            return lambda count: shown.update(task, advance=count)

        yield starting

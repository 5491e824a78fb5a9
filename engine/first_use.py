"""Compiles the kernels of strategies that were never used on this machine, and says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from engine import console
from engine.flow import available_cores
from engine.strategies import STRATEGIES, compile_ahead, not_compiled

# Fewer are compiled sooner than a second process starts.
WORTH_SHARING = 4
CHILD = "import sys; from engine.strategies import compile_ahead; compile_ahead(sys.argv[2:], int(sys.argv[1]))"


def compile_kernels(strategies: Collection[str], classes: int) -> None:
    """Compile what has not been, and say so on a terminal: else the first run looks slow.

    Args:
        strategies: names of strategies that a run needs.
        classes: how many classes there are.
    """
    missing = not_compiled(name for name in STRATEGIES if name in strategies)
    if not missing:
        return
    told = console.say if sys.stderr.isatty() else lambda text: None
    told(f"first use on this machine: compiling {', '.join(missing)}")
    began = perf_counter()
    mine = len(missing)
    if mine >= WORTH_SHARING and available_cores() > 1:
        mine -= mine // 2
    with _compiling(missing[mine:], classes) as wait:
        compile_ahead(missing[:mine], classes)
        wait()
    # What the other process compiled is loaded; what it could not is compiled.
    compile_ahead(missing[mine:], classes)
    told(f"compiled in {perf_counter() - began:.1f} s, kept for the next run")


@contextmanager
def _compiling(names: Sequence[str], classes: int) -> Iterator[Callable[[], object]]:
    """Compile in a process of its own, since the compiler lets one thread in at a time; yield what waits for it.

    The machine code goes to the folder of the cache. The process is ended with the context, on Ctrl-C too.
    """
    if not names:
        yield lambda: None
        return
    quiet = subprocess.DEVNULL
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(classes), *names],
            cwd=Path(__file__).parents[1],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
    except OSError:
        yield lambda: None
        return
    try:
        yield child.wait
    finally:
        child.kill()
        child.wait()

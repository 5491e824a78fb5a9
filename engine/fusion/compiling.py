"""Compiles the kernels of strategies on first use on this machine, and reports it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np

from engine.fusion.decoding import Decoding
from engine.fusion.strategies import STRATEGIES, Strategy, named_strategy
from engine.fusion.strategies.task import Task
from engine.kernels.jit import compiled_before
from engine.utils import console
from engine.utils.plugins import search_path
from engine.utils.threads import available_cores

# Fewer are compiled faster than a second process starts.
WORTH_SHARING = 4
CHILD = "import sys; from engine.fusion.compiling import compile_ahead; compile_ahead(sys.argv[2:], int(sys.argv[1]))"


def compile_kernels(strategies: Collection[str], classes: int) -> None:
    """Compile what is missing and report it on a terminal: else the first run looks slow.

    Args:
        strategies: names of the strategies that a run needs.
        classes: number of classes.
    """
    added = sorted(set(strategies) - set(STRATEGIES))
    missing = not_compiled([*(name for name in STRATEGIES if name in strategies), *added])
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
    # Load what the other process compiled; compile the rest.
    compile_ahead(missing[mine:], classes)
    told(f"compiled in {perf_counter() - began:.1f} s, kept for the next run")


@contextmanager
def _compiling(names: Sequence[str], classes: int) -> Iterator[Callable[[], object]]:
    """Compile in a separate process, since the compiler runs one thread at a time; yield a function that waits for it.

    The machine code is written to the cache folder. The process ends with the context, also on Ctrl-C.
    """
    if not names:
        yield lambda: None
        return
    quiet = subprocess.DEVNULL
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(classes), *names],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": search_path()},
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


def not_compiled(names: Iterable[str]) -> list[str]:
    """Return which strategies must be compiled before they run: once per installation, about a second each.

    A strategy may have kernels for few and for many classes; each is compiled when needed. A strategy in
    plain NumPy has none.
    """
    kernels = {name: _kernels(named_strategy(name)) for name in names}
    return [name for name, held in kernels.items() if held and not any(map(compiled_before, held))]


def compile_ahead(names: Iterable[str], classes: int = 5) -> None:
    """Run strategies on a few pixels, so that a run's time does not include compilation.

    Args:
        names: the strategies.
        classes: number of classes; up to :data:`engine.kernels.registers.MOST_SLOTS`, each number has its own code.
    """
    for name in names:
        shape = (1, 1, classes, 8)
        labels, ties = np.zeros((1, 8), np.uint8), np.zeros(1, np.int64)
        task = Task(np.zeros(shape, np.float32), np.ones((1, classes)), Decoding(), labels, ties)
        named_strategy(name)(task)


def _kernels(strategy: Strategy) -> list[Callable[..., object]]:
    """Return the compiled entry points of a strategy's file; they begin with an underscore."""
    file = sys.modules.get(strategy.__module__)
    held = vars(file) if file is not None else {}
    return [value for name, value in held.items() if hasattr(value, "stats") and name.startswith("_")]

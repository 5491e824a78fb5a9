"""Compiles the kernels of strategies on first use on this machine, and reports it."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
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
# These take longest: each is begun first, so that no process is left with a long one at the end.
LONG = ("staple", "vote", "max-confidence", "median-prob")
CHILD = "from engine.fusion.compiling import compile_as_told; compile_as_told()"


@dataclass(frozen=True)
class Wanted:
    """What is compiled for: some kernels have one version per number of classes, and per number of allowed ones.

    Attributes:
        classes: number of classes.
        suppress: classes that are suppressed in some of the variants.
    """

    classes: int
    suppress: frozenset[int] = frozenset()


@dataclass
class _Compilation:
    """Strategies that this process and a second one compile, each taking the next one.

    Attributes:
        wanted: what for.
        names: all of them.
        waiting: those that nobody has begun, in groups that share a file.
        began: when, in seconds.
        child: the second process, or None.
        feeder: the thread that tells it what to compile.
    """

    wanted: Wanted
    names: list[str]
    waiting: deque[list[str]] = field(default_factory=deque)
    began: float = field(default_factory=perf_counter)
    child: subprocess.Popen[str] | None = None
    feeder: Thread | None = None

    def start(self) -> None:
        """Say what is compiled, and start the second process where it pays."""
        self.waiting.extend(_groups(self.names))
        _tell(f"first use on this machine: compiling {', '.join(self.names)}")
        if len(self.names) >= WORTH_SHARING and available_cores() > 1:
            self.child = _second_process()
        if self.child is not None:
            atexit.register(self.child.kill)
            first = self.child, self.waiting.popleft()
            self.feeder = Thread(target=self._feed, args=first, daemon=True, name="maskfuse-compile")
            self.feeder.start()

    def finish(self) -> None:
        """Compile what is left, wait for the second process, and load what it compiled."""
        try:
            while self.waiting:
                with contextlib.suppress(IndexError):
                    compile_ahead(self.waiting.popleft(), self.wanted.classes, self.wanted.suppress)
            if self.feeder is not None:
                self.feeder.join()
        finally:
            self.stop()
        compile_ahead(self.names, self.wanted.classes, self.wanted.suppress)
        _tell(f"compiled in {perf_counter() - self.began:.1f} s, kept for the next run")

    def stop(self) -> None:
        """End the second process, also on Ctrl-C."""
        if self.child is not None:
            atexit.unregister(self.child.kill)
            self.child.kill()
            self.child.wait()

    def _feed(self, child: subprocess.Popen[str], names: list[str]) -> None:
        """Tell the second process what to compile next, ``names`` first; its machine code goes to the cache."""
        assert child.stdin is not None and child.stdout is not None
        classes, suppress = str(self.wanted.classes), ",".join(map(str, sorted(self.wanted.suppress)))
        # A second process that ends early leaves its part to this one.
        with contextlib.suppress(OSError, ValueError, IndexError), child.stdin, child.stdout:
            while True:
                child.stdin.write(" ".join([classes, f"suppress={suppress}", *names]) + "\n")
                child.stdin.flush()
                if not child.stdout.readline():
                    break
                names = self.waiting.popleft()


# What was begun ahead of its use.
_BEGUN: list[_Compilation] = []


def begin_compiling(strategies: Collection[str], wanted: Wanted) -> None:
    """Let a second process begin with what is missing, while this one prepares the run that calls
    :func:`compile_kernels`.

    Args:
        strategies: names of the strategies that the run needs.
        wanted: what they are compiled for.
    """
    missing = _missing(strategies)
    if len(missing) >= WORTH_SHARING and not _BEGUN:
        _BEGUN.append(_Compilation(wanted, missing))
        _BEGUN[0].start()


def compile_kernels(strategies: Collection[str], classes: int, suppress: Iterable[int] = ()) -> None:
    """Compile what is missing and report it on a terminal: else the first run looks slow.

    Args:
        strategies: names of the strategies that a run needs.
        classes: number of classes.
        suppress: classes that some of its variants suppress.
    """
    wanted = Wanted(classes, frozenset(suppress))
    begun = _BEGUN.pop() if _BEGUN else None
    if begun is not None and begun.wanted == wanted:
        begun.finish()
    elif begun is not None:
        begun.stop()
    missing = _missing(strategies)
    if missing:
        work = _Compilation(wanted, missing)
        work.start()
        work.finish()


def _missing(strategies: Collection[str]) -> list[str]:
    added = sorted(set(strategies) - set(STRATEGIES))
    return not_compiled([*(name for name in STRATEGIES if name in strategies), *added])


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Return names in groups that share a file, and so kernels; those that take longest first."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: LONG.index(name) if name in LONG else len(LONG)):
        groups.setdefault(named_strategy(name).__module__, []).append(name)
    return list(groups.values())


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        console.say(text)


def _second_process() -> subprocess.Popen[str] | None:
    """Start a process that compiles what it is told, since the compiler runs one thread at a time; None if it fails."""
    try:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": search_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    except OSError:
        return None


def compile_as_told() -> None:
    """Compile what standard input names, line by line; answer each with a line."""
    for line in sys.stdin:
        classes, suppress, *names = line.split()
        ids = suppress.partition("=")[2]
        compile_ahead(names, int(classes), map(int, ids.split(",")) if ids else ())
        print("compiled", flush=True)


def not_compiled(names: Iterable[str]) -> list[str]:
    """Return which strategies must be compiled before they run: once per installation, about a second each.

    A strategy may have kernels for few and for many classes; each is compiled when needed. A strategy in
    plain NumPy has none.
    """
    kernels = {name: _kernels(named_strategy(name)) for name in names}
    return [name for name, held in kernels.items() if held and not any(map(compiled_before, held))]


def compile_ahead(names: Iterable[str], classes: int = 5, suppress: Iterable[int] = ()) -> None:
    """Run strategies on a few pixels, so that a run's time does not include compilation.

    Args:
        names: the strategies.
        classes: number of classes; up to :data:`engine.kernels.registers.MOST_SLOTS`, each number has its own code.
        suppress: classes to suppress in a further run: ``vote`` has code for each number of allowed classes.
    """
    decodings = {Decoding(), Decoding(frozenset(suppress))}
    for name in names:
        for decoding in decodings:
            shape = (1, 1, classes, 8)
            labels, ties = np.zeros((1, 8), np.uint8), np.zeros(1, np.int64)
            named_strategy(name)(Task(np.zeros(shape, np.float32), np.ones((1, classes)), decoding, labels, ties))


def _kernels(strategy: Strategy) -> list[Callable[..., object]]:
    """Return the compiled entry points of a strategy's file; they begin with an underscore."""
    file = sys.modules.get(strategy.__module__)
    held = vars(file) if file is not None else {}
    return [value for name, value in held.items() if hasattr(value, "stats") and name.startswith("_")]

"""The fusion strategies by name. A new one is one file and one line here; the tests run over this table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import numpy as np

from engine.decode import Decoding
from engine.errors import PlanError
from engine.kernels.jit import compiled_before
from engine.strategies.borda import borda
from engine.strategies.entropy_weighted import entropy_weighted
from engine.strategies.max_confidence import max_confidence
from engine.strategies.mean_logit import mean_logit
from engine.strategies.mean_prob import mean_prob
from engine.strategies.order_statistics import median_prob, trimmed_mean
from engine.strategies.staple import staple
from engine.strategies.task import Task
from engine.strategies.vote import vote

Strategy = Callable[[Task], None]

STRATEGIES: dict[str, Strategy] = {
    "mean-logit": mean_logit,
    "mean-prob": mean_prob,
    "vote": vote,
    "borda": borda,
    "max-confidence": max_confidence,
    "entropy-weighted": entropy_weighted,
    "median-prob": median_prob,
    "trimmed-mean": trimmed_mean,
    "staple": staple,
}


def named_strategy(name: str) -> Strategy:
    """Return the strategy of that name.

    Raises:
        PlanError: there is none; the message lists the names.
    """
    if name not in STRATEGIES:
        raise PlanError(f"unknown strategy {name!r}; allowed are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def not_compiled(names: Iterable[str]) -> list[str]:
    """Return which strategies must be compiled before they run: each once an installation, a second or so.

    A strategy may have kernels for few and for many classes; one of them is compiled when it is needed. One that is
    plain NumPy has none.
    """
    kernels = {name: _kernels(named_strategy(name)) for name in names}
    return [name for name, held in kernels.items() if held and not any(map(compiled_before, held))]


def compile_ahead(names: Iterable[str], classes: int = 5) -> None:
    """Run strategies on a few pixels, so that compilation does not count as part of a run.

    Args:
        names: the strategies.
        classes: how many there are: up to :data:`engine.kernels.registers.MOST_SLOTS`, each number has its own code.
    """
    for name in names:
        shape = (1, 1, classes, 8)
        labels, ties = np.zeros((1, 8), np.uint8), np.zeros(1, np.int64)
        task = Task(np.zeros(shape, np.float32), np.ones((1, classes)), Decoding(), labels, ties)
        named_strategy(name)(task)


def _kernels(strategy: Strategy) -> list[Callable[..., object]]:
    """Return the compiled entry points of a strategy's file; they begin with an underscore."""
    held = vars(sys.modules[strategy.__module__])
    return [value for name, value in held.items() if hasattr(value, "stats") and name.startswith("_")]

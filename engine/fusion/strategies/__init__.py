"""The fusion strategies by name. A new one needs one file and one line here; the tests cover this table."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import PlanError
from engine.fusion.strategies.added import added_strategy
from engine.fusion.strategies.borda import borda
from engine.fusion.strategies.entropy_weighted import entropy_weighted
from engine.fusion.strategies.max_confidence import max_confidence
from engine.fusion.strategies.mean_logit import mean_logit
from engine.fusion.strategies.mean_prob import mean_prob
from engine.fusion.strategies.order_statistics import median_prob, trimmed_mean
from engine.fusion.strategies.staple import staple
from engine.fusion.strategies.task import Task
from engine.fusion.strategies.vote import vote
from engine.utils import plugins

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
    """Return the strategy of that name: a built-in one, or one that another installed package adds.

    Raises:
        PlanError: unknown name (the message lists the names), or the package that adds it is broken.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    if name not in plugins.added_names(plugins.STRATEGIES):
        raise PlanError(f"unknown strategy {name!r}; allowed are {plugins.listed(plugins.STRATEGIES, STRATEGIES)}")
    return added_strategy(name)

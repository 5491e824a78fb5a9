"""A strategy of another installed package: loaded by name, and checked like every strategy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps

import numpy as np

from engine.errors import EngineError, PlanError
from engine.fusion.strategies.task import Task
from engine.utils import plugins
from engine.utils.console import first_line


@cache
def added_strategy(name: str) -> Callable[[Task], None]:
    """Return the strategy that a package adds under a name; its errors become one line.

    Raises:
        PlanError: no package adds it, several do, or what the package adds cannot be loaded or called.
    """
    found = plugins.load(plugins.STRATEGIES, name)
    called = f"strategy {name} of package {plugins.package_of(plugins.STRATEGIES, name)}"
    if not callable(found):
        raise PlanError(f"{called} is a {type(found).__name__}; a function of a Task is needed: update or uninstall it")

    @wraps(found)
    def checked(task: Task) -> None:
        try:
            found(task)
        except (EngineError, MemoryError):
            raise
        except Exception as error:
            reason = first_line(error, kind=True)
            raise PlanError(f"{called} fails ({reason}): update it, or choose another strategy") from None
        _check_labels(task, called)

    return checked


def _check_labels(task: Task, called: str) -> None:
    """Refuse labels that no decoding produces."""
    allowed = task.rule().allowed
    for label in np.flatnonzero(np.bincount(task.labels.ravel())).tolist():
        if label >= len(allowed):
            raise PlanError(f"{called} gives label {label}; allowed are 0 to {len(allowed) - 1}: update it")
        if not allowed[label] and task.decoding.threshold is None:
            raise PlanError(f"{called} gives label {label}, which is suppressed: update it, or add --no-suppress")

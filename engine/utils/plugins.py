"""Additions of other installed packages by entry points: found by name, loaded on use, never replacing our own.

A package extends a table of the engine with an entry point in that table's group, as in::

    [project.entry-points."maskfuse.strategies"]
    min-rule = "maskfuse_min_rule:min_rule"
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.errors import EngineError, PlanError
from engine.utils.console import first_line, one_line

STRATEGIES = "maskfuse.strategies"
RUNTIMES = "maskfuse.runtimes"


def added_names(group: str, built_in: Collection[str] = ()) -> list[str]:
    """Return the names that packages add to a table, sorted, without the built-in ones; nothing is loaded.

    Args:
        group: :data:`STRATEGIES` or :data:`RUNTIMES`.
        built_in: the built-in names, which no package can replace.
    """
    return sorted({point.name for point in _points(group)} - set(built_in))


def listed(group: str, built_in: Iterable[str]) -> str:
    """Return all names of a table for a message: the built-in ones, then those that packages add."""
    own = list(built_in)
    return ", ".join([*own, *map(one_line, added_names(group, own))])


def package_of(group: str, name: str, built_in: Collection[str] = ()) -> str:
    """Return the package that adds a name, with its version, as in ``maskfuse-min-rule 0.1``; empty for a built-in one.

    Raises:
        PlanError: no package adds it, or several do.
    """
    return "" if name in built_in else _package(_point(group, name))


@cache
def load(group: str, name: str) -> Any:
    """Return the object that a package adds under a name.

    Raises:
        PlanError: no package adds it, several do, or its package cannot be imported; the line names the package.
    """
    point = _point(group, name)
    try:
        return point.load()
    except EngineError as error:
        reason = str(error)
    except (Exception, SystemExit) as error:  # a package's code may raise anything
        reason = first_line(error, kind=True)
    called = f"{_kind(group)} {name} of package {_package(point)}"
    raise PlanError(f"{called} cannot be loaded ({reason}): update or uninstall it")


def search_path() -> str:
    """Return the PYTHONPATH with which another process, in any folder, imports the same modules as this one."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    engine = Path(__file__).resolve().parents[2]
    return os.pathsep.join(dict.fromkeys([str(engine), *map(os.path.abspath, given)]))


@cache
def _points(group: str) -> list[metadata.EntryPoint]:
    try:
        return list(metadata.entry_points(group=group))
    except Exception as error:  # metadata may contain anything; the standard library does not document the errors
        reason = first_line(error, kind=True)
        raise PlanError(f"cannot read the entry points of the installed packages ({reason}): run pip check") from None


def _point(group: str, name: str) -> metadata.EntryPoint:
    found = [point for point in _points(group) if point.name == name]
    if not found:
        raise PlanError(f"no package adds {_kind(group)} {one_line(name)[:80]!r}")
    if len(found) > 1:
        several = " and ".join(sorted(map(_package, found)))
        raise PlanError(f"{_kind(group)} {name} is added by {several}: uninstall all packages but one")
    return found[0]


def _package(point: metadata.EntryPoint) -> str:
    package = point.dist
    return one_line(f"{package.name} {package.version}") if package is not None else "(unknown)"


def _kind(group: str) -> str:
    return {STRATEGIES: "strategy", RUNTIMES: "runtime"}[group]

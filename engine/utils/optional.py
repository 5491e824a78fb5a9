"""Packages that not every install has: one place that says in one line what is missing and how to get it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engine.errors import EngineError, PlanError


def require(module: str, extra: str, needs: str, kind: type[EngineError] = PlanError) -> Any:
    """Return a module of an optional package.

    Args:
        module: what to import.
        extra: the extra that brings it.
        needs: the start of the message, as in ``--on ray needs Ray``.
        kind: the error to raise where it is missing.

    Raises:
        EngineError: of that kind, when it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise kind(f"{needs}: pip install 'maskfuse[{extra}]'") from None

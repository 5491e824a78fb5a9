"""Optional packages: one line that says what is missing and how to install it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engine.errors import EngineError, PlanError


def require(module: str, extra: str, needs: str, kind: type[EngineError] = PlanError) -> Any:
    """Return a module of an optional package.

    Args:
        module: the module to import.
        extra: the extra that installs it.
        needs: the start of the message, as in ``--on ray needs Ray``.
        kind: the error to raise if it is missing.

    Raises:
        EngineError: of that kind, if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise kind(f"{needs}: pip install 'maskfuse[{extra}]'") from None

"""The plan's ``[unknown]`` table: which pixels are too doubtful for a label, and what that bounds."""

from __future__ import annotations

import math
from typing import Any

from engine.errors import PlanError
from engine.fusion.doubt import DEFAULT_DOUBT, Unknown

KEYS = ("threshold", "doubt", "risk", "groups")


def read_unknown(table: object) -> Unknown | None:
    """Check a table as TOML gives it; return None where there is none.

    Raises:
        PlanError: no table, an unknown key, or a value that is not allowed.
    """
    if table is None:
        return None
    if not isinstance(table, dict):
        raise PlanError(f"unknown: {str(table)[:80]!r} is not a table; write threshold = 0.5 under [unknown]")
    other = [key for key in table if key not in KEYS]
    if other:
        raise PlanError(f"unknown: unknown key {other[0]!r}; known are {', '.join(KEYS)}")
    if "threshold" not in table:
        raise PlanError("unknown: threshold is missing: the most doubt, 0 to 1, that a label may have")
    doubt, groups = table.get("doubt", DEFAULT_DOUBT), table.get("groups", 0)
    if not isinstance(doubt, str):
        raise PlanError(f"unknown.doubt: {str(doubt)[:80]!r} is not a text")
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise PlanError(f"unknown.groups: {str(groups)[:80]!r} does not fit; a whole number is needed")
    risk = _number(table["risk"], "risk") if "risk" in table else None
    try:
        return Unknown(_number(table["threshold"], "threshold"), doubt, risk, groups)
    except PlanError as error:
        raise PlanError(f"[unknown]: {error}") from None


def unknown_table(unknown: Unknown | None) -> dict[str, Any]:
    """Return what :func:`read_unknown` reads back; nothing for None."""
    if unknown is None:
        return {}
    return {key: value for key, value in unknown.record.items() if key in KEYS}


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise PlanError(f"unknown.{key}: {str(value)[:80]!r} does not fit; a number is needed")
    return float(value)

"""Values of a plan as TOML gives them, checked by type: each returns what fits, or says what does not."""

from __future__ import annotations

import math
from typing import Any

from engine.errors import PlanError


def check_known(table: dict[str, Any], allowed: set[str], where: str) -> None:
    """Refuse a table with other keys than those that are allowed."""
    unknown = sorted(set(table) - allowed)
    if unknown:
        raise PlanError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(sorted(allowed))}")


def text(table: dict[str, Any], key: str) -> str | None:
    """Return a text of a table, None where it has none."""
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise PlanError(f"{key}: {value!r} is not a text")
    return value


def texts(value: object, key: str) -> tuple[str, ...]:
    """Return a list of printable texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item.isprintable() for item in value):
        raise PlanError(f"{key}: {str(value)[:80]} does not fit; texts are needed")
    return tuple(value)


def number(value: object, key: str, kinds: type | tuple[type, ...]) -> Any:
    """Return one number: int where ``kinds`` is int, else float."""
    (checked,) = numbers([value], key, kinds)
    return checked if kinds is int else float(checked)


def numbers(value: object, key: str, kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    """Return a list of finite numbers of these kinds; whole ones have at most 64 bits."""
    if not isinstance(value, list) or not all(isinstance(v, kinds) and not isinstance(v, bool) for v in value):
        wanted = "whole numbers" if kinds is int else "numbers"
        raise PlanError(f"{key}: {str(value)[:80]} does not fit; {wanted} are needed")
    if any(isinstance(v, int) and abs(v) >= 2**63 for v in value):
        raise PlanError(f"{key}: a whole number of more than 64 bits")
    if any(not math.isfinite(v) for v in value):
        raise PlanError(f"{key}: {str(value)[:80]}; every number must be finite")
    return tuple(value)

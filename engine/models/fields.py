"""The fields of a contract as they come from JSON or TOML: their names and types, checked one by one."""

from __future__ import annotations

import math
import re
from typing import Any, cast

from engine.errors import ContractError


def checked_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """Check names and types of contract fields that came from JSON or TOML and return them as the dataclass wants them.

    Raises:
        ContractError: a field is unknown or of a wrong type.
    """
    known = set(TYPES)
    unknown = sorted(set(raw) - known)
    require(not unknown, f"unknown field {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}")
    checked: dict[str, Any] = {}
    for name, value in raw.items():
        check, expected = TYPES[name]
        require(check(value), f"{name}: {value!r} is not {expected}")
        checked[name] = tuple(value) if isinstance(value, list | tuple) else value
    for name in ("scale", "resolution"):
        if checked.get(name) is not None:
            checked[name] = float(checked[name])
    return checked


def require(condition: bool, complaint: str) -> None:
    """Raise ContractError with a complaint about a field unless a condition holds."""
    if not condition:
        raise ContractError(f"contract field {complaint}")


def require_text(value: str) -> None:
    """Refuse names that are long or hold control characters."""
    require(len(value) <= 200 and value.isprintable(), f"text {value[:40]!r}: at most 200 printable characters")


def is_tile_key(value: str) -> bool:
    """Return whether a text has the form of a tile's key, see :func:`engine.models.folds.tile_keys`."""
    return re.fullmatch(r"[0-9A-Za-z_-]{8}", value) is not None


def listed(names: tuple[str, ...]) -> str:
    """Return allowed names as they stand in messages."""
    return " or ".join(names)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_int(value)


def _is_list(value: object, item: Any, length: int | None = None) -> bool:
    if not isinstance(value, list | tuple):
        return False
    items = cast(list[object], value)
    return (length is None or len(items) == length) and all(map(item, items))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_notes(value: object) -> bool:
    if not isinstance(value, dict) or len(value) > 100:
        return False
    return all(_is_text(key) and key.isprintable() and _is_scalar(item) for key, item in value.items())


def _is_constants(value: object) -> bool:
    if not isinstance(value, dict) or len(value) > 16:
        return False
    return all(_is_text(key) and (_is_number(item) or _is_list(item, _is_number)) for key, item in value.items())


def _is_scalar(value: object) -> bool:
    # An infinite number could be read (1e999) and never be written again.
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)


_TEXT = (_is_text, "a text")
_NUMBER = (_is_number, "a number")
_NUMBERS = (lambda value: _is_list(value, _is_number), "a list of numbers")
_CALIBRATION = (lambda value: _is_number(value) or _is_list(value, _is_number), "a number or a list of numbers")
_MAYBE_INT = (lambda value: value is None or _is_int(value), "a whole number or null")
TYPES: dict[str, tuple[Any, str]] = {
    "classes": (lambda value: _is_list(value, _is_text), "a list of texts"),
    "kind": _TEXT,
    "class_id": _MAYBE_INT,
    "group": _TEXT,
    "input_layout": _TEXT,
    "output_layout": _TEXT,
    "activation": _TEXT,
    "size": (lambda value: value is None or _is_list(value, _is_int, 2), "[height, width] or null"),
    "channels": (_is_int, "a whole number"),
    "scale": _NUMBER,
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "ignored_class": _MAYBE_INT,
    "stride": (_is_int, "a whole number"),
    "fit": _TEXT,
    "maps_resize": _TEXT,
    "foreground_threshold": _NUMBER,
    "thresholds": _NUMBERS,
    "bands": (lambda value: _is_list(value, _is_int), "a list of whole numbers"),
    "channel_order": _TEXT,
    "grey_as_rgb": (lambda value: isinstance(value, bool), "true or false"),
    "constants": (lambda value: _is_constants(value), "a table of numbers and lists of numbers"),
    "resolution": (lambda value: value is None or _is_number(value), "a number of metres per pixel"),
    "held_out": (lambda value: _is_list(value, _is_text), "a list of texts"),
    "bias": _CALIBRATION,
    "temperature": _CALIBRATION,
    "architecture": _TEXT,
    "version": _TEXT,
    "notes": (_is_notes, "a table of texts and finite numbers"),
}

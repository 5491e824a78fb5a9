"""Checks contract fields that other tools or a person state: names, types, ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import ContractError
from engine.models.contract import MAX_CLASSES
from engine.models.facts.checks import MOST_STRIDE, is_number, name, number, refuse, shown
from engine.models.fields import TYPES, checked_fields

MOST_DEPTH = 8


def _is_list(value: object, item: Any) -> bool:
    return isinstance(value, list | tuple) and 1 <= len(value) <= MAX_CLASSES and all(map(item, value))


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and is_number(value) and 0 <= value <= 1


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_constants(value: object) -> bool:
    if not isinstance(value, dict) or not 1 <= len(value) <= 64:
        return False
    return all(isinstance(key, str) and (is_number(item) or _is_list(item, is_number)) for key, item in value.items())


# Fields whose range is checked where they are stated, so that the message names the origin.
_NARROW: dict[str, tuple[Any, str]] = {
    "stride": (lambda value: _is_whole(value, MOST_STRIDE), f"a whole number from 1 to {MOST_STRIDE}"),
    "fit": (lambda value: value in ("resize", "pad"), "resize or pad"),
    "maps_resize": (lambda value: value in ("bilinear", "nearest"), "bilinear or nearest"),
    "foreground_threshold": (lambda value: _is_share(value) and 0 < value < 1, "a number between 0 and 1"),
    "thresholds": (lambda value: _is_list(value, _is_share), "a list of numbers from 0 to 1"),
    "bands": (lambda value: _is_list(value, lambda band: _is_whole(band, 65535)), "a list of bands, the first is 1"),
    "channel_order": (lambda value: value in ("rgb", "bgr"), "rgb or bgr"),
    "constants": (_is_constants, "a table of numbers or lists of numbers by input"),
    "resolution": (lambda value: is_number(value) and 1e-6 <= value <= 1e6, "a number of metres per pixel"),
    "output_name": (lambda value: isinstance(value, str) and value != "", "a text"),
}


def checked(raw: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return contract fields with their names, types and ranges checked; None stays: not stated.

    Raises:
        ContractError: naming the origin, the field, what it holds and what is allowed.
    """
    known = {*TYPES, *_NARROW}
    unknown = sorted(set(raw) - known)
    if unknown:
        listed = ", ".join(map(shown, unknown[:8]))
        raise refuse(origin, f"unknown field {listed}; known are {', '.join(sorted(known))}")
    stated = {key: value for key, value in raw.items() if value is not None}
    for key, value in stated.items():
        _check_leaves(value, f"{origin}, {key}")
    try:
        found = checked_fields({key: value for key, value in stated.items() if key not in _NARROW})
    except ContractError as error:
        raise refuse(origin, _cut(str(error))) from None
    for key in stated.keys() & _NARROW.keys():
        check, needed = _NARROW[key]
        if not check(stated[key]):
            raise refuse(origin, f"contract field {key}: {shown(stated[key])} is not {needed}")
        found[key] = tuple(stated[key]) if isinstance(stated[key], list) else stated[key]
    _check_ranges(found, origin)
    return {key: found.get(key) for key in raw}


def _check_leaves(value: object, where: str, depth: int = 0) -> None:
    """Refuse texts that do not print and numbers that are not finite, wherever they stand."""
    if depth > MOST_DEPTH:
        raise refuse(where, f"is nested more than {MOST_DEPTH} levels deep: no field is")
    if isinstance(value, dict):
        for key, item in value.items():
            name(key, where)
            _check_leaves(item, where, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_leaves(item, where, depth + 1)
    elif isinstance(value, str):
        name(value, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number(value, where)


def _check_ranges(found: Mapping[str, Any], origin: str) -> None:
    empty = next((key for key, value in found.items() if value == ()), None)
    if empty is not None:
        raise refuse(origin, f"contract field {empty}: an empty list; give its values or leave it out")
    classes = found.get("classes", ("0", "1"))
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise refuse(origin, f"contract field classes: {len(classes)} of them; allowed are 2 to {MAX_CLASSES}")
    if len(set(classes)) != len(classes):
        twin = next(item for index, item in enumerate(classes) if item in classes[:index])
        raise refuse(origin, f"contract field classes: {shown(twin)} stands there twice; each needs its own name")
    for key, value in (("scale", found.get("scale", 1.0)), *(("std", item) for item in found.get("std", ()))):
        if not 1e-30 <= math.fabs(value) <= 1e30:
            raise refuse(origin, f"contract field {key}: {shown(value)}; its size must lie within 1e-30 and 1e30")


def _cut(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."

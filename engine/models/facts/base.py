"""What one origin says of a net, and how several origins are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import ContractError
from engine.models.facts.checks import refuse, shown
from engine.models.facts.fields import checked

# Two tools write one number with different precision, as 0.0039216 for 1/255; closer than this they agree.
TOLERANCE = 1e-4
COUNTED = frozenset({"size", "channels", "class_id", "ignored_class", "stride", "bands", "held_out"})


@dataclass(frozen=True)
class Facts:
    """What one origin says of a net.

    Attributes:
        origin: where it stands, for messages: ``its metadata (Ultralytics)``, ``net.toml``, ``--scale``.
        fields: contract fields by name, types and ranges checked; None: not stated.
        notes: further things to show, text by name; nothing is computed from them.
    """

    origin: str
    fields: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ContractError: naming the origin, the field, what it holds and what is allowed.
        """
        object.__setattr__(self, "fields", checked(self.fields, self.origin))


def merged(facts: Sequence[Facts]) -> tuple[dict[str, Any], dict[str, str]]:
    """Put several origins together: an earlier one is more exact, a later one may only add.

    None and the names ``class 0``, ``class 1``, ... count as not stated. Tables (``constants``, ``notes``) are put
    together entry by entry.

    Args:
        facts: the origins, the most exact one first.

    Returns:
        Values by field, and the origin of each.

    Raises:
        ContractError: two origins contradict each other; both and their values are named.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for fact in facts:
        for name, value in fact.fields.items():
            if value is None or (name in values and _is_made_up(name, value)):
                continue
            if name not in values or _is_made_up(name, values[name]):
                values[name], origins[name] = value, fact.origin
                continue
            _require_agreement(name, (origins[name], values[name]), (fact.origin, value))
            if isinstance(value, dict):
                values[name] = {**value, **values[name]}
    return values, origins


def _is_made_up(name: str, value: Any) -> bool:
    return name == "classes" and all(item == f"class {index}" for index, item in enumerate(value))


def _require_agreement(name: str, first: tuple[str, Any], second: tuple[str, Any]) -> None:
    one, other = first[1], second[1]
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() & other.keys():
            _require_agreement(f"{name}.{key}", (first[0], one[key]), (second[0], other[key]))
        return
    exact = name in COUNTED
    ones, others = _items(one), _items(other)
    if not exact and 1 in (len(ones), len(others)):  # one value stands for all channels or classes
        length = max(len(ones), len(others))
        ones, others = ones * (length // len(ones)), others * (length // len(others))
    if len(ones) != len(others):
        raise _contradiction(name, first[0], _listed(ones), second[0], _listed(others))
    for index, (left, right) in enumerate(zip(ones, others, strict=True)):
        if not _same(left, right, exact):
            place = f"{name}[{index}]" if len(ones) > 1 else name
            raise _contradiction(place, first[0], _value(left), second[0], _value(right))


def _same(one: Any, other: Any, exact: bool) -> bool:
    numeric = all(isinstance(item, int | float) and not isinstance(item, bool) for item in (one, other))
    if exact or not numeric:
        return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12)


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else shown(value)


def _listed(values: tuple[Any, ...]) -> str:
    text = ", ".join(map(_value, values[:4])) + (", ..." if len(values) > 4 else "")
    return f"{len(values)} value{'s' if len(values) != 1 else ''} ({text})"


def _contradiction(name: str, origin: str, value: str, second: str, other: str) -> ContractError:
    return refuse(name, f"{origin} says {value}, {second} says {other}; correct one or leave it out")

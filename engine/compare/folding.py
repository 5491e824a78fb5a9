"""Rows with the same scores, shown as one: raw and suppressed where these agree, strategies that agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.compare.result import Row


@dataclass(frozen=True)
class Folded:
    """One row that is shown.

    Attributes:
        places: indices of the rows that it stands for, the best-placed first.
        row: the first of them.
        others: names and states of the rest, in words; empty where there are none.
    """

    places: tuple[int, ...]
    row: Row
    others: str


def folded(rows: Sequence[Row], conventions: Sequence[str], everything: bool = False) -> list[Folded]:
    """Return the rows in their order, those with the same scores, intervals and differences folded into the first.

    Args:
        rows: the best first.
        conventions: those that are shown; none where there are no labels: then shares and agreement decide.
        everything: fold none.
    """
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(str(place) if everything else row_key(row, conventions), []).append(place)
    return [Folded(tuple(own), rows[own[0]], _told([rows[place] for place in own])) for own in places.values()]


def row_key(row: Row, conventions: Sequence[str]) -> str:
    """Return a text that rows with the same scores share, and no others."""
    return repr([row.scores[name] for name in conventions] if conventions else [row.share, row.agreement])


def _told(rows: Sequence[Row]) -> str:
    """Return ``suppressed; vote raw, suppressed``: what follows the first row, states of its own name without it."""
    states: dict[str, list[str]] = {}
    for row in rows[1:]:
        states.setdefault(row.name, []).append(row.state)
    return "; ".join(
        ", ".join(own) if name == rows[0].name else f"{name} {', '.join(own)}" for name, own in states.items()
    )

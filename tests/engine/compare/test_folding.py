"""Rows with the same scores stand as one, named after the best-placed; nothing else is folded."""

from __future__ import annotations

from engine.compare.folding import folded
from engine.compare.result import Estimate, Row


def row(name: str, state: str, value: float, every: float = 0.5) -> Row:
    scores = {"labelled": Estimate(value, 0, 1, 0, 0, 0), "all": Estimate(every, 0, 1, 0, 0, 0)}
    return Row(name, -1, state, 1.0, scores, [value, 1 - value], 0.5, [], [], [])


ROWS = [
    row("vote", "raw", 0.9, 0.4),
    row("vote", "suppressed", 0.9),
    row("borda", "raw", 0.9),
    row("borda", "suppressed", 0.9),
    row("a", "raw", 0.7),
]


def test_equal_rows_are_named_behind_the_first() -> None:
    found = folded(ROWS, ["labelled"])
    assert [item.places for item in found] == [(0, 1, 2, 3), (4,)]
    assert [item.row for item in found] == [ROWS[0], ROWS[4]]
    assert [item.others for item in found] == ["suppressed; borda raw, suppressed", ""]


def test_rows_that_differ_in_what_is_shown_stay() -> None:
    assert [item.places for item in folded(ROWS, ["labelled", "all"])] == [(0,), (1, 2, 3), (4,)]
    assert [item.places for item in folded(ROWS, ["labelled"], everything=True)] == [(0,), (1,), (2,), (3,), (4,)]


def test_without_scores_shares_decide() -> None:
    assert [item.places for item in folded(ROWS, [])] == [(0, 1, 2, 3), (4,)]

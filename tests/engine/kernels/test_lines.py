"""A line over one class's bias counts what decoding with each of its values counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.kernels.lines import count_line, rank_two
from engine.kernels.selecting import pack


def labels_under(table: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """The lowest of the best classes (classes, pixels) under a bias."""
    return (table.astype(np.int64) + shifts[:, None]).argmax(axis=0)


@given(
    st.integers(2, 6),
    st.lists(st.integers(0, 1500), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(0, 6),
    st.integers(1, 40),
    st.integers(0, 2**31),
)
def test_a_line_counts_what_each_value_counts(
    classes: int, sizes: list[int], spread: int, reach: int, step: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    pixels = int(starts[-1])
    # Few different numbers: ties are the hard case.
    table = draw.integers(-spread * 10, spread * 10, (classes, pixels)).astype(np.int32)
    shifts = draw.integers(-20, 20, classes).astype(np.int32)
    base = np.empty(table.size, np.int32)
    pack(table, base, 0, starts)
    best, label, second, runner = np.empty((4, pixels), np.int32)
    rank_two(base, shifts, starts, best, label, second, runner)
    if pixels:
        ranked = np.sort(table.astype(np.int64) + shifts[:, None], axis=0)
        np.testing.assert_array_equal(label, labels_under(table, shifts))
        np.testing.assert_array_equal(best, ranked[-1])
        np.testing.assert_array_equal(second, ranked[-2])
        assert (runner != label).all()
    for candidate in range(classes):
        moved = np.zeros((len(sizes), 2 * reach + 2, classes), np.int32)
        for segment, (start, stop) in enumerate(pairwise(starts)):
            moved[segment, -1] = np.bincount(label[start:stop], minlength=classes)
        moved[:, -1, candidate] = 0
        where = (best, label, second, runner)
        count_line(
            base, shifts[candidate], np.int32(candidate), starts, where, float(-reach * step), float(step), moved
        )
        taken = moved.cumsum(axis=1)
        for place in range(2 * reach + 1):
            other = shifts.copy()
            other[candidate] += (place - reach) * step
            found = labels_under(table, other)
            for segment, (start, stop) in enumerate(pairwise(starts)):
                want = np.bincount(found[start:stop], minlength=classes)
                left = taken[segment, -1] - taken[segment, place]
                left[candidate] = taken[segment, place].sum()
                np.testing.assert_array_equal(left, want)

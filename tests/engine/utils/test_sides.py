"""The nearest sizes whose sides a stride divides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.utils.sides import nearest_sizes, told_size

SIDES = st.integers(1, 5000)


@given(size=st.tuples(SIDES, SIDES), stride=st.integers(1, 256))
def test_they_are_the_nearest_multiples(size: tuple[int, int], stride: int) -> None:
    below, above = nearest_sizes(size, stride)
    for side, low, high in zip(size, below, above, strict=True):
        multiples = [value for value in range(stride, side + stride, stride) if value % stride == 0]
        assert low == max((value for value in multiples if value <= side), default=stride)
        assert high == min(value for value in multiples if value >= side)


def test_they_are_told_by_height_and_width() -> None:
    assert told_size((64, 128)) == "64x128"

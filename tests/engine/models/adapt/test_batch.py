"""Graphs of a fixed batch size: any number of images gives what one by one gives."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.models.adapt.batch import in_groups


class Graph:
    """Doubles what it is given, in groups of one size alone, and writes where it is told if it can."""

    def __init__(self, group: int, writes: bool) -> None:
        self.group, self.writes = group, writes
        self.seen: list[NDArray] = []

    def __call__(self, prepared: NDArray, out: NDArray | None) -> NDArray:
        assert len(prepared) == self.group
        assert prepared.flags.c_contiguous
        self.seen.append(prepared.copy())
        if out is None or not self.writes:
            return prepared * 2
        np.multiply(prepared, 2, out=out)
        return out


@given(st.integers(1, 12), st.integers(1, 5), st.booleans(), st.booleans())
def test_groups_give_what_one_by_one_gives(count: int, group: int, writes: bool, placed: bool) -> None:
    images = np.random.default_rng(count).normal(size=(count, 2, 3)).astype(np.float32)
    graph, out = Graph(group, writes), np.full_like(images, np.nan) if placed else None
    got = in_groups(graph, images, group, out)
    np.testing.assert_array_equal(got, np.concatenate([image[None] * 2 for image in images]))
    assert len(graph.seen) == -(-count // group)
    # Whole groups alone can be written in place; whatever is returned as `out` holds all of it.
    assert (got is out) == (placed and writes and count % group == 0)


@given(st.integers(1, 12), st.integers(2, 5))
def test_the_last_group_is_filled_up_with_its_own_last_image(count: int, group: int) -> None:
    images = np.arange(1, count + 1, dtype=np.float32)[:, None]
    graph = Graph(group, False)
    in_groups(graph, images, group)
    filled = np.concatenate(graph.seen)
    np.testing.assert_array_equal(filled[:count], images)
    assert (filled[count:] == images[-1]).all()

"""Tiles of pictures find their places again, whatever the cut, order and type; what is no overlap joins nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sources.placement import Placement, find_placement


def tiles_of(picture: np.ndarray, size: tuple[int, int], step: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cut every whole tile; return pixels and corners."""
    rows = range(0, picture.shape[0] - size[0] + 1, step[0])
    columns = range(0, picture.shape[1] - size[1] + 1, step[1])
    corners = np.array([(row, column) for row in rows for column in columns])
    return np.stack([picture[r : r + size[0], c : c + size[1]] for r, c in corners]), corners


def agree(placement: Placement, true_picture: np.ndarray, true_corner: np.ndarray) -> None:
    """Check that the same images are together, at the same distances."""
    for own in placement.images:
        assert len(set(true_picture[own])) == 1
        assert own.size == (true_picture == true_picture[own[0]]).sum()
        moved = placement.corner[own] - true_corner[own]
        assert (moved == moved[0]).all()
        assert (placement.corner[own].min(axis=0) == 0).all()


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint8, np.int16, np.float32]),
    st.tuples(st.integers(4, 12), st.integers(4, 12)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(), (1,), (3,)]),
)
def test_any_cut_is_found_again(
    seed: int, kind: type, size: tuple[int, int], step: tuple[int, int], channels: tuple[int, ...]
) -> None:
    draw = np.random.default_rng(seed)
    step = (min(step[0], size[0] * 3 // 4), min(step[1], size[1] * 3 // 4))
    cut = [
        tiles_of(draw.integers(0, 200, (*draw.integers(12, 30, 2), *channels)).astype(kind), size, step)
        for _ in range(2)
    ]
    pixels = np.concatenate([part for part, _ in cut])
    corner = np.concatenate([places for _, places in cut])
    picture = np.repeat([0, 1], [len(part) for part, _ in cut])
    order = draw.permutation(len(pixels))
    placement = find_placement(pixels[order])
    assert placement.contradictory == 0
    agree(placement, picture[order], corner[order])
    # Pictures are numbered in the order of their first images, and put together they show what they were cut from.
    assert placement.picture[0] == 0
    for number, own in enumerate(placement.images):
        whole, shown = placement.joined(pixels[order], number)
        assert whole.shape[:2] == placement.sizes[number]
        for index in own:
            np.testing.assert_array_equal(whole[placement.part(index)], pixels[order][index])
            assert shown[placement.part(index)].all()


def test_images_without_overlap_stay_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 8, 16), np.uint8)
    placement = find_placement(pixels)
    assert placement.picture.tolist() == list(range(9))
    assert placement.sizes == [(8, 16)] * 9


def test_flat_images_join_nothing() -> None:
    """Sky looks alike everywhere: equal pixels of one value say nothing."""
    assert len(find_placement(np.full((5, 8, 16), 30, np.uint8)).images) == 5


def test_a_common_frame_joins_nothing() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (100, 16, 16), np.uint8)
    pixels[:, :, :3] = np.arange(16)[:, None]
    pixels[:, :, -3:] = np.arange(16)[:, None]
    assert len(find_placement(pixels).images) == 100


def test_contradicting_overlaps_leave_the_images_alone() -> None:
    """A pattern that repeats fits at several places."""
    pattern = np.tile(np.random.default_rng(2).integers(0, 255, (8, 4), np.uint8), (1, 8))
    pixels = np.stack([pattern[:, :16], pattern[:, 4:20], pattern[:, 8:24]])
    placement = find_placement(pixels)
    assert placement.contradictory == 3
    assert placement.picture.tolist() == [0, 1, 2]
    assert (placement.corner == 0).all()


@pytest.mark.parametrize("gap", [0, 7])
def test_pixels_that_no_image_shows_are_told(gap: int) -> None:
    picture = np.random.default_rng(3).integers(0, 255, (16, 24), np.uint8)
    pixels = np.stack([picture[:8, :16], picture[4:12, :16], picture[4:12, 8:24]])
    placement = find_placement(pixels)
    whole, shown = placement.joined(pixels, 0, fill=gap)
    assert whole.shape == (12, 24)
    assert (whole[:4, 16:] == gap).all() and not shown[:4, 16:].any()
    np.testing.assert_array_equal(whole[shown], picture[:12][shown])

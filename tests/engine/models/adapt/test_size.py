"""Sides mirrored up to a stride, images and maps resized, sizes that maps may have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.adapt.size import mirrored, nearest_into, next_multiple, padded, reduction
from tests.helpers import reference

SIDES = st.integers(1, 24)
SIZES = st.tuples(SIDES, SIDES)


@given(SIZES, SIZES, st.integers(1, 3))
@settings(deadline=None)
def test_padding_mirrors_as_numpy_does(size: tuple[int, int], more: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, channels)).astype(np.uint8)
    to = (size[0] + more[0], size[1] + more[1])
    got = padded(pixels, to)
    np.testing.assert_array_equal(got, reference.mirror_padded(pixels, to))
    np.testing.assert_array_equal(got[:, : size[0], : size[1]], pixels)


def test_an_image_of_the_size_is_not_copied() -> None:
    pixels = np.zeros((1, 4, 6, 3), np.uint8)
    assert padded(pixels, (4, 6)) is pixels


@given(st.integers(1, 30))
def test_mirrored_positions_repeat_neither_edge(length: int) -> None:
    positions = mirrored(np.arange(-3 * length, 3 * length), length)
    walk = [*range(length), *range(length - 2, 0, -1)] if length > 1 else [0]
    np.testing.assert_array_equal(positions, [walk[i % len(walk)] for i in range(-3 * length, 3 * length)])


@given(SIZES, st.integers(1, 64))
def test_the_next_multiple_is_the_least_that_fits(size: tuple[int, int], stride: int) -> None:
    for side, got in zip(size, next_multiple(size, stride), strict=True):
        assert got % stride == 0
        assert side <= got < side + stride


@given(SIZES, SIZES, st.data())
@settings(deadline=None)
def test_nearest_takes_the_pixel_under_each_centre(
    source: tuple[int, int], target: tuple[int, int], data: st.DataObject
) -> None:
    maps = np.random.default_rng(1).integers(0, 9, (2, 3, *source)).astype(np.int64)
    cut = (data.draw(st.integers(1, target[0])), data.draw(st.integers(1, target[1])))
    out = np.empty((2, 3, *cut), np.int64)
    nearest_into(out, maps, target)
    np.testing.assert_array_equal(out, reference.nearest(maps, target)[..., : cut[0], : cut[1]])


@given(st.integers(1, 64), SIZES)
def test_every_whole_reduction_is_one(factor: int, maps: tuple[int, int]) -> None:
    image = (maps[0] * factor, maps[1] * factor)
    assert reduction(image, maps)
    if factor <= 16:
        assert reduction(maps, image)


@pytest.mark.parametrize(
    ("image", "maps", "fits"),
    [
        ((33, 50), (9, 13), True),  # a quarter, rounded up
        ((33, 50), (8, 12), True),  # rounded down
        ((32, 48), (8, 24), False),  # another factor a side
        ((32, 48), (48, 32), False),
        ((32, 48), (30, 46), False),  # borders cut off by convolutions without padding
        ((32, 48), (0, 0), False),
        ((2, 2), (1, 1), True),
    ],
)
def test_which_sizes_maps_may_have(image: tuple[int, int], maps: tuple[int, int], fits: bool) -> None:
    assert reduction(image, maps) is fits

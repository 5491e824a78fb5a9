"""Images of different sizes in one flat array, against a list of arrays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.select.ragged import Ragged, located, one_size, pixel_counts

SIDES = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(sizes=st.lists(SIDES, min_size=1, max_size=12), most=st.integers(1, 4), seed=st.integers(0, 9))
def test_it_is_a_list_of_images(sizes: list[tuple[int, int]], most: int, seed: int) -> None:
    images = [np.random.default_rng(seed + at).random((3, h * w), np.float32) for at, (h, w) in enumerate(sizes)]
    pixels = [image.shape[1] for image in images]
    held = Ragged(np.zeros(3 * sum(pixels), np.float32), pixels, (3,))
    order = np.random.default_rng(seed).permutation(len(sizes))
    parts = one_size(order, sizes, most)
    np.testing.assert_array_equal(np.concatenate(parts), order)
    for before, after in pairwise(parts):  # no part ends before it has to
        assert len(before) == most or sizes[before[-1]] != sizes[after[0]]
    for part in one_size(np.arange(len(sizes)), sizes, most):
        held[part[0] : part[-1] + 1] = np.stack([images[index] for index in part])
    for part in parts:
        assert len(part) <= most
        np.testing.assert_array_equal(held[part], np.stack([images[index] for index in part]))
    assert len(held) == len(images)
    for own, image in zip(held, images, strict=True):
        np.testing.assert_array_equal(own, image)


@given(sizes=st.lists(SIDES, min_size=1, max_size=12))
def test_a_flat_place_is_a_pixel_of_an_image(sizes: list[tuple[int, int]]) -> None:
    maps = [np.full(h * w, at) * 100 + np.arange(h * w) for at, (h, w) in enumerate(sizes)]
    held = Ragged(np.concatenate(maps), [len(one) for one in maps])
    image, pixel = located(np.arange(len(held.ravel())), pixel_counts(held))
    np.testing.assert_array_equal(image * 100 + pixel, held.ravel())


def test_a_plain_array_is_cut_evenly() -> None:
    assert [part.tolist() for part in one_size(np.arange(5), (), 2)] == [[0, 1], [2, 3], [4]]
    np.testing.assert_array_equal(pixel_counts(np.zeros((3, 4))), [4, 4, 4])
    assert Ragged(np.zeros(6), [2, 4])[np.array([], np.int64)].shape == (0, 0)

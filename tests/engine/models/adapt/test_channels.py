"""Channels picked, ordered, turned around and repeated."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.models.adapt.channels import arranged

MOST = 64


def drawn(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (2, 3, 4, channels)).astype(np.uint16)


@given(st.integers(1, MOST), st.data(), st.booleans())
def test_bands_are_counted_from_one_and_keep_their_order(channels: int, data: st.DataObject, reverse: bool) -> None:
    pixels = drawn(channels)
    bands = data.draw(st.lists(st.integers(1, channels), min_size=1, unique=True))
    got = arranged(pixels, bands, reverse, 1)
    order = bands[::-1] if reverse else bands
    np.testing.assert_array_equal(got, np.stack([pixels[..., band - 1] for band in order], axis=-1))


@given(st.integers(1, MOST))
def test_nothing_is_copied_where_nothing_is_arranged(channels: int) -> None:
    pixels = drawn(channels)
    assert arranged(pixels, (), False, 1) is pixels
    assert np.shares_memory(arranged(pixels, (), True, 1), pixels)


def test_grey_is_repeated_and_colour_never() -> None:
    np.testing.assert_array_equal(arranged(drawn(1), (), False, 3), drawn(1)[..., [0, 0, 0]])
    np.testing.assert_array_equal(arranged(drawn(3), (), False, 3), drawn(3))
    np.testing.assert_array_equal(arranged(drawn(4), (2,), False, 3), drawn(4)[..., [1, 1, 1]])

"""What is stated about images: RGB as grey."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.errors import PlanError
from engine.sources.base import from_array
from engine.sources.reading import Reading, Taken, grey, made_grey


def test_grey_is_that_of_other_programs() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours = grey(pixels)
    assert (ours.dtype, ours.shape) == (np.uint8, (64, 64, 1))
    np.testing.assert_array_equal(ours[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))
    for kind in (np.uint8, np.uint16):
        deep = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (64, 64, 3), dtype=kind)
        theirs = cv2.cvtColor(deep, cv2.COLOR_RGB2GRAY).astype(int)
        assert np.abs(grey(deep)[..., 0].astype(int) - theirs).max() <= (1 if kind is np.uint8 else 4)
    floats = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    np.testing.assert_allclose(grey(floats)[..., 0], cv2.cvtColor(floats, cv2.COLOR_RGB2GRAY), atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_equal_channels_stay_what_they_are(kind: type) -> None:
    values = np.random.default_rng(1).integers(0, 100, (5, 7)).astype(kind)
    np.testing.assert_allclose(grey(np.stack([values] * 3, -1))[..., 0], values, rtol=1e-6)
    if np.dtype(kind).kind == "u":
        ends = np.array([0, np.iinfo(kind).max], kind)
        np.testing.assert_array_equal(grey(np.stack([ends] * 3, -1))[..., 0], ends)


def test_a_source_becomes_grey_where_it_is_rgb() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (5, 8, 70, 3), dtype=np.uint8)
    source = made_grey(from_array(pixels), Reading(rgb_as_grey=True))
    assert source.channels == 1
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in source.batches(2)]), grey(pixels))
    assert source.at is not None
    np.testing.assert_array_equal(source.at(1, 3), grey(pixels[1:3]))
    assert made_grey(from_array(pixels[..., :1]), Reading(rgb_as_grey=True)).channels == 1
    assert made_grey(from_array(pixels), Reading()).channels == 3


def test_unknown_words_are_refused() -> None:
    with pytest.raises(PlanError, match="--image-layout HWN: unknown; allowed are NHWC"):
        Reading(layout="HWN")
    with pytest.raises(PlanError, match="allowed are apply and ignore"):
        Reading(exif="no")


def test_what_members_take() -> None:
    assert not Taken().known
    assert Taken(frozenset({3})).fits(3)
    assert not Taken(frozenset({3})).fits(4)
    assert [channels for channels in range(6) if Taken(least=4).fits(channels)] == [4, 5]

"""Small regions against a flood fill in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("cc3d", reason="the clean-up needs the extra 'cleanup'")

from engine.fusion.regions import absorb_small_regions
from tests.helpers.properties import examples


def flood(image):
    """Regions as lists of pixels."""
    height, width = image.shape
    seen = np.zeros(image.shape, bool)
    for start in np.ndindex(image.shape):
        if seen[start]:
            continue
        region, open_ends = [], [start]
        seen[start] = True
        while open_ends:
            y, x = open_ends.pop()
            region.append((y, x))
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= b < height and 0 <= a < width and not seen[b, a] and image[b, a] == image[y, x]:
                    seen[b, a] = True
                    open_ends.append((b, a))
        yield region


def reference(image, least):
    out = image.copy()
    for region in flood(image):
        if len(region) >= least:
            continue
        counts = np.zeros(256, int)
        for y, x in region:
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= b < image.shape[0] and 0 <= a < image.shape[1] and image[b, a] != image[y, x]:
                    counts[image[b, a]] += 1
        if counts.any():
            for pixel in region:
                out[pixel] = counts.argmax()
    return out


@examples(60)
@given(arrays(np.uint8, (2, 7, 9), elements=st.sampled_from([0, 1, 3, 255])), st.integers(0, 12))
def test_it_equals_a_flood_fill(labels, least):
    before = labels.copy()
    got = absorb_small_regions(labels, least)
    for image, cleaned in zip(labels, got, strict=True):
        np.testing.assert_array_equal(cleaned, reference(image, least))
    np.testing.assert_array_equal(labels, before)


def test_a_speck_goes_to_what_surrounds_it():
    labels = np.full((1, 5, 5), 2, np.uint8)
    labels[0, 2, 2] = 4
    assert (absorb_small_regions(labels, 2) == 2).all()
    assert (absorb_small_regions(labels, 1) == labels).all()
    assert (absorb_small_regions(np.full((1, 2, 2), 3, np.uint8), 100) == 3).all()

"""Small regions against a flood fill in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("cc3d", reason="the clean-up needs the extra 'cleanup'")

from engine.fusion.cleanup import ClassCleanup
from engine.fusion.decoding import Decoding
from engine.fusion.regions import absorb_small_regions, clean_regions, cleaned
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
    for image, found in zip(labels, got, strict=True):
        np.testing.assert_array_equal(found, reference(image, least))
    np.testing.assert_array_equal(labels, before)


def test_a_speck_goes_to_what_surrounds_it():
    labels = np.full((1, 5, 5), 2, np.uint8)
    labels[0, 2, 2] = 4
    assert (absorb_small_regions(labels, 2) == 2).all()
    assert (absorb_small_regions(labels, 1) == labels).all()
    assert (absorb_small_regions(np.full((1, 2, 2), 3, np.uint8), 100) == 3).all()


def scipy_reference(image, least, cleanup, void):
    """The same by scipy.ndimage: regions and holes of one class at a time."""
    ndimage = pytest.importorskip("scipy.ndimage")
    settings_of = {item.class_id: item for item in cleanup}
    gone = np.zeros(image.shape, bool)
    regions = np.zeros(image.shape, int)
    count = 0
    for class_id in np.unique(image):
        found, number = ndimage.label(image == class_id)
        own = settings_of.get(class_id, ClassCleanup(int(class_id)))
        small = least if own.min_region is None else own.min_region
        sizes = ndimage.sum_labels(image == class_id, found, np.arange(1, number + 1))
        for region in range(1, number + 1):
            # scipy numbers regions in reading order, so the first of the largest is the lowest.
            if sizes[region - 1] < small or (own.largest and region - 1 != int(np.argmax(sizes))):
                gone |= found == region
            regions[found == region] = count + region
        count += number
    out = image.copy()
    for region in np.unique(regions[gone]):
        mask = regions == region
        counts = np.zeros(256, int)
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            near = np.roll(mask, shift, axis)
            edge = [slice(None)] * 2
            edge[axis] = 0 if shift == 1 else -1
            near[tuple(edge)] = False
            np.add.at(counts, image[near & ~mask], 1)
        if counts.any():
            out[mask] = counts.argmax()
    for class_id in sorted(settings_of):
        if settings_of[class_id].fill_holes:
            mask = out == class_id
            holes, number = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
            for hole in range(1, number + 1):
                if void is None or not (out[holes == hole] == void).any():
                    out[holes == hole] = class_id
    return out


CLEANUPS = st.lists(
    st.builds(
        ClassCleanup,
        st.sampled_from([0, 1, 3]),
        min_region=st.none() | st.integers(0, 8),
        largest=st.booleans(),
        fill_holes=st.booleans(),
    ),
    unique_by=lambda item: item.class_id,
)


@examples(120)
@given(
    arrays(np.uint8, (2, 7, 9), elements=st.sampled_from([0, 1, 1, 3, 255])),
    st.integers(0, 6),
    CLEANUPS,
    st.sampled_from([None, 255]),
)
def test_classes_are_cleaned_as_scipy_does(labels, least, cleanup, void):
    before = labels.copy()
    got = clean_regions(labels, least, cleanup, void)
    for image, found in zip(labels, got, strict=True):
        np.testing.assert_array_equal(found, scipy_reference(image, least, cleanup, void))
    np.testing.assert_array_equal(labels, before)
    decoding = Decoding(min_region=least, cleanup=tuple(cleanup))
    whole = cleaned(labels.reshape(2, -1), decoding, (7, 9), 255).reshape(labels.shape)
    np.testing.assert_array_equal(whole == 255, labels == 255)


def test_the_largest_stays_and_holes_are_filled():
    labels = np.full((1, 6, 8), 2, np.uint8)
    labels[0, 1:4, 1:4] = 1
    labels[0, 2, 2] = 2
    labels[0, 5, 7] = 1
    once = clean_regions(labels, cleanup=[ClassCleanup(1, largest=True)])
    assert (once == 1).sum() == 8
    both = clean_regions(labels, cleanup=[ClassCleanup(1, largest=True, fill_holes=True)])
    assert (both[0, 1:4, 1:4] == 1).all()
    assert (both == 1).sum() == 9
    # A class that no image has changes nothing, and a hole that holds no data is none.
    assert (clean_regions(labels, cleanup=[ClassCleanup(4, 0.0, 99, True, True)]) == labels).all()
    labels[0, 2, 2] = 255
    assert (clean_regions(labels, cleanup=[ClassCleanup(1, fill_holes=True)], void=255) == labels).all()

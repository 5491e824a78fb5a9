"""Gaps in pixels are filled with their mirrored neighbours, as np.pad mirrors and as the slow twin does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import OutputError
from engine.sources.nodata import fill_mirrored
from engine.sources.scene import Scene, void_label
from tests.helpers import reference
from tests.helpers.properties import examples

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@examples(200)
@given(st.data())
def test_gaps_are_filled_as_pixel_by_pixel(data: st.DataObject) -> None:
    height, width = data.draw(SHAPES)
    valid = data.draw(hnp.arrays(np.bool_, (height, width)).filter(lambda found: found.any()))
    pixels = np.arange(height * width * 2).reshape(height, width, 2).astype(np.int16)
    before = pixels.copy()
    filled = fill_mirrored(pixels, valid)
    np.testing.assert_array_equal(filled, reference.fill_mirrored(pixels, valid))
    np.testing.assert_array_equal(filled[valid], pixels[valid])
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("gap", [1, 5, 9])
def test_a_straight_edge_is_mirrored_as_np_pad_does(gap: int, axis: int) -> None:
    whole = np.random.default_rng(1).integers(0, 255, (20, 22, 3))
    valid = np.ones((20, 22), bool)
    inside = whole[gap:] if axis == 0 else whole[:, gap:]
    (valid if axis == 0 else valid.T)[:gap] = False
    widths = [(gap, 0) if side == axis else (0, 0) for side in range(3)]
    np.testing.assert_array_equal(fill_mirrored(whole, valid), np.pad(inside, widths, mode="reflect"))


@pytest.mark.parametrize(
    ("nodata", "classes", "label"),
    [(None, 5, 255), (0.0, 5, 255), (4.0, 5, 255), (5.0, 5, 5), (254.0, 5, 254), (-9999.0, 5, 255), (7.5, 5, 255),
     (65535.0, 5, 255), (float("nan"), 5, 255), (255.0, 255, 255)],
)  # fmt: skip
def test_the_value_of_the_scene_is_kept_where_it_is_free(nodata: float | None, classes: int, label: int) -> None:
    scene = Scene("s", (1, 1), 1, lambda start, stop: np.zeros((1, 1, 1)), nodata=nodata)
    assert void_label(scene, classes) is None
    gapped = Scene("s", (1, 1), 1, scene.rows, valid=lambda start, stop: np.zeros((1, 1), bool), nodata=nodata)
    assert void_label(gapped, classes) == label
    with pytest.raises(OutputError, match="256 classes leave no value of 0 to 255"):
        void_label(gapped, 256)

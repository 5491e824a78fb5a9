"""How scenes are cut: every pixel is covered, the weights add up, tiles keep to the stride."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PlanError
from engine.inference.tiles.grid import Axis, Tiling, parse_tile
from engine.models.adapt.size import mirrored

SIDES = st.integers(1, 300)
PROPERTY = settings(max_examples=80, deadline=None)


@PROPERTY
@given(SIDES, st.integers(1, 80), st.floats(0, 0.99), st.sampled_from([1, 2, 8, 16, 24]))
def test_weights_add_up_to_one_at_each_pixel(length: int, tile: int, overlap: float, stride: int) -> None:
    axis = Tiling((tile, tile), overlap, stride).axes((length, length))[0]
    total = np.zeros(axis.starts[-1] + tile)
    for start, row in zip(axis.starts, axis.weights, strict=True):
        assert (row >= 0).all()
        total[start : start + tile] += row
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert len(total) >= length
    assert length + axis.step > len(total) or len(axis.starts) == 1
    assert axis.starts[-1] == 0 or axis.starts[-1] + tile - axis.step < length


@PROPERTY
@given(SIDES, st.integers(1, 80), st.floats(0, 0.99))
def test_rows_come_out_once_and_only_when_no_later_tile_touches_them(length: int, tile: int, overlap: float) -> None:
    axis = Tiling((tile, tile), overlap).axes((length, length))[0]
    done = [axis.finished(index) for index in range(len(axis.starts))]
    assert done[-1] == length
    assert done == sorted(set(done))
    for index, end in enumerate(done[:-1]):
        assert all(start >= end for start in axis.starts[index + 1 :])
        assert axis.starts[index] < end <= axis.starts[index] + tile


def test_the_border_of_a_tile_does_not_count_where_there_is_a_neighbour() -> None:
    axis = Axis(256, 64, 32)
    assert len(axis.starts) == 7
    inner = axis.weights[3]
    np.testing.assert_array_equal(inner[:8], 0)
    np.testing.assert_array_equal(inner[-8:], 0)
    assert (np.diff(inner[8:32]) > 0).sum() >= 15
    np.testing.assert_allclose(inner, inner[::-1], atol=1e-6)
    np.testing.assert_array_equal(axis.weights[0][:32], 1)
    np.testing.assert_array_equal(axis.weights[-1][-32:], 1)


@pytest.mark.parametrize(
    ("tile", "overlap", "stride", "step"),
    [
        (64, 0.5, 1, 32),
        (64, 0.5, 16, 32),
        (64, 0.0, 1, 64),
        (64, 0.25, 16, 48),
        (64, 0.9, 16, 16),
        (96, 0.5, 32, 32),
        (8, 0.5, 1, 4),
        (1, 0.5, 1, 1),
        (16, 0.99, 32, 16),
    ],
)
def test_tiles_start_at_multiples_of_the_stride(tile: int, overlap: float, stride: int, step: int) -> None:
    axis = Tiling((tile, tile), overlap, stride).axes((1000, 1000))[1]
    assert axis.step == step
    assert axis.step % stride == 0 or axis.step == tile


@PROPERTY
@given(st.integers(1, 9), st.integers(-30, 30), st.integers(1, 40))
def test_pixels_beyond_the_scene_are_mirrored_as_numpy_does(length: int, start: int, count: int) -> None:
    scene = np.arange(length)
    before, after = max(0, -start), max(0, start + count - length)
    padded = np.pad(scene, (before, after), mode="reflect") if length > 1 else np.zeros(length + before + after, int)
    positions = np.arange(start, start + count)
    np.testing.assert_array_equal(scene[mirrored(positions, length)], padded[positions + before])


@pytest.mark.parametrize(("text", "size"), [("64x128", (64, 128)), ("64X128", (64, 128)), (" 32 ", (32, 32))])
def test_tiles_as_they_are_said(text: str, size: tuple[int, int]) -> None:
    assert parse_tile(text) == size


@pytest.mark.parametrize("text", ["", "x", "64x", "64x128x3", "-4x4", "6.5", "٣x٤", "9999999", "64 128"])
def test_tiles_that_are_none(text: str) -> None:
    with pytest.raises(PlanError, match="give HEIGHTxWIDTH in pixels"):
        parse_tile(text)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_overlaps_that_are_none(overlap: float) -> None:
    with pytest.raises(PlanError, match="from 0 up to below 1"):
        Tiling((8, 8), overlap)
    with pytest.raises(PlanError, match="above 0"):
        Tiling((0, 8))

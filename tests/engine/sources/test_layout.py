"""Axes of arrays of images: found by their lengths and by what the members take, or asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as draws

from engine.errors import InputError
from engine.sources.layout import MOST_CHANNELS, layout_of
from engine.sources.open import open_source
from engine.sources.reading import Reading, Taken
from engine.sources.scenes import open_scenes

BANDS = Taken(least=4)


def taking(*counts: int) -> Reading:
    return Reading(taken=lambda: Taken(frozenset(counts)))


def axes(shape: tuple[int, ...], reading: Reading | None = None) -> str:
    found = layout_of(shape, "images", "x", reading=reading)
    return ("" if found.alone else "N") + found.axes


@given(draws.integers(1, MOST_CHANNELS), draws.integers(65, 500), draws.integers(65, 500))
def test_an_axis_of_up_to_64_elements_is_that_of_the_channels(channels: int, height: int, width: int) -> None:
    last, first = (
        layout_of((2, height, width, channels), "images", "x"),
        layout_of((2, channels, height, width), "images", "x"),
    )
    assert (last.axes, last.size, last.channels) == ("HWC", (height, width), channels)
    assert (first.axes, first.size, first.channels) == ("CHW", (height, width), channels)


@given(draws.integers(1, MOST_CHANNELS), draws.integers(1, MOST_CHANNELS), draws.integers(1, 99))
def test_of_two_such_axes_the_members_take_one(channels: int, side: int, other: int) -> None:
    shape = (2, side, other, channels)
    if side == channels:
        with pytest.raises(InputError, match="add --image-layout NHWC or --image-layout NCHW"):
            axes(shape, taking(channels))
    else:
        assert axes(shape, taking(channels)) == "NHWC"
        assert axes((2, channels, other, side), taking(channels)) == "NCHW"


@pytest.mark.parametrize(
    ("shape", "reading", "expected"),
    [
        ((2, 32, 48, 4), Reading(taken=lambda: BANDS), "NHWC"),
        ((2, 4, 32, 48), Reading(taken=lambda: BANDS), "NCHW"),
        ((2, 16, 48, 3), Reading(taken=lambda: BANDS), "NHWC"),  # refused later, for the band it does not have
        ((2, 32, 48, 3), taking(1), "NHWC"),  # refused later, for its three channels
        ((2, 32, 48, 1), taking(1, 3), "NHWC"),
        ((5, 40, 56), taking(3), "NHW"),
        ((40, 56, 3), taking(3), "HWC"),
        ((3, 40, 56), taking(3), "CHW"),
        ((40, 56, 4), Reading(taken=lambda: BANDS), "HWC"),
        ((3, 40, 56), taking(1), "NHW"),
        ((40, 56, 3), taking(1), "NHW"),
        ((3, 40, 56), None, "NHW"),
        ((2, 8, 16, 3), None, "NHWC"),
        ((2, 3, 8, 16), None, "NCHW"),
        ((2, 8, 16, 3), Reading(layout="NCHW"), "NCHW"),
        ((8, 16, 9), Reading(layout="CHW"), "CHW"),
        ((8, 16), Reading(layout="HW"), "HW"),
    ],
)
def test_the_axes_of_a_shape(shape: tuple[int, ...], reading: Reading | None, expected: str) -> None:
    assert axes(shape, reading) == expected


@pytest.mark.parametrize(
    ("shape", "reading", "told"),
    [
        ((3, 40, 3), taking(3), "--image-layout HWC or --image-layout CHW"),
        ((3, 40, 56), taking(1, 3), "--image-layout NHW or --image-layout CHW"),
        ((2, 8, 16, 9), taking(4), "--image-layout NHWC or --image-layout NCHW"),
        ((2, 8, 16, 9), None, "can be NHWC or NCHW"),
        ((2, 8, 16), Reading(layout="NHWC"), "give one letter per axis"),
        ((2, 65, 66, 67), None, "1 to 64 channels first or last"),
    ],
)
def test_what_stays_open_is_asked_for(shape: tuple[int, ...], reading: Reading | None, told: str) -> None:
    with pytest.raises(InputError, match=told):
        axes(shape, reading)


@pytest.mark.parametrize("form", ["x.npy", "x.npz", "x.zarr"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW", "HWC", "CHW", "HW"])
def test_every_layout_reads_the_same_pixels(layout: str, form: str, tmp_path: Path) -> None:
    """As a set of images and as scenes: one image where no axis counts them."""
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 5), dtype=np.uint16)
    images = images if "N" in layout else images[:1]
    images = images if "C" in layout else images[..., :1]
    array = np.moveaxis(images, 3, 1) if layout.endswith("CHW") else images if "C" in layout else images[..., 0]
    array = np.ascontiguousarray(array if "N" in layout else array[0])
    save(tmp_path / form, array)
    reading = Reading(layout=layout)
    source = open_source(tmp_path / form, reading=reading)
    assert (len(source), source.size, source.channels) == (len(images), (12, 20), images.shape[3])
    for size in (1, 2, 9):
        np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in source.batches(size)]), images)
    if source.at is not None:
        np.testing.assert_array_equal(source.at(0, len(images)), images)
    scenes = open_scenes(tmp_path / form, reading=reading)
    assert scenes.channels == images.shape[3]
    for scene, image in zip(scenes.each(), images, strict=True):
        np.testing.assert_array_equal(scene.rows(3, 9), image[3:9])


def save(path: Path, array: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, images=array)
    else:
        zarr = pytest.importorskip("zarr", reason="Zarr stores need the extra zarr")
        zarr.create_array(store=path, shape=array.shape, dtype=array.dtype, chunks=(2, *array.shape[1:]))[:] = array


def test_tensors_of_parquet_have_a_layout(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 5), dtype=np.uint8)
    for layout, stored in (("HWC", images), ("CHW", images.transpose(0, 3, 1, 2))):
        tensors = arrow.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(stored))
        parquet.write_table(arrow.table({"image": tensors}), tmp_path / "x.parquet")
        with pytest.raises(InputError, match="add --image-layout NHWC or --image-layout NCHW"):
            open_source(tmp_path / "x.parquet")
        for reading in (Reading(layout=layout), Reading(layout=f"N{layout}"), taking(5)):
            batch = next(open_source(tmp_path / "x.parquet", reading=reading).batches(3))
            np.testing.assert_array_equal(batch.pixels, images)


def test_pictures_have_no_layout(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "tiles").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "tiles" / "a.png")
    for opening in (open_source, open_scenes):
        with pytest.raises(InputError, match=r"--image-layout HWC: .*tiles .*leave it out"):
            opening(tmp_path / "tiles", reading=Reading(layout="HWC"))

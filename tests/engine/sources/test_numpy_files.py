"""Arrays on the disk, read in parts: what NumPy reads, and an error of one line where the file ends meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.sources.numpy_files import array_files
from engine.sources.open import open_source
from engine.sources.scenes import open_scenes
from tests.helpers.properties import examples

SHAPE = (7, 3, 6, 5)
BOUNDS = st.tuples(st.integers(0, 2), st.integers(1, 3))
PARTS = st.one_of(st.integers(0, 2), st.just(slice(None)), BOUNDS.map(lambda held: slice(held[0], sum(held))))


@given(st.lists(PARTS, min_size=1, max_size=3).map(tuple), st.sampled_from("CF"), st.sampled_from(["u1", ">f4", "<i8"]))
@examples(120)
def test_parts_are_those_of_the_array(
    tmp_path_factory: pytest.TempPathFactory, where: tuple[int | slice, ...], order: str, kind: str
) -> None:
    array = np.asarray(np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251, kind, order)
    path = tmp_path_factory.mktemp("a") / "x.npy"
    np.save(path, array)
    stored = array_files(path)[""]
    np.testing.assert_array_equal(stored[where], array[where])
    assert stored[where].dtype == array.dtype
    np.testing.assert_array_equal(np.concatenate(list(stored.chunks(3))), array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_off_while_it_is_read(order: str, tmp_path: Path) -> None:
    """A mapped page behind the new end would end the process."""
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((50, 64, 128), np.uint8, order))
    batches = open_source(path).batches(4)
    next(batches)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"x\.npy (ends after 12 of 50 rows|was cut off)"):
        list(batches)


def test_a_scene_that_is_cut_off_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((500, 640), np.uint8))
    scene = next(open_scenes(path).each())
    assert scene.rows(490, 500).shape == (10, 640, 1)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"x\.npy ends early: copy the file again"):
        scene.rows(490, 500)

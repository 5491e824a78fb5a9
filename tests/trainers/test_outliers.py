"""The outlier remover: exact sets, constant masks stay, the layout is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import OutputError
from tests.trainers.conftest import task_array, tiles
from trainers.data import load
from trainers.outliers import clean, find_outliers


def planted(tmp_path: Path) -> tuple[Path, Path, list[int]]:
    """Thirty tiles: 5 outliers under one mask, 3 under another, a pair alike, 6 of all soil."""
    data = tiles(30, seed=5)
    pairs = task_array(data)
    pairs[[2, 9, 11, 20, 28], 1] = pairs[2, 1].copy()
    pairs[[4, 5, 6], 1] = np.triu(np.ones((32, 64)))
    pairs[[0, 1], 1] = np.tril(np.ones((32, 64)))
    pairs[[13, 14, 15, 16, 17, 18], 1] = 1
    np.savez(tmp_path / "data.npz", training_set=pairs, test_set=np.zeros((2, 32, 64), np.uint8), note=np.array("x"))
    np.savez(tmp_path / "g.npz", panorama=np.arange(30) // 3)
    return tmp_path / "data.npz", tmp_path / "g.npz", [2, 4, 5, 6, 9, 11, 20, 28]


def test_shared_masks_go_and_constant_ones_stay(tmp_path: Path) -> None:
    data, groups, places = planted(tmp_path)
    result = clean(data, tmp_path / "out.npz", groups=groups, sheet=tmp_path / "sheet.png")
    assert result.places.tolist() == places
    assert (result.removed, result.kept) == (8, 22)
    before, after = np.load(data), np.load(tmp_path / "out.npz")
    kept = np.setdiff1d(np.arange(30), places)
    assert set(after.files) == {*before.files, "kept", "groups"}
    assert after["training_set"].dtype == np.float64
    np.testing.assert_array_equal(after["training_set"], before["training_set"][kept])
    np.testing.assert_array_equal(after["test_set"], before["test_set"])
    np.testing.assert_array_equal(after["kept"], kept)
    np.testing.assert_array_equal(after["groups"], kept // 3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 8 * 64
    np.testing.assert_array_equal(load(tmp_path / "out.npz", groups).groups, kept // 3)


def test_min_count_decides_and_cleaning_twice_composes(tmp_path: Path) -> None:
    data, _, places = planted(tmp_path)
    clean(data, tmp_path / "one.npz")
    result = clean(tmp_path / "one.npz", tmp_path / "two.npz", min_count=2)
    assert result.removed == 2
    expected = np.setdiff1d(np.arange(30), [0, 1, *places])
    np.testing.assert_array_equal(np.load(tmp_path / "two.npz")["kept"], expected)


def test_sets_come_largest_first() -> None:
    masks = np.zeros((7, 4, 4))
    masks[:3, 0] = 1
    masks[3:, 1] = 2
    assert [places.tolist() for places in find_outliers(masks)] == [[3, 4, 5, 6], [0, 1, 2]]


def test_an_existing_result_is_not_replaced(tmp_path: Path) -> None:
    data, _, _ = planted(tmp_path)
    (tmp_path / "out.npz").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        clean(data, tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_text() == "precious"
    assert clean(data, tmp_path / "out.npz", overwrite=True).removed == 8


def test_the_real_file_loses_its_87_figures(mars: Path) -> None:
    masks = np.load(mars / "mars_for_students.npz")["training_set"][:, 1]
    assert [len(places) for places in find_outliers(masks)] == [87]

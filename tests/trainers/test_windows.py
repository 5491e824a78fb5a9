"""Windows of stitched tiles: the pixels and labels of the picture, void beyond it, a group a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError, OutputError
from engine.inference.tiles.grid import Tiling
from engine.metrics import VOID
from tests.conftest import Result
from trainers.cli import app
from trainers.config import FitConfig
from trainers.data import load
from trainers.fit import grouped, load_for
from trainers.windows import stitch

WINDOW = Tiling((16, 32), 0.5)


def pictures() -> list[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(4)
    sizes = [(16, 48), (12, 40)]
    return [(draw.integers(1, 250, size, np.uint8), draw.integers(0, 3, size, np.uint8)) for size in sizes]


def write_tiles(path: Path, missing: int | None = None, labelled: bool = True) -> np.ndarray:
    """Cut both pictures into tiles of 8x16, in disorder; return the number of each tile's picture."""
    cut = [
        (number, image[r : r + 8, c : c + 16], mask[r : r + 8, c : c + 16])
        for number, (image, mask) in enumerate(pictures())
        for r in range(0, image.shape[0] - 7, 4)
        for c in range(0, image.shape[1] - 15, 8)
    ]
    cut = [part for index, part in enumerate(cut) if index != missing]
    cut = [cut[index] for index in np.random.default_rng(5).permutation(len(cut))]
    arrays = {"images": np.stack([image for _, image, _ in cut])}
    if labelled:
        arrays |= {"labels": np.stack([mask for _, _, mask in cut]), "class_names": np.array(["sky", "soil", "rock"])}
    np.savez(path, **arrays)
    return np.array([number for number, _, _ in cut])


def test_windows_show_the_pictures(tmp_path: Path) -> None:
    numbers = write_tiles(tmp_path / "tiles.npz")
    found = stitch(str(tmp_path / "tiles.npz"), tmp_path / "windows.npz", WINDOW)
    assert (found.tiles, found.pictures, found.alone) == (len(numbers), 2, 0)
    data = load(tmp_path / "windows.npz")
    assert data.class_names == ("sky", "soil", "rock")
    assert data.images.shape == (found.windows, 16, 32, 1)
    assert data.groups is not None
    # Pictures are numbered in the order of their first tiles.
    order = [int(numbers[0]), 1 - int(numbers[0])]
    seen = [np.zeros(image.shape, bool) for image, _ in pictures()]
    for pixels, labels, group in zip(data.images[..., 0], data.labels, data.groups, strict=True):
        image, mask = pictures()[order[group]]
        known = labels != VOID
        height, width = known.any(axis=1).sum(), known.any(axis=0).sum()
        assert known[:height, :width].all() and known.sum() == height * width
        place = next(
            (r, c)
            for r in range(image.shape[0] - height + 1)
            for c in range(image.shape[1] - width + 1)
            if np.array_equal(image[r : r + height, c : c + width], pixels[:height, :width])
        )
        part = slice(place[0], place[0] + height), slice(place[1], place[1] + width)
        np.testing.assert_array_equal(mask[part], labels[known].reshape(height, width))
        seen[order[group]][part] = True
    # The last columns of a picture are in a window too, as is every pixel.
    assert all(part.all() for part in seen)


def test_what_no_tile_shows_is_void_and_filled(tmp_path: Path) -> None:
    write_tiles(tmp_path / "tiles.npz", missing=0)
    stitch(str(tmp_path / "tiles.npz"), tmp_path / "windows.npz", Tiling((16, 48), 0))
    data = load(tmp_path / "windows.npz")
    first = next(index for index, labels in enumerate(data.labels) if (labels[15] != VOID).all())
    assert (data.labels[first][:4, :8] == VOID).all()
    assert (data.labels[first] != VOID).sum() == 16 * 48 - 4 * 8
    assert (data.images[first] > 0).all()


def test_images_without_labels(tmp_path: Path) -> None:
    write_tiles(tmp_path / "tiles.npz", labelled=False)
    found = stitch(str(tmp_path / "tiles.npz"), tmp_path / "windows.npz", WINDOW)
    with np.load(tmp_path / "windows.npz") as archive:
        assert sorted(archive.files) == ["groups", "images"]
        assert len(archive["images"]) == found.windows


def test_groups_of_the_tiles_stay(tmp_path: Path) -> None:
    numbers = write_tiles(tmp_path / "tiles.npz")
    np.save(tmp_path / "groups.npy", numbers + 40)
    stitch(str(tmp_path / "tiles.npz"), tmp_path / "windows.npz", WINDOW, tmp_path / "groups.npy")
    groups = load(tmp_path / "windows.npz").groups
    assert groups is not None and set(groups) == {40, 41}
    np.save(tmp_path / "groups.npy", np.arange(len(numbers)))
    with pytest.raises(InputError, match="overlap, so folds by these groups would share pixels"):
        stitch(str(tmp_path / "tiles.npz"), tmp_path / "other.npz", WINDOW, tmp_path / "groups.npy")
    assert not (tmp_path / "other.npz").exists()


def test_what_cannot_be_stitched_is_told(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 16), np.uint8)
    np.savez(tmp_path / "alone.npz", images=images, labels=images % 3)
    with pytest.raises(InputError, match="none of its 4 tiles overlaps another"):
        stitch(str(tmp_path / "alone.npz"), tmp_path / "windows.npz", WINDOW)
    np.savez(tmp_path / "floats.npz", images=images / 255)
    with pytest.raises(InputError, match="windows are cut from uint8 images"):
        stitch(str(tmp_path / "floats.npz"), tmp_path / "windows.npz", WINDOW)
    write_tiles(tmp_path / "tiles.npz", labelled=False)
    with pytest.raises(InputError, match="leave out --groups"):
        stitch(str(tmp_path / "tiles.npz"), tmp_path / "windows.npz", WINDOW, tmp_path / "tiles.npz")
    (tmp_path / "windows.npz").touch()
    with pytest.raises(OutputError, match="already exists"):
        stitch(str(tmp_path / "tiles.npz"), tmp_path / "windows.npz", WINDOW)


def test_the_command(call: Callable[..., Result], tmp_path: Path) -> None:
    write_tiles(tmp_path / "tiles.npz")
    options = ["stitch", "--data", tmp_path / "tiles.npz", "--out", tmp_path / "windows.npz"]
    found = call(app, *options, "--window", "16x32")
    assert found.code == 0, found.err
    assert "windows of 16x32 from 23 tiles, put together to 2 pictures (0 of a single tile)" in found.out
    wrong = call(app, *options, "--window", "big", "--overwrite")
    assert wrong.code == 2
    assert wrong.err.strip() == "error: --window big: give HEIGHTxWIDTH in pixels, as in 64x128"


def test_tiles_that_share_pixels_are_one_group_of_the_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = write_tiles(tmp_path / "tiles.npz")
    data = load(tmp_path / "tiles.npz")
    found = grouped(data, 2)
    assert found.groups is not None
    np.testing.assert_array_equal(found.groups, numbers != numbers[0])
    assert "23 tiles share pixels and make 2 pictures, which are the groups of the folds" in capsys.readouterr().err
    assert grouped(data, 3).groups is None
    assert "too few for 3 folds: tiles are split at random, so the score is optimistic" in capsys.readouterr().err
    alone = data.take(np.array([0]))
    assert grouped(alone, 2).groups is None
    assert "no tiles share pixels" in capsys.readouterr().err


def test_fit_takes_these_groups(tmp_path: Path) -> None:
    write_tiles(tmp_path / "tiles.npz")
    config = FitConfig("unet", str(tmp_path / "tiles.npz"), str(tmp_path / "a.keras"), folds=2)
    groups = load_for(config).groups
    assert groups is not None and len(set(groups)) == 2
    assert load_for(replace(config, train_all=True)).groups is None

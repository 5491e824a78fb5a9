"""Overlapping images are predicted as the picture they were cut from, and their masks are cut out of its mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.models.folds import tile_keys
from tests.conftest import Result
from tests.helpers.nets import save_member

Engine = Callable[..., Result]
TILE = (8, 16)


@pytest.fixture
def picture() -> np.ndarray:
    draw = np.random.default_rng(5)
    return (np.kron(draw.integers(0, 200, (5, 6)), np.ones((4, 8), int)) + draw.integers(0, 40, (20, 48))).astype(
        np.uint8
    )


@pytest.fixture
def folder(tmp_path: Path, picture: np.ndarray) -> Path:
    """A net, the picture, its tiles in disorder with one that is of another picture, and their corners."""
    save_member(tmp_path / "a.onnx", 1)
    save_member(tmp_path / "b.onnx", 2)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    corners = [(row, column) for row in range(0, 13, 4) for column in range(0, 33, 8)]
    tiles = [picture[r : r + 8, c : c + 16] for r, c in corners]
    tiles.append(np.random.default_rng(9).integers(0, 240, TILE).astype(np.uint8))
    order = np.random.default_rng(6).permutation(len(tiles))
    np.savez(tmp_path / "tiles.npz", images=np.stack(tiles)[order])
    np.save(tmp_path / "corners.npy", np.array([*corners, (-1, -1)])[order])
    return tmp_path


def test_masks_are_cut_out_of_the_pictures_mask(engine: Engine, folder: Path) -> None:
    models = ["--models", folder / "a.onnx", "--models", folder / "b.onnx", "--tile", "16x32"]
    whole = engine("ensemble", *models, "--input", folder / "picture.png", "--output", folder / "whole.npy")
    assert whole.code == 0, whole.err
    found = engine(
        *("ensemble", *models, "--stitch", "--input", folder / "tiles.npz", "--output", folder / "masks.npz")
    )
    assert found.code == 0, found.err
    assert "stitched: 21 images make 2 pictures" in found.err
    assert "21 masks" in found.err
    mask, masks = np.load(folder / "whole.npy"), np.load(folder / "masks.npz")["masks"]
    assert masks.shape == (21, *TILE)
    for own, (row, column) in zip(masks, np.load(folder / "corners.npy"), strict=True):
        if row >= 0:
            np.testing.assert_array_equal(own, mask[row : row + 8, column : column + 16])
    assert len(np.unique(masks)) > 2


def test_scores_and_doubt_are_cut_out_of_the_pictures_maps(engine: Engine, folder: Path) -> None:
    models = ("--models", folder / "a.onnx", "--models", folder / "b.onnx", "--tile", "16x32")
    maps = ("--scores", folder / "scores.npy", "--doubt", folder / "doubt.npy", "--scores-type", "float32")
    whole = engine("ensemble", *models, *maps, "--input", folder / "picture.png", "--output", folder / "whole.npy")
    assert whole.code == 0, whole.err
    scores, doubt = np.load(folder / "scores.npy"), np.load(folder / "doubt.npy")
    own = ("--stitch", "--input", folder / "tiles.npz", "--output", folder / "masks.npz", "--overwrite")
    found = engine("ensemble", *models, *maps, *own)
    assert found.code == 0, found.err
    tiles, doubts = np.load(folder / "scores.npy"), np.load(folder / "doubt.npy")
    assert (tiles.shape, tiles.dtype) == ((21, scores.shape[0], *TILE), np.float32)
    assert (doubts.shape, doubts.dtype) == ((21, *TILE), np.uint8)
    np.testing.assert_array_equal(tiles.argmax(axis=1), np.load(folder / "masks.npz")["masks"])
    for index, (row, column) in enumerate(np.load(folder / "corners.npy")):
        if row >= 0:
            np.testing.assert_array_equal(tiles[index], scores[:, row : row + 8, column : column + 16])
            np.testing.assert_array_equal(doubts[index], doubt[row : row + 8, column : column + 16])


def test_a_plan_states_it(engine: Engine, folder: Path) -> None:
    plan = folder / "ensemble.toml"
    plan.write_text('[input]\ntile = "16x32"\nstitch = true\n[[members]]\nmodel = "a.onnx"\n')
    images = ("--input", folder / "tiles.npz")
    assert engine("ensemble", "--plan", plan, *images, "--output", folder / "one.csv").code == 0
    given = ("--models", folder / "a.onnx", "--tile", "16x32", "--stitch")
    assert engine("ensemble", *given, *images, "--output", folder / "two.csv").code == 0
    assert (folder / "one.csv").read_bytes() == (folder / "two.csv").read_bytes()
    np.savez(folder / "labels.npz", labels=np.load(folder / "tiles.npz")["images"] // 60)
    other = engine("compare", "--plan", plan, *images, "--labels", folder / "labels.npz")
    assert other.code == 0, other.err
    assert "[input] of the plan puts overlapping images together; here each image is predicted as it is" in other.err


def test_images_without_overlap_are_told(engine: Engine, folder: Path) -> None:
    np.savez(folder / "tiles.npz", images=np.random.default_rng(0).integers(0, 240, (3, *TILE)).astype(np.uint8))
    found = engine(
        *("ensemble", "--models", folder / "a.onnx", "--tile", "8x16", "--stitch"),
        *("--input", folder / "tiles.npz", "--output", folder / "masks.npy"),
    )
    assert found.code == 0, found.err
    assert "none of 3 images overlaps another" in found.err
    assert np.load(folder / "masks.npy").shape == (3, *TILE)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--stitch"], "--stitch without --tile"),
        (["--tile", "16x32", "--stitch", "--labels", "tiles.npz"], "--labels does not work on images put together"),
        (["--tile", "16x32", "--stitch", "--per-image", "s.csv"], "--per-image does not work on images put together"),
        (["--tile", "16x32", "--stitch", "--scores", "s.tif"], "cannot write .tif (s.tif)"),
        (["--tile", "16x32", "--stitch", "--on", "ray"], "--on ray does not put images together"),
        (["--tile", "16x32", "--stitch", "--limit", "-1"], "--limit -1"),
        (["--tile", "16x32", "--stitch", "--output", "mask.png"], "mask.png"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    options: list[str], told: str, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found = engine("ensemble", "--models", "a.onnx", "--input", "tiles.npz", *options)
    assert found.code == 2
    assert told in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_images_of_different_sizes_are_refused(engine: Engine, folder: Path) -> None:
    (folder / "mixed").mkdir()
    for index, size in enumerate([(8, 16), (8, 16), (9, 16)]):
        Image.fromarray(np.full(size, index, np.uint8)).save(folder / "mixed" / f"{index}.png")
    given = ("--models", folder / "a.onnx", "--tile", "8x16", "--stitch", "--input", folder / "mixed")
    found = engine("ensemble", *given, "--output", folder / "masks.npz")
    assert found.code == 2
    assert "images of different sizes; --stitch takes those of one size: leave it out" in found.err


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("stitch = true", "input.stitch: say how large tiles of the pictures are"),
        ('tile = "big"', "input.tile big: give HEIGHTxWIDTH"),
        ("tile = 64", None),
        ('tile = "64x128"\nstitch = 3', "input.stitch: '3' is unknown"),
    ],
)
def test_plans_that_state_something_else(table: str, told: str | None, engine: Engine, folder: Path) -> None:
    plan = folder / "ensemble.toml"
    plan.write_text(f'[input]\n{table}\n[[members]]\nmodel = "a.onnx"\n')
    found = engine("ensemble", "--plan", plan, "--input", folder / "tiles.npz", "--output", folder / "m.npy")
    assert found.code == 2
    assert (told or "input.tile: 64 is not a text") in found.err


def write_folds(folder: Path, held_out: list[np.ndarray]) -> Path:
    """Write two nets of one cross-validation, each trained without some of the images, and a plan with both."""
    images = np.load(folder / "tiles.npz")["images"]
    keys = np.array(tile_keys(images[..., None]))
    for fold, own in enumerate(held_out):
        save_member(folder / f"net-fold{fold}.onnx", 3 + fold, promised={"held_out": tuple(keys[own].tolist())})
    plan = folder / "folds.toml"
    table = '[input]\ntile = "16x32"\nstitch = true\n'
    plan.write_text(f'{table}[[members]]\nfolds = ["net-fold0.onnx", "net-fold1.onnx"]\n')
    return plan


def test_out_of_fold_pictures_are_predicted_by_the_net_that_did_not_see_them(engine: Engine, folder: Path) -> None:
    alone = (np.load(folder / "corners.npy") < 0).any(axis=1)
    plan = write_folds(folder, [np.flatnonzero(~alone), np.flatnonzero(alone)])
    images = ("--input", folder / "tiles.npz", "--tile", "16x32")
    found = engine("ensemble", "--plan", plan, "--out-of-fold", *images, "--output", folder / "masks.npz")
    assert found.code == 0, found.err
    assert "net: each of 2 pictures by the net that was trained without it" in found.err
    singly = []
    for fold in (0, 1):
        model = ("--models", folder / f"net-fold{fold}.onnx", "--stitch")
        assert engine("ensemble", *model, *images, "--output", folder / f"{fold}.npz").code == 0
        singly.append(np.load(folder / f"{fold}.npz")["masks"])
    masks = np.load(folder / "masks.npz")["masks"]
    np.testing.assert_array_equal(masks, np.where(alone[:, None, None], singly[1], singly[0]))
    assert (singly[0] != singly[1]).any()


def test_a_picture_of_two_folds_is_refused(engine: Engine, folder: Path) -> None:
    plan = write_folds(folder, [np.arange(10), np.arange(10, 21)])
    images = ("--input", folder / "tiles.npz", "--output", folder / "masks.npz")
    found = engine("ensemble", "--plan", plan, "--out-of-fold", *images)
    assert found.code == 2
    assert "different folds held them out" in found.err
    assert not (folder / "masks.npz").exists()
    told = engine("ensemble", "--models", folder / "a.onnx", "--tile", "16x32", "--out-of-fold", *images)
    assert told.err.strip() == "error: --out-of-fold with --tile: add --stitch, or leave one of them out"

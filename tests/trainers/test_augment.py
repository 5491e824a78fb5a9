"""Augmentation and sampling: labels stay true, rare classes come more often, equal copies are dropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import PlanError
from tests.trainers.conftest import tiles
from trainers.augment import POLICIES, TRANSFORMS, augment, policy_rng, transforms_of, without_flips
from trainers.augment.base import mirrored
from trainers.augment.generic import warp
from trainers.augment.paste import RarePixels
from trainers.batches import Batches
from trainers.config import FitConfig
from trainers.data import Dataset
from trainers.sampling import distinct, epoch_order, repeat_factors
from trainers.sheets import show_policy

CONFIG = FitConfig(arch="unet", data="tiles.npz", out="runs/unet.keras")
OUTSIDE = 4
EVERY = [*POLICIES, *TRANSFORMS]


def plain(count: int = 16) -> Dataset:
    """Tiles whose grey value is the label times 40, exactly, so that image and mask can be held against each other."""
    data = tiles(count, size=(32, 64), classes=4)
    return replace(data, images=(40 + 40 * data.labels[..., None]).astype(np.uint8))


@pytest.mark.parametrize("name", EVERY)
def test_a_policy_is_repeatable_and_leaves_the_callers_arrays_alone(name: str) -> None:
    data = tiles(16)
    images, masks = data.images.copy(), data.labels.copy()
    new_images, new_masks = augment(images, masks, name, policy_rng(0, 1, 2), 0)
    np.testing.assert_array_equal(images, data.images)
    np.testing.assert_array_equal(masks, data.labels)
    assert (new_images.shape, new_masks.shape) == (images.shape, masks.shape)
    assert new_images.dtype == new_masks.dtype == np.uint8
    assert np.array_equal(new_images, images) == (name == "none")
    again, again_masks = augment(images, masks, name, policy_rng(0, 1, 2), 0)
    np.testing.assert_array_equal(new_images, again)
    np.testing.assert_array_equal(new_masks, again_masks)
    other, _ = augment(images, masks, name, policy_rng(0, 2, 2), 0)
    assert np.array_equal(new_images, other) == (name == "none")


@pytest.mark.parametrize("fill", [None, OUTSIDE])
@pytest.mark.parametrize("name", [name for name in EVERY if not {"negative", "jitter"} & set(transforms_of(name))])
def test_what_moves_pixels_moves_image_and_mask_alike(name: str, fill: int | None) -> None:
    """Away from the rims of the blocks, where values lie between two, the grey value still tells the label."""
    data = plain()
    images, masks = augment(data.images, data.labels, name, policy_rng(3, 1, 2), fill)
    allowed = set(range(4)) | ({fill} if fill is not None else set())
    assert set(np.unique(masks)) <= allowed, "a label that was in no tile: it was interpolated"
    grey = images[..., 0]
    moved = masks != OUTSIDE
    if name == "cutout":
        moved &= grey != 127
    true = grey[moved] == 40 + 40 * masks[moved]
    assert true.mean() > (0.9 if name in ("generic", "rotate", "elastic") else 0.9999)
    if fill is not None and name in ("translate", "rotate"):
        assert (masks == OUTSIDE).any()
        assert not grey[masks == OUTSIDE].any()


def test_the_negative_and_the_jitter_touch_the_image_alone() -> None:
    data = tiles(32)
    for name in ("negative", "jitter"):
        images, masks = augment(data.images, data.labels, name, policy_rng(0, 0, 0), 0)
        np.testing.assert_array_equal(masks, data.labels)
        turned = (images != data.images).any(axis=(1, 2, 3))
        if name == "negative":
            assert 0 < turned.sum() < 32
            np.testing.assert_array_equal(images[turned], 255 - data.images[turned])


def test_cutout_ignores_what_it_hides() -> None:
    data = tiles(16)
    images, masks = augment(data.images, data.labels, "cutout", policy_rng(0, 0, 0), 0)
    hidden = (images[..., 0] == 127) & (data.images[..., 0] != 127)
    assert hidden.any()
    assert not masks[hidden].any()
    _, kept = augment(data.images, data.labels, "cutout", policy_rng(0, 0, 0), None)
    np.testing.assert_array_equal(kept, data.labels)


def test_flips_turn_both_ways() -> None:
    data = tiles(32)
    _, masks = augment(data.images, data.labels, "flips", policy_rng(0, 0, 0))
    for rows, columns in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        turned = data.labels[:, ::rows, ::columns]
        assert any(np.array_equal(a, b) for a, b in zip(turned, masks, strict=True))


def test_warp_by_hand() -> None:
    """Half a pixel to the right: the mean of two neighbours in the image, one of the two labels in the mask."""
    images = np.array([[[0, 100, 200]]], np.uint8)[..., None]
    masks = np.array([[[0, 1, 2]]], np.uint8)
    rows, columns = np.zeros((1, 1, 3), np.float32), np.array([[[0.4, 1.4, 2.4]]], np.float32)
    new_images, new_masks = warp(images, masks, rows, columns, 0)
    assert new_images[0, 0, :, 0].tolist() == [40, 140, 200]
    assert new_masks.tolist() == [[[0, 1, 2]]]
    _, shifted = warp(images, masks, rows, columns + 1, 7)
    assert shifted.tolist() == [[[1, 2, 7]]]
    _, reflected = warp(images, masks, rows, columns + 1, None)
    assert reflected.tolist() == [[[1, 2, 2]]]


def test_places_are_mirrored_as_numpy_pads() -> None:
    padded = np.pad(np.arange(5), 7, mode="symmetric")
    np.testing.assert_array_equal(mirrored(np.arange(-7, 12), 5), padded)


def test_policies_are_joined_and_lose_their_flips() -> None:
    assert transforms_of("flips + jitter+mirror") == ("mirror", "upside-down", "jitter")
    assert without_flips("flips-jitter") == "jitter"
    assert without_flips("mirror") == "none"
    assert without_flips("custom") == "negative+translate+cutout"
    with pytest.raises(PlanError, match="flips-jitter"):
        transforms_of("flips+spin")


def rare_set() -> Dataset:
    """Twelve tiles of classes 1 and 2; class 3 fills a corner of the last one alone; class 0 is ignored."""
    data = tiles(12, size=(16, 32), classes=2)
    labels = (data.labels + 1).astype(np.uint8)
    labels[:, 0] = 0
    labels[-1, 8:12, :4] = 3
    images = (60 * labels[..., None]).astype(np.uint8)
    return Dataset(images, labels, None, ("unlabelled", "soil", "rock", "rare"), np.arange(12))


def test_pasting_brings_rare_pixels_with_their_labels() -> None:
    data = rare_set()
    rare = RarePixels.of(data, 0)
    assert rare.classes.tolist() == [3]
    images, masks = rare.paste(data.images, data.labels, policy_rng(0, 0, 0), 1.0)
    assert (masks == 3).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(images[..., 0], 60 * masks)
    assert not (data.labels[:-1] == 3).any(), "the caller's masks were changed"
    same, _ = rare.paste(data.images, data.labels, policy_rng(0, 0, 0), 0.0)
    np.testing.assert_array_equal(same, data.images)


def test_pasting_finds_nothing_where_all_is_ignored() -> None:
    data = replace(rare_set(), labels=np.zeros((12, 16, 32), np.uint8))
    images, _ = RarePixels.of(data, 0).paste(data.images, data.labels, policy_rng(0, 0, 0), 1.0)
    np.testing.assert_array_equal(images, data.images)


def test_tiles_of_rare_classes_are_repeated() -> None:
    """One tile in twelve shows class 3: with a threshold of 3/4 it asks for sqrt(9) = 3 copies, the others for one."""
    data = rare_set()
    np.testing.assert_allclose(repeat_factors(data, 0.75, 0), [1.0] * 11 + [3.0])
    assert (repeat_factors(data, 0.0, 0) == 1).all()
    order = epoch_order(data, 2, 0.75, 0, seed=0, epoch=0)
    assert np.bincount(order).tolist() == [2] * 11 + [6]
    counts = [np.bincount(epoch_order(data, 1, 0.2, 0, seed=0, epoch=epoch))[-1] for epoch in range(60)]
    assert set(counts) == {1, 2}
    assert np.mean(counts) == pytest.approx(np.sqrt(0.2 * 12), abs=0.2)


def test_equal_copies_are_dropped() -> None:
    data = tiles(6, size=(16, 32))
    config = replace(CONFIG, batch_size=4, repeat=3)
    still = Batches(data, replace(config, augment="none"), 0)
    assert (still.tiles, len(still)) == (6, 2)
    turned = Batches(data, replace(config, augment="mirror"), 0)
    assert 6 < turned.tiles <= 12
    shown = np.concatenate([turned[step][0] for step in range(len(turned))])
    assert len({tile.tobytes() for tile in shown}) == turned.tiles == len(shown)
    jittered = Batches(data, replace(config, augment="jitter"), 0)
    assert jittered.tiles == 18
    assert distinct(data.images[[0, 1, 0]], data.labels[[0, 1, 1]]).tolist() == [0, 1, 2]


def test_distances_travel_beside_the_augmented_labels() -> None:
    data = tiles(4, size=(16, 32))
    images, truth = Batches(data, CONFIG, 0, distances=True)[0]
    plain_images, labels = Batches(data, CONFIG, 0)[0]
    np.testing.assert_array_equal(images, plain_images)
    np.testing.assert_array_equal(truth[..., 0], labels)
    assert truth.shape == (4, 16, 32, 6)
    assert all((truth[..., 1 + k][labels == k] <= 0).all() for k in range(5))
    assert all((truth[..., 1 + k][labels != k] > 0).all() for k in range(5))


def test_the_contact_sheet_shows_a_row_a_tile(task_file: Path, tmp_path: Path) -> None:
    show_policy(task_file, tmp_path / "sheet.png", "custom", paste=0.5, tiles=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] >= 8 * 64
        assert sheet.size[1] >= 2 * 2 * 32
        assert len(set(sheet.getdata())) > 50

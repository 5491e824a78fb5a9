from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.errors import InputError
from engine.samples.scenes import BACKGROUND, BEDROCK, CLASSES, ROCK, SAND, SOIL, Scenes, generate

TARGET_SHARES = {BACKGROUND: 0.28, SOIL: 0.50, BEDROCK: 0.10, SAND: 0.07, ROCK: 0.04}


@pytest.fixture(scope="module")
def many() -> Scenes:
    return generate(256, seed=5)


def roughness(scenes: Scenes, label: int) -> float:
    """Mean absolute step between neighbours of one row that both carry the label."""
    inside = scenes.labels == label
    steps = np.abs(np.diff(scenes.images.astype(int), axis=2))
    return float(steps[inside[:, :, 1:] & inside[:, :, :-1]].mean())


def assert_equal(one: Scenes, other: Scenes) -> None:
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_shapes_types_and_ranges(many: Scenes) -> None:
    for array in (many.images, many.labels):
        assert array.shape == (256, 64, 128)
        assert array.dtype == np.uint8
    assert many.labels.max() == len(CLASSES) - 1
    assert many.images.min() == 0
    assert many.images.max() > 180


def test_scenes_are_frozen(many: Scenes) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        many.images = many.labels  # type: ignore[misc]


def test_same_seed_same_scenes() -> None:
    assert_equal(generate(3, seed=11), generate(3, seed=11))


def test_a_shorter_set_is_a_prefix() -> None:
    longer, shorter = generate(10), generate(4)
    assert_equal(Scenes(longer.images[:4], longer.labels[:4]), shorter)


def test_scenes_do_not_depend_on_what_was_made_before() -> None:
    alone = generate(2, seed=3)
    generate(2, seed=9, size=(20, 40))
    assert_equal(generate(2, seed=3), alone)


def test_scenes_and_seeds_differ() -> None:
    scenes = np.concatenate([generate(4, seed=seed).images for seed in (0, 1, 2)])
    assert len(np.unique(scenes.reshape(12, -1), axis=0)) == 12


def test_class_shares_are_near_their_targets(many: Scenes) -> None:
    shares = np.bincount(many.labels.ravel(), minlength=len(CLASSES)) / many.labels.size
    for label, target in TARGET_SHARES.items():
        assert abs(shares[label] - target) < max(0.35 * target, 0.02), (CLASSES[label], shares)


@pytest.mark.parametrize("label", [BEDROCK, SAND, ROCK])
def test_rarer_classes_are_in_some_scenes_and_not_in_others(many: Scenes, label: int) -> None:
    present = (many.labels == label).any(axis=(1, 2)).mean()
    assert 0.2 < present < 0.8


def test_background_and_soil_are_in_most_scenes(many: Scenes) -> None:
    for label in (BACKGROUND, SOIL):
        assert (many.labels == label).any(axis=(1, 2)).mean() > 0.85
    assert (many.labels != BACKGROUND).all(axis=(1, 2)).any()


def test_terrains_differ_in_texture(many: Scenes) -> None:
    sand, soil, bedrock, rock = (roughness(many, label) for label in (SAND, SOIL, BEDROCK, ROCK))
    assert sand < 0.75 * soil
    assert bedrock > 1.1 * soil
    assert rock > 1.2 * bedrock


def test_big_rocks_are_darker_and_of_higher_contrast_than_the_ground(many: Scenes) -> None:
    rock, soil = (many.images[many.labels == label].astype(float) for label in (ROCK, SOIL))
    assert rock.mean() < soil.mean() - 10
    assert rock.std() > 1.3 * soil.std()


def test_terrain_is_no_uniform_colour(many: Scenes) -> None:
    for label in (SOIL, BEDROCK, SAND, ROCK):
        spreads = [
            image[mask == label].std()
            for image, mask in zip(many.images, many.labels, strict=True)
            if (mask == label).sum() > 200
        ]
        assert min(spreads) > 1.0, CLASSES[label]


def test_frame_is_background(many: Scenes) -> None:
    black = many.images == 0
    assert 0.01 < black.mean() < 0.10
    assert (many.labels[black] == BACKGROUND).all()


def test_some_ground_is_left_unlabelled(many: Scenes) -> None:
    """Unlabelled pixels as dark as ground, beyond frame and sky, make up a good part of the background."""
    level = np.median(many.images, axis=(1, 2), keepdims=True)
    background = many.labels == BACKGROUND
    like_ground = background & (many.images > 0) & (np.abs(many.images - level) < 20)
    assert like_ground.sum() > 0.4 * background.sum()


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (31, 16), (128, 96), (96, 300)])
def test_other_sizes(size: tuple[int, int]) -> None:
    scenes = generate(12, seed=2, size=size)
    assert scenes.images.shape == scenes.labels.shape == (12, *size)
    assert scenes.labels.max() <= ROCK
    assert len(np.unique(scenes.labels)) >= 3
    assert (scenes.images.std(axis=(1, 2)) > 1).all()


def test_no_scenes() -> None:
    scenes = generate(0, size=(16, 20))
    assert scenes.images.shape == scenes.labels.shape == (0, 16, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count is -1"),
        ({"count": 1.5}, r"count is 1\.5"),
        ({"count": 1, "seed": -3}, "seed is -3"),
        ({"count": 1, "seed": None}, "seed is None"),
        ({"count": 1, "size": (15, 64)}, "height is 15.* 16"),
        ({"count": 1, "size": (64, 8)}, "width is 8.* 16"),
        ({"count": 1, "size": (64, 64.5)}, r"width is 64\.5"),
        ({"count": 1, "size": (64,)}, "size is .*pair"),
        ({"count": 1, "size": 64}, "size is 64.*pair"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        generate(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)

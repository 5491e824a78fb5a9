"""Small parts: scores against Keras, augmentation, the configuration."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from engine.errors import InputError, PlanError
from tests.trainers.conftest import tiles
from trainers import scores
from trainers.batches import Batches
from trainers.config import FitConfig
from trainers.fit import target_of

CONFIG = FitConfig(arch="unet", data="tiles.npz", out="runs/unet.keras")


@pytest.mark.parametrize("ignored", [None, 0, 3])
@pytest.mark.parametrize("stray", [0, 1, 40])
def test_keras_ignore_is_what_keras_computes(ignored: int | None, stray: int) -> None:
    """Also with a single prediction of the ignored class, which costs a whole class of the mean."""
    rng = np.random.default_rng(stray)
    truth = rng.integers(0, 5, (3, 16, 16)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.7, np.maximum(truth, 1), rng.integers(1, 5, truth.shape))
    predicted.ravel()[np.flatnonzero(truth.ravel())[:stray]] = 0
    metric = keras.metrics.MeanIoU(5, ignore_class=ignored)
    metric.update_state(truth.ravel().astype(np.int32), predicted.ravel().astype(np.int32))
    ours = scores.keras_ignore(scores.confusion(truth, predicted.astype(np.uint8), 5), ignored)
    assert ours == pytest.approx(float(metric.result()), rel=1e-5)


def test_suppression_takes_the_second_best_and_leaves_the_logits_alone() -> None:
    logits = np.array([[[[5.0, 1.0, 2.0], [0.0, 3.0, 1.0]]]], np.float32)
    kept = logits.copy()
    assert scores.decode(logits).tolist() == [[[0, 1]]]
    assert scores.decode(logits, 0).tolist() == [[[2, 1]]]
    np.testing.assert_array_equal(logits, kept)


def test_specialist_iou_by_hand() -> None:
    truth = np.array([[[2, 2, 1, 0]]], np.uint8)
    log_odds = np.array([[[[1.0], [-1.0], [1.0], [1.0]]]], np.float32)
    assert scores.specialist_iou(truth, log_odds, 2, None) == pytest.approx(1 / 4)
    assert scores.specialist_iou(truth, log_odds, 2, 0) == pytest.approx(1 / 3)


def test_scalars_of_numpy_are_written_as_toml() -> None:
    result = {"score": np.float64(0.25), "tiles": np.int64(3), "done": np.bool_(True)}
    assert tomllib.loads(CONFIG.to_toml(result=result))["result"] == {"score": 0.25, "tiles": 3, "done": True}


def test_an_epoch_shows_every_tile_once_and_repeats_exactly() -> None:
    data = tiles(10)
    config = replace(CONFIG, batch_size=4, augment="none")
    batches = [Batches(data, config, 3)[step] for step in range(len(Batches(data, config, 3)))]
    shown = np.concatenate([images for images, _ in batches])
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    assert shown.dtype == np.float32
    assert shown.max() <= 1
    assert sorted(map(bytes, np.rint(shown * 255).astype(np.uint8))) == sorted(map(bytes, data.images))
    np.testing.assert_array_equal(Batches(data, config, 3)[1][0], batches[1][0])
    assert not np.array_equal(Batches(data, config, 4)[1][0], batches[1][0])


def test_the_hash_follows_what_decides_the_weights() -> None:
    assert len(CONFIG.hash) == 16
    assert replace(CONFIG, out="elsewhere/x.keras", data="moved.npz").hash == CONFIG.hash
    for change in (
        {"seed": 1},
        {"data_sha256": "0"},
        {"class_id": 1},
        {"ignored_class": None},
        {"fold": 2},
        {"ema": 0.5},
        {"extra_sha256": "0"},
    ):
        assert replace(CONFIG, **change).hash != CONFIG.hash


def test_toml_round_trip_with_awkward_names() -> None:
    config = replace(CONFIG, class_names=('a "b"', "c\\d", "é\n\x7f"), ignored_class=None, class_id=1, dropout=0.25)
    config = replace(config, options=("squeeze=false", "heads=2"))
    text = config.to_toml(result={"best": 0.5, "ok": True})
    assert FitConfig.from_toml(text) == config
    assert tomllib.loads(text)["result"] == {"best": 0.5, "ok": True}
    for bad in ("not toml [", "[other]\n", "[config]\nbogus = 1\n"):
        with pytest.raises(InputError, match=r"run\.toml"):
            FitConfig.from_toml(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"fold": 5},
        {"folds": 1},
        {"out": "net.h5"},
        {"dropout": 0.95},
        {"class_names": ("a", "a")},
        {"monitor": "loss"},
        {"warmup_epochs": 100.0},
        {"repeat": 0},
        {"oversample": 1.5},
        {"paste": -0.1},
        {"ema": 1.0},
        {"precision": "float8"},
        {"stage": "third"},
    ],
)
def test_impossible_runs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=next(iter(change)).replace("_", "-")):
        replace(CONFIG, **change)


def test_the_specialist_of_the_ignored_class_keeps_its_pixels() -> None:
    data = tiles(4)
    for class_id, ignored in ((0, None), (1, 0)):
        target = target_of(replace(CONFIG, arch="one_class", class_id=class_id, ignore_background=True), data)
        assert target.ignored == ignored
    background, soil = (np.count_nonzero(data.labels == k) for k in (0, 1))
    assert target_of(CONFIG, data).weights == pytest.approx((1.0, 0.75, 0.75, 1.5, 1.5))
    assert target.pos_weight == pytest.approx((data.labels.size - background - soil) / soil)

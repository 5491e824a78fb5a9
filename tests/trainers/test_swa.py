"""Averages of the last epochs' weights: the mean, fresh statistics, and a run that is killed in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from engine.errors import PlanError
from tests.trainers.conftest import tiles
from trainers import loop, swa
from trainers.batches import Batches
from trainers.config import FitConfig
from trainers.learner import Learner, make_learner
from trainers.losses.base import Target
from trainers.optimizer import SWA_RATE, make_optimizer
from trainers.records import Epoch

CONFIG = FitConfig("unet", "d.npz", "n.keras", preset="tiny", options=("depth=1",), epochs=5, swa=3, augment="none")


def test_the_average_is_the_mean_of_the_last_epochs() -> None:
    rng = np.random.default_rng(0)
    epochs = [[rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=4).astype(np.float32)] for _ in range(5)]
    average: list[np.ndarray] = []
    count = 0
    for number, weights in enumerate(epochs):
        if swa.is_averaged(CONFIG, number):
            average, count = swa.with_epoch(average, count, weights), count + 1
    assert count == 3
    for place, found in enumerate(average):
        np.testing.assert_allclose(found, np.mean([weights[place] for weights in epochs[2:]], axis=0), rtol=1e-5)


def test_statistics_are_those_of_the_batches() -> None:
    inputs = keras.Input((4, 4, 1))
    norm = keras.layers.BatchNormalization(momentum=0.9)
    model = keras.Model(inputs, norm(inputs))
    data = tiles(6, size=(4, 4))
    batches = Batches(data, replace(CONFIG, batch_size=2), 0)
    swa.refresh_statistics(model, batches)
    images = [batches[step][0] for step in range(3)]
    assert norm.momentum == 0.9
    np.testing.assert_allclose(norm.moving_mean, [np.mean([part.mean() for part in images])], rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, [np.mean([part.var() for part in images])], rtol=1e-3)


def test_the_rate_stays_where_weights_are_averaged() -> None:
    rate = make_optimizer(replace(CONFIG, warmup_epochs=1, learning_rate=0.5), 10)._learning_rate
    found = [float(rate(step)) for step in (10, 20, 30, 49)]
    assert found[0] == pytest.approx(0.5)
    assert found[1:] == pytest.approx([0.5 * SWA_RATE] * 3)


def test_a_killed_run_ends_with_the_same_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs that add 1, 2, 3, ... to every weight, so that the average is known without any training."""
    data = tiles(4, size=(16, 16))
    config = replace(CONFIG, out=str(tmp_path / "a.keras"))
    learner = make_learner(config, (16, 16, 1), Target(5), 1)
    began = learner.model.get_weights()

    def epoch(run: FitConfig, learner: Learner, how: object, batches: Batches, *_: object) -> tuple[Epoch, None]:
        number = batches.epoch + 1
        if number == stop:
            raise KeyboardInterrupt
        learner.model.set_weights([weights + number for weights in learner.model.get_weights()])
        return Epoch(number, 1.0, 0.5, 0.5, 0.1, 1.0, 1.0), None

    monkeypatch.setattr(loop, "_one_epoch", epoch)
    monkeypatch.setattr(loop, "evaluate", lambda *_: (score, score))
    stop, score = 5, 0.6
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, learner, data, None, checkpoints=True)
    learner.model.set_weights(began)
    stop = 0
    done = loop.train(config, learner, data, data, checkpoints=True, resume=True)
    assert (done.averaged, done.best.raw, len(done.history)) == (3, 0.6, 5)
    # After epochs 3, 4 and 5 the weights are 6, 10 and 15 above the first ones.
    learned = [place for place, weight in enumerate(learner.model.weights) if "moving" not in weight.path]
    for place in learned:
        np.testing.assert_allclose(done.weights[place], began[place] + 31 / 3, rtol=1e-4)
    # A lower score than the best epoch's: that one is kept.
    score = 0.4
    kept = loop.train(config, learner, data, data, resume=True)
    assert (kept.averaged, kept.best.raw) == (0, 0.5)


def test_what_it_does_not_go_with_is_refused() -> None:
    for changed, words in (({"ema": 0.9}, "omit one"), ({"swa": 6}, "allowed are 0 to 5")):
        with pytest.raises(PlanError, match=words):
            replace(CONFIG, **changed)

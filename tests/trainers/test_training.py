"""What training promises: averages, precision, stages, transfer, checkpoints; a kill costs one epoch at most."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from engine.errors import InputError, ModelError, OutputError, PlanError
from tests.conftest import Result
from tests.trainers.conftest import tiles
from trainers import checkpoint, loop, records
from trainers.batches import Batches, scaled
from trainers.cli import app
from trainers.config import FitConfig
from trainers.contract import contract_of, read_contract, save_network
from trainers.data import Dataset
from trainers.fit import fit, fit_dataset
from trainers.learner import Learner, finished, make_learner
from trainers.loop import _RawWeights, train
from trainers.losses.base import Target
from trainers.options import check_training, parsed_options
from trainers.records import Epoch

SHAPE = (16, 32, 1)
CONFIG = FitConfig(
    arch="unet", data="d.npz", out="n.keras", preset="tiny", options=("depth=1",), warmup_epochs=0.0, batch_size=4
)
Call = Callable[..., Result]


def learner_of(config: FitConfig, classes: int = 5) -> Learner:
    """A learner that runs without a traced graph: tracing takes longer than the few steps of these tests."""
    keras.utils.set_random_seed(config.seed)
    learner = make_learner(config, SHAPE, Target(classes), steps=3)
    learner.trained.run_eagerly = True
    return learner


def values(variables: list[Any]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(item).copy() for item in variables]


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_average_of_the_weights_is_what_is_scored_and_training_goes_on_from_its_own() -> None:
    config = replace(CONFIG, ema=0.5)
    learner, seen = learner_of(config), []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            seen.append(values(learner.trained.trainable_variables))

    raw = _RawWeights()
    batches = Batches(tiles(12, size=SHAPE[:2]), config, 0)
    learner.trained.fit(batches, verbose=0, callbacks=[Watch(), raw])
    average = seen[0]
    for step in seen[1:]:
        average = [0.5 * a + 0.5 * b for a, b in zip(average, step, strict=True)]
    for ours, theirs in zip(average, values(learner.trained.trainable_variables), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert not equal(average, seen[-1])
    raw.restore()
    assert equal(values(learner.trained.trainable_variables), seen[-1])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_saves_a_float32_network(precision: str) -> None:
    config = replace(CONFIG, precision=precision)
    learner, data = learner_of(config), tiles(4, size=SHAPE[:2])
    kinds = {layer.compute_dtype for layer in learner.model.layers}
    assert kinds == {precision.removeprefix("mixed_"), "float32"}
    assert keras.config.dtype_policy().name == "float32"
    before = values(learner.model.trainable_variables)
    images = scaled(data.images)
    assert np.isfinite(learner.trained.train_on_batch(images, data.labels.astype(np.int32)))
    assert not equal(before, values(learner.model.trainable_variables))
    model = finished(config, learner, learner.model.get_weights(), SHAPE)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    exact = keras.ops.convert_to_numpy(model(images, training=False))
    rough = keras.ops.convert_to_numpy(learner.model(images, training=False))
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


def saved(tmp_path: Path, config: FitConfig, learner: Learner, name: str = "first.keras") -> Path:
    data = tiles(2, size=SHAPE[:2])
    model = finished(config, learner, learner.model.get_weights(), SHAPE)
    save_network(tmp_path / name, model, contract_of(config, data, {}))
    return tmp_path / name


def test_the_second_stage_stands_on_a_frozen_first(tmp_path: Path) -> None:
    config = replace(CONFIG, arch="double_unet", stage="first")
    first, data = learner_of(config), tiles(4, size=SHAPE[:2])
    images, labels = scaled(data.images), data.labels.astype(np.int32)
    first.trained.train_on_batch(images, labels)
    alone = keras.ops.convert_to_numpy(first.model(images, training=False))
    path = saved(tmp_path, config, first)
    usable = keras.saving.load_model(path)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(usable(images)), alone, atol=1e-5)

    config = replace(config, stage="second", start_from=str(path))
    second = learner_of(config)
    mask = keras.Model(second.model.input, second.model.get_layer("first_logits").output)
    later = values(second.model.get_layer("second_down0_a_conv").weights)
    second.trained.train_on_batch(images, labels)
    # Frozen in its batch statistics too: the first mask is what it was, also while the second is trained.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(mask(images, training=True)), alone, atol=1e-5)
    assert not equal(later, values(second.model.get_layer("second_down0_a_conv").weights))
    whole = finished(config, second, second.model.get_weights(), SHAPE)
    assert all(layer.trainable for layer in whole.layers)
    assert whole.output_shape == (None, 16, 32, 5)


def test_the_whole_cascade_holds_both_masks_to_the_labels() -> None:
    learner = learner_of(replace(CONFIG, arch="double_unet"))
    assert learner.trained.output_shape == (None, 16, 32, 10)
    assert learner.model.output_shape == (None, 16, 32, 5)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, CONFIG, learner_of(CONFIG))
    wide = replace(CONFIG, options=("depth=1", "filters=8"), start_from=str(path))
    with pytest.raises(ModelError, match="same architecture, preset, options, channels and classes"):
        learner_of(wide)
    with pytest.raises(ModelError, match="has no such layer"):
        learner_of(replace(CONFIG, arch="double_unet", start_from=str(path)))
    (tmp_path / "text.keras").write_text("no network")
    with pytest.raises(InputError, match=r"no \.keras network"):
        learner_of(replace(CONFIG, start_from=str(tmp_path / "text.keras")))
    same = learner_of(replace(CONFIG, seed=7, start_from=str(path)))
    assert equal(same.model.get_weights(), keras.saving.load_model(path).get_weights())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deep_supervision": True}, "take unet_plus_plus"),
        ({"stage": "first"}, "only double_unet has stages"),
        ({"arch": "double_unet", "stage": "second"}, "--from first.keras"),
        ({"options": ("wings=2",)}, r"write NAME=VALUE with one of filters \(int\), depth \(int\)"),
        ({"options": ("depth",)}, "NAME=VALUE"),
        ({"options": ("depth=deep",)}, "a whole number is needed"),
        ({"options": ("depth=0",)}, "at least 1"),
        ({"arch": "pan", "options": ("squeeze=perhaps",)}, "true or false"),
    ],
)
def test_options_that_the_architecture_has_not_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_training(replace(CONFIG, **change))


def test_options_take_the_type_of_their_defaults() -> None:
    config = replace(CONFIG, arch="pan", options=("squeeze=False", "filters = 3"))
    assert parsed_options(config) == {"squeeze": False, "filters": 3}


def state_of(learner: Learner, best: Epoch) -> checkpoint.State:
    return checkpoint.State([best], best, learner.model.get_weights())


EPOCH = Epoch(1, 0.5, 0.25, 0.5, 1e-3, 100.0, 1.0)


def test_a_checkpoint_brings_back_weights_optimizer_and_history(tmp_path: Path) -> None:
    config = replace(CONFIG, out=str(tmp_path / "n.keras"), dropout=0.2, ema=0.9)
    learner, data = learner_of(config), tiles(4, size=SHAPE[:2])
    images, labels = scaled(data.images), data.labels.astype(np.int32)
    learner.trained.train_on_batch(images, labels)
    checkpoint.save(config, learner.trained, state_of(learner, EPOCH))
    kept = values(learner.trained.variables), values(learner.trained.optimizer.variables)
    learner.trained.train_on_batch(images, labels)
    after = values(learner.trained.variables)
    fresh = learner_of(replace(config, seed=5))
    state = checkpoint.load(config, fresh.trained)
    assert state is not None
    assert (state.history, state.best) == ([EPOCH], EPOCH)
    assert equal(values(fresh.trained.variables), kept[0])
    assert equal(values(fresh.trained.optimizer.variables), kept[1])
    # The next step is the one that the run would have made, dropout's draws among it.
    fresh.trained.train_on_batch(images, labels)
    for ours, theirs in zip(values(fresh.trained.variables), after, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert checkpoint.load(replace(config, out=str(tmp_path / "other.keras")), fresh.trained) is None


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, out=str(tmp_path / "n.keras"))
    learner = learner_of(config)
    checkpoint.save(config, learner.trained, state_of(learner, EPOCH))
    with pytest.raises(PlanError, match=r"another run \(seed 0 there, 3 here\)"):
        checkpoint.load(replace(config, seed=3), learner.trained)
    whole = config.checkpoint.read_bytes()
    config.checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(config, learner.trained)


def test_a_full_disk_is_said_before_training_and_never_costs_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, out=str(tmp_path / "n.keras"))
    learner, data = learner_of(config), tiles(4, size=SHAPE[:2])
    checkpoint.save(config, learner.trained, state_of(learner, EPOCH))
    whole = config.checkpoint.read_bytes()

    def full(stream: Any, **arrays: Any) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="No space left on device"):
        checkpoint.save(config, learner.trained, state_of(learner, EPOCH))
    assert config.checkpoint.read_bytes() == whole
    assert [item.name for item in tmp_path.iterdir()] == ["n.checkpoint.npz"]
    Usage = namedtuple("Usage", ("total", "used", "free"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(OutputError, match="checkpoints need 1"):
        fit_dataset(replace(config, train_all=True), data)


def test_a_resumed_run_that_had_lost_patience_stops_at_once(tmp_path: Path) -> None:
    config = replace(CONFIG, out=str(tmp_path / "n.keras"), epochs=9, patience=2)
    learner, data = learner_of(config), tiles(4, size=SHAPE[:2])
    history = [replace(EPOCH, epoch=number, suppressed=0.9 - 0.1 * number) for number in (1, 2, 3)]
    checkpoint.save(config, learner.trained, checkpoint.State(history, history[0], learner.model.get_weights()))
    done = train(config, learner, data, data, resume=True)
    assert (done.history, done.best) == (history, history[0])


@pytest.mark.parametrize(
    ("patience", "scores", "validated", "best"),
    [(0, [0.3, 0.5, 0.4], [2, 4, 5], 4), (1, [0.5, 0.3], [2, 4], 2), (0, [0.1, 0.2, 0.3], [2, 4, 5], 5)],
)
def test_only_every_nth_epoch_and_the_last_are_validated(
    patience: int, scores: list[float], validated: list[int], best: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = replace(CONFIG, out=str(tmp_path / "n.keras"), epochs=5, patience=patience, validate_every=2)
    given = iter(scores)
    monkeypatch.setattr(loop, "evaluate", lambda *_: (0.0, next(given)))
    learner, data = learner_of(config), tiles(4, size=SHAPE[:2])
    done = train(config, learner, data, data)
    assert [epoch.epoch for epoch in done.history if not np.isnan(epoch.suppressed)] == validated
    assert done.best.epoch == best
    assert next(given, None) is None
    records.draw_history(tmp_path / "history.png", done.history, best, "every second epoch")
    assert (tmp_path / "history.png").stat().st_size > 1000


def losses_of(path: Path) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader(path.open())]


def test_a_killed_run_goes_on_where_it_was(call: Call, root: Path, task_file: Path, tmp_path: Path) -> None:
    """The process is killed, not asked to stop; the resumed run ends as one that was never interrupted."""
    options = ("fit", "unet", "--data", task_file, "--groups", tmp_path / "groups.npz", "--preset", "tiny")
    options += ("--option", "depth=1", "--batch-size", 4, "--epochs", 5, "--dropout", 0.1, "--ema", 0.8)
    killed, whole = tmp_path / "killed.keras", tmp_path / "whole.keras"
    command = [sys.executable, "-u", "-m", "trainers.cli", *map(str, (*options, "--out", killed))]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 3/5"):
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.read()
    assert process.returncode == -signal.SIGKILL
    assert not killed.exists()
    assert (tmp_path / "killed.checkpoint.npz").is_file()

    blind = call(app, *options, "--out", killed)
    assert blind.code == 2
    assert "give --resume to continue it or --overwrite to start again" in blind.err
    resumed = call(app, *options, "--out", killed, "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.err.splitlines()[0].startswith(("resumed after epoch 2 of 5", "resumed after epoch 3 of 5"))
    assert not (tmp_path / "killed.checkpoint.npz").exists()
    again = call(app, *options, "--out", killed, "--resume")
    assert again.code == 0
    assert "already finished" in again.err

    straight = call(app, *options, "--out", whole)
    assert straight.code == 0, straight.err
    there, here = losses_of(tmp_path / "whole.history.csv"), losses_of(tmp_path / "killed.history.csv")
    assert len(there) == len(here) == 5
    assert here == pytest.approx(there, rel=0.02)
    scores = [read_contract(path).notes["validation_suppressed"] for path in (killed, whole)]
    assert scores[0] == pytest.approx(scores[1], abs=0.03)


def test_a_run_is_repeated_from_its_record(call: Call, task_file: Path, tmp_path: Path) -> None:
    """Same run, same losses; an option beside it wins; other data under the old name are refused."""
    options = ("--preset", "tiny", "--option", "depth=1", "--epochs", 1, "--batch-size", 8, "--augment", "custom")
    options += ("--loss", "dice+0.1*boundary", "--repeat", 2, "--paste", 0.5, "--no-flips", "--seed", 3)
    first = call(app, "fit", "unet", "--data", task_file, "--out", tmp_path / "a.keras", *options)
    assert first.code == 0, first.err
    record = tmp_path / "a.run.toml"
    second = call(app, "fit", "--config", record, "--out", tmp_path / "b.keras")
    assert second.code == 0, second.err
    assert read_contract(tmp_path / "a.keras").notes["run"] == read_contract(tmp_path / "b.keras").notes["run"]
    pair = [losses_of(tmp_path / f"{name}.history.csv") for name in "ab"]
    assert pair[0] == pytest.approx(pair[1], rel=1e-3)
    text = (tmp_path / "b.run.toml").read_text()
    assert FitConfig.from_toml(text).augment == "negative+translate+cutout"

    wrong = call(app, "fit", "--config", record, "--out", tmp_path / "c.keras", "--loss", "hinge")
    assert wrong.code == 2
    assert "'hinge' is unknown" in wrong.err
    np.savez(task_file, training_set=np.zeros((20, 2, 16, 16)))
    changed = call(app, "fit", "--config", record, "--out", tmp_path / "c.keras")
    assert changed.code == 2
    assert "not the file recorded for this run" in changed.err
    assert len(changed.err.strip().splitlines()) == 1


def test_a_command_without_network_data_or_output_says_so(call: Call, task_file: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("fit",), "architecture: none given"),
        (("fit", "unet"), "out: none given"),
        (("fit", "unet", "--out", "n.keras"), "data: none given"),
        (("fit", "--config", tmp_path / "absent.toml"), "absent.toml: cannot be read"),
    ):
        result = call(app, *arguments)
        assert result.code == 2
        assert message in result.err
        assert len(result.err.strip().splitlines()) == 1


def test_a_class_without_a_pixel_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from trainers.fit import split

    data = tiles(4, size=(16, 32), classes=4)
    named = Dataset(data.images, data.labels, None, (*data.class_names, "ghost"), data.index)
    split(replace(CONFIG, train_all=True), named)
    assert capsys.readouterr().err == ("note: no pixel of ghost in the training tiles: that class cannot be learned\n")


def test_an_impossible_architecture_writes_nothing(tmp_path: Path, task_file: Path) -> None:
    config = replace(CONFIG, data=str(task_file), out=str(tmp_path / "n.keras"), options=("depth=6",))
    with pytest.raises(ModelError, match="multiples of 64"):
        fit(config)
    assert not list(tmp_path.glob("n.*"))

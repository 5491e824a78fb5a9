"""One tester for every architecture: a new one is tested by being in the table."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from engine.errors import ModelError, PlanError
from tests.trainers.conftest import tiles
from trainers import scores
from trainers.batches import scaled
from trainers.losses import make_loss
from trainers.losses.base import Target
from trainers.models import ARCHITECTURES, build_model

NAMES = sorted(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "classes"), [((64, 128, 1), 5), ((16, 24, 3), 2), ((8, 8, 2), 7)])
def test_logits_have_the_size_of_the_image(name: str, shape: tuple[int, int, int], classes: int) -> None:
    model = build_model(name, "tiny", input_shape=shape, classes=classes)
    maps = 1 if ARCHITECTURES[name].specialist else classes
    assert model.output_shape == (None, *shape[:2], maps)
    assert model.output.dtype == "float32"


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_larger_than_the_one_before(name: str) -> None:
    sizes = [
        build_model(name, preset, input_shape=(32, 32, 1), classes=5).count_params()
        for preset in ("tiny", "small", "base", "large")
    ]
    assert sizes == sorted(set(sizes))
    assert sizes[0] <= 100_000


@pytest.mark.parametrize("name", NAMES)
def test_the_head_is_linear(name: str) -> None:
    """Logits, not probabilities: some are negative, and they do not sum to one."""
    model = build_model(name, "tiny", input_shape=(16, 16, 1), classes=5)
    logits = model(np.random.default_rng(0).random((2, 16, 16, 1), np.float32))
    assert keras.ops.convert_to_numpy(logits).min() < 0


@pytest.mark.parametrize("name", NAMES)
def test_one_step_lowers_the_loss(name: str) -> None:
    keras.utils.set_random_seed(1)
    data = tiles(4, size=(16, 32))
    class_id = 2 if ARCHITECTURES[name].specialist else None
    loss = make_loss("cross-entropy", Target(5, None, class_id))
    model = build_model(name, "tiny", input_shape=(16, 32, 1), classes=5)
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss=loss)
    images, labels = scaled(data.images), data.labels.astype(np.int32)
    before = float(loss(labels, model(images, training=True)))
    model.train_on_batch(images, labels)
    assert float(loss(labels, model(images, training=True))) < before


@pytest.mark.parametrize("name", NAMES)
def test_eight_tiles_are_learned_and_the_archive_needs_nothing_of_this_package(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    data = tiles(8, size=(16, 32))
    class_id = 2 if ARCHITECTURES[name].specialist else None
    model = build_model(name, "tiny", input_shape=(16, 32, 1), classes=5)
    learner = keras.Model(model.inputs, model.outputs)
    learner.compile(optimizer=keras.optimizers.Adam(0.01), loss=make_loss("cross-entropy", Target(5, None, class_id)))
    images = scaled(data.images)
    learner.optimizer.build(learner.trainable_variables)
    learner.fit(images, data.labels.astype(np.int32), batch_size=8, epochs=60, verbose=0)
    logits = model.predict_on_batch(images)
    if class_id is None:
        score = scores.keras_ignore(scores.confusion(data.labels, scores.decode(logits), 5), None)
    else:
        score = scores.specialist_iou(data.labels, logits, class_id, None)
    assert score > 0.95
    model.save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        assert b"trainers" not in archive.read("config.json")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(images), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_sides_that_cannot_be_halved_name_the_nearest(name: str) -> None:
    with pytest.raises(ModelError, match="48x96 or 64x112"):
        build_model(name, "base", input_shape=(50, 100, 1), classes=5)


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(PlanError, match="one_class"):
        build_model("resnet", input_shape=(16, 16, 1), classes=2)
    with pytest.raises(PlanError, match="tiny, small, base, large"):
        build_model("unet", "huge", input_shape=(16, 16, 1), classes=2)


def test_dropout_is_an_override() -> None:
    model = build_model("unet", "tiny", input_shape=(16, 16, 1), classes=2, dropout=0.2)
    assert sum(isinstance(layer, keras.layers.SpatialDropout2D) for layer in model.layers) == 7


def test_unet_plus_plus_has_the_dense_skips_of_the_paper() -> None:
    """Node (0, j) joins j earlier nodes of its row and the one from below."""
    model = build_model("unet_plus_plus", "tiny", input_shape=(16, 16, 1), classes=2)
    for step in (1, 2, 3):
        assert len(model.get_layer(f"node0_{step}_join").input) == step + 1

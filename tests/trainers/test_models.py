"""One tester for every architecture: a new one is tested by being in the table."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

import trainers
from engine.errors import ModelError, PlanError
from tests.trainers.conftest import tiles
from trainers import scores
from trainers.batches import scaled
from trainers.config import FitConfig
from trainers.contract import contract_of, save_network
from trainers.learner import make_learner
from trainers.losses import make_loss
from trainers.losses.base import Target
from trainers.models import ARCHITECTURES, build_model

NAMES = sorted(ARCHITECTURES)
CONFIG = FitConfig(arch="unet", data="tiles.npz", out="n.keras", preset="tiny", warmup_epochs=0.0)
# Transposes of an exported network: none between convolutions; attention takes two around all blocks and six in each.
TRANSPOSES = {"transformer_unet": 8}


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
    model = build_model(name, "tiny", input_shape=(16, 16, 1), classes=5, depth=1)
    logits = model(np.random.default_rng(0).random((2, 16, 16, 1), np.float32))
    assert keras.ops.convert_to_numpy(logits).min() < 0


@pytest.mark.parametrize("name", NAMES)
def test_one_step_lowers_the_loss(name: str) -> None:
    keras.utils.set_random_seed(1)
    data = tiles(4, size=(16, 32))
    class_id = 2 if ARCHITECTURES[name].specialist else None
    loss = make_loss("cross-entropy", Target(5, None, class_id))
    model = build_model(name, "tiny", input_shape=(16, 32, 1), classes=5, depth=1)
    # Eagerly: tracing a graph for one step takes longer than the step.
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss=loss, run_eagerly=True)
    images, labels = scaled(data.images), data.labels.astype(np.int32)
    before = float(loss(labels, model(images, training=True)))
    model.train_on_batch(images, labels)
    assert float(loss(labels, model(images, training=True))) < before


@pytest.mark.parametrize("name", NAMES)
def test_eight_tiles_are_learned_saved_loaded_and_exported(name: str, tmp_path: Path) -> None:
    """The archive needs nothing of this package, and the exporter proves that the ONNX file computes the same."""
    exporters = pytest.importorskip("exporters")
    pytest.importorskip("tf2onnx", reason="needs the export extra")
    keras.utils.set_random_seed(3)
    data = tiles(8, size=(16, 32))
    class_id = 2 if ARCHITECTURES[name].specialist else None
    model = build_model(name, "tiny", input_shape=(16, 32, 1), classes=5)
    learner = keras.Model(model.input, model.output)
    learner.compile(optimizer=keras.optimizers.Adam(0.01), loss=make_loss("cross-entropy", Target(5, None, class_id)))
    images = scaled(data.images)
    learner.optimizer.build(learner.trainable_variables)
    learner.fit(images, data.labels.astype(np.int32), batch_size=8, epochs=60, verbose=0)
    # Called, not predicted: tracing two more graphs would take longer than all the rest.
    logits = keras.ops.convert_to_numpy(model(images, training=False))
    if class_id is None:
        score = scores.keras_ignore(scores.confusion(data.labels, scores.decode(logits), 5), None)
    else:
        score = scores.specialist_iou(data.labels, logits, class_id, None)
    assert score > 0.95
    config = replace(CONFIG, arch=name, class_id=class_id, group="g")
    save_network(tmp_path / "net.keras", model, contract_of(config, data, {}))
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        assert b"trainers" not in archive.read("config.json")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    again = keras.ops.convert_to_numpy(loaded(images, training=False))
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-4)
    done = exporters.export_onnx(tmp_path / "net.keras", tmp_path / "net.onnx", tiles=data.images)
    # Logits of a trained network run to tens; the difference is held against their size.
    assert done.parity.max_difference <= 1e-4 * max(1.0, float(np.abs(logits).max()))
    assert done.parity.agreement >= 0.9999
    assert done.transposes == TRANSPOSES.get(name, 0)
    assert done.dropped == ()


@pytest.mark.parametrize("name", NAMES)
def test_sides_that_cannot_be_halved_name_the_nearest(name: str) -> None:
    with pytest.raises(ModelError, match="48x96 or 64x112"):
        build_model(name, "base", input_shape=(50, 100, 1), classes=5, depth=4)


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


def test_a_model_is_built_from_the_public_name_with_its_defaults() -> None:
    model = trainers.build_model("unet")
    assert model.input_shape == (None, 64, 128, 1)
    assert model.output_shape == (None, 64, 128, 5)
    assert model.count_params() == build_model("unet", "small").count_params()
    assert set(trainers.__all__) <= set(dir(trainers))
    with pytest.raises(AttributeError, match="nothing"):
        _ = trainers.nothing
    with pytest.raises(PlanError, match="its options are filters, depth, squeeze, dropout"):
        build_model("pan", wings=2)


def weight_paths(model: keras.Model, prefix: str) -> set[str]:
    return {weight.path for weight in model.trainable_weights if weight.path.startswith(prefix)}


def test_deep_supervision_trains_every_head_and_the_network_keeps_one() -> None:
    config = replace(CONFIG, arch="unet_plus_plus", deep_supervision=True)
    learner = make_learner(config, (16, 32, 1), Target(3), steps=1)
    assert learner.trained.output_shape == (None, 16, 32, 9)
    assert learner.model.output_shape == (None, 16, 32, 3)
    heads = weight_paths(learner.trained, "deep_node0_")
    assert {path.split("/")[0] for path in heads} == {"deep_node0_1", "deep_node0_2"}
    assert weight_paths(learner.model, "deep_") == set()

    data = tiles(4, size=(16, 32), classes=3)
    before = {weight.path: weight.numpy().copy() for weight in learner.trained.trainable_weights}
    images, labels = scaled(data.images), data.labels.astype(np.int32)
    loss = learner.trained.train_on_batch(images, labels)
    assert np.isfinite(loss)
    moved = {w.path for w in learner.trained.trainable_weights if not np.array_equal(before[w.path], w.numpy())}
    assert heads <= moved


def test_the_loss_of_several_heads_is_their_mean() -> None:
    config = replace(CONFIG, arch="unet_plus_plus", deep_supervision=True)
    learner = make_learner(config, (16, 32, 1), Target(3), steps=1)
    data = tiles(2, size=(16, 32), classes=3)
    logits = keras.ops.convert_to_numpy(learner.trained(scaled(data.images)))
    labels = data.labels.astype(np.int32)
    single = [float(learner.loss(labels, part)) for part in np.split(logits, 3, axis=-1)]
    assert float(learner.trained.loss(labels, logits)) == pytest.approx(np.mean(single), rel=1e-5)


def test_squeeze_and_excitation_is_an_option() -> None:
    for name in ("pan", "double_unet", "residual_attention_unet"):
        plain = build_model(name, "tiny", input_shape=(16, 16, 1), classes=2, squeeze=False)
        assert not any("_se_" in layer.name for layer in plain.layers)
        assert any("_se_" in layer.name for layer in build_model(name, "tiny", input_shape=(16, 16, 1)).layers)


def test_the_pyramid_of_pan_has_as_many_levels_as_the_sides_allow() -> None:
    for size, levels in (((64, 64), 3), ((32, 48), 1), ((16, 16), 1), ((8, 8), 0)):
        model = build_model("pan", "small", input_shape=(*size, 1))
        assert sum(layer.name.startswith("pyramid_pool") for layer in model.layers) == levels


def test_the_second_unet_sees_the_image_through_the_first_mask() -> None:
    """With the first mask closed the gated maps are zero; with it open they are the projected image."""
    model = build_model("double_unet", "tiny", input_shape=(16, 16, 1), classes=2)
    gate = keras.Model(model.input, model.get_layer("gate_masked").output)
    image = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    head = model.get_layer("first_logits")
    kernel, _ = head.get_weights()
    projected = image * model.get_layer("gate_image").get_weights()[0][0, 0]
    for bias, open_share in ((-50.0, 0.0), (0.0, 0.5), (50.0, 1.0)):
        head.set_weights([kernel * 0, np.full(2, bias, np.float32)])
        gated = keras.ops.convert_to_numpy(gate(image))
        np.testing.assert_allclose(gated, open_share * projected, atol=1e-6)


def test_the_transformer_lets_every_place_see_every_other() -> None:
    """A change in one corner of the bottleneck's maps moves the far corner, which no convolution there could do."""
    model = build_model("transformer_unet", "tiny", input_shape=(32, 64, 1))
    first, last = model.get_layer("tokens_placed").output, model.get_layer("tokens_maps").output
    inner = keras.Model(first, last)
    maps = np.random.default_rng(0).normal(size=(1, 8, 16, first.shape[-1])).astype(np.float32)
    changed = maps.copy()
    changed[0, 0, 0, 0] += 1  # one value: the same step in all of them is what the normalisation takes out
    difference = keras.ops.convert_to_numpy(inner(changed) - inner(maps))
    assert np.abs(difference[0, -1, -1]).max() > 0

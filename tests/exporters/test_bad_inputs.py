"""Every wrong input is one line of our own error, and leaves nothing behind."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError, PlanError
from engine.models.contract import KERAS_MEMBER
from exporters import ContractOptions, export_onnx

CLASSES = ("background", "soil", "rock")
OPTIONS = ContractOptions(classes=CLASSES, scale=1 / 255)


def refused(error: type[EngineError], source, tmp_path, *words: str, **given: object) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(error) as caught:
        export_onnx(source, out / "net.onnx", **{"options": OPTIONS, **given})
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert list(out.iterdir()) == []


def net_of(output: object, image: object) -> keras.Model:
    return keras.Model(image, output)


@pytest.fixture
def image() -> object:
    return layers.Input((16, 32, 1))


def test_missing_file(tmp_path):
    refused(ModelError, tmp_path / "none.keras", tmp_path, "none.keras", "no such file")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"PK\x03\x04 cut short"])
def test_not_an_archive(content, tmp_path):
    source = tmp_path / "net.keras"
    source.write_bytes(content)
    refused(ModelError, source, tmp_path, "net.keras", "not a Keras archive", "model.save")


def test_a_zip_of_something_else(tmp_path):
    source = tmp_path / "net.keras"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(ModelError, source, tmp_path, "config.json")


@pytest.mark.parametrize("config", ["{", "[]", '{"class_name": "Functional", "config": {}, "module": "keras"}'])
def test_config_that_is_no_net(config, tmp_path):
    source = tmp_path / "net.keras"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", "{}")
    refused(ModelError, source, tmp_path, "net.keras")


@pytest.mark.parametrize("member", ["config.json", KERAS_MEMBER, "model.weights.h5"])
def test_damaged_member(member, archive, tmp_path):
    source = tmp_path / "net.keras"
    data = bytearray(archive[0].read_bytes())
    with zipfile.ZipFile(archive[0]) as whole:
        start = whole.getinfo(member).header_offset + 60
    data[start : start + 40] = bytes(40)
    source.write_bytes(data)
    refused(ModelError, source, tmp_path, "net.keras", member)


def test_one_weight_of_another_value(archive, tmp_path):
    """The file opens and every number can be read: only the checksum of the archive tells."""
    source, name = tmp_path / "net.keras", "model.weights.h5"
    data = bytearray(archive[0].read_bytes())
    with zipfile.ZipFile(archive[0]) as whole:
        held, start = whole.read(name), whole.getinfo(name).header_offset
    weights = archive[1].trainable_weights[0].numpy().tobytes()
    place = data.index(weights[:16], start)
    assert place < start + 200 + len(held)
    data[place] ^= 1
    source.write_bytes(data)
    refused(ModelError, source, tmp_path, "net.keras", name, "checksum")


def test_weights_of_another_net(archive, tmp_path):
    source = tmp_path / "net.keras"
    with zipfile.ZipFile(archive[0]) as whole, zipfile.ZipFile(source, "w") as cut:
        for item in whole.infolist():
            if item.filename != "model.weights.h5":
                cut.writestr(item, whole.read(item))
    refused(ModelError, source, tmp_path, "net.keras")


def test_custom_layers_are_named(image, save, tmp_path):
    class StrangeGate(layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    source = save(tmp_path / "net.keras", net_of(layers.Conv2D(3, 1)(StrangeGate()(image)), image))
    refused(ModelError, source, tmp_path, "custom objects StrangeGate", "stock Keras layers")


def test_code_in_a_lambda_is_not_run(image, save, tmp_path):
    source = save(tmp_path / "net.keras", net_of(layers.Lambda(lambda x: x * 2.0)(layers.Conv2D(3, 1)(image)), image))
    refused(ModelError, source, tmp_path, "Lambda")


def test_several_outputs(image, save, tmp_path):
    net = keras.Model(image, [layers.Conv2D(3, 1)(image), layers.Conv2D(3, 1)(image)])
    refused(ModelError, save(tmp_path / "net.keras", net), tmp_path, "2 outputs", "exactly one")


def test_several_inputs(image, save, tmp_path):
    other = layers.Input((16, 32, 1))
    net = keras.Model([image, other], layers.Conv2D(3, 1)(layers.Add()([image, other])))
    refused(ModelError, save(tmp_path / "net.keras", net), tmp_path, "2 inputs")


def test_a_classifier(image, save, tmp_path):
    net = net_of(layers.Dense(3)(layers.GlobalAveragePooling2D()(image)), image)
    refused(ModelError, save(tmp_path / "net.keras", net), tmp_path, "output has shape (None, 3)")


def test_fixed_batch(save, tmp_path):
    image = layers.Input(batch_shape=(4, 16, 32, 1))
    source = save(tmp_path / "net.keras", net_of(layers.Conv2D(3, 1)(image), image))
    refused(ModelError, source, tmp_path, "batch size is fixed at 4", "batch_size")


def test_integer_input(save, tmp_path):
    image = layers.Input((16, 32, 1), dtype="uint8")
    source = save(tmp_path / "net.keras", net_of(layers.Conv2D(3, 1)(layers.Rescaling(1 / 255)(image)), image))
    refused(ModelError, source, tmp_path, "input is uint8")


def test_smaller_maps(image, save, tmp_path):
    source = save(tmp_path / "net.keras", net_of(layers.Conv2D(3, 1, strides=2)(image), image))
    refused(ModelError, source, tmp_path, "(8, 16)", "(16, 32)")


def test_smaller_maps_of_a_net_with_free_sides(save, tmp_path):
    image = layers.Input((None, None, 1))
    source = save(tmp_path / "net.keras", net_of(layers.Conv2D(3, 1, strides=2)(image), image))
    refused(ModelError, source, tmp_path, "(32, 64)", "(64, 128)")


def test_an_operation_that_onnx_lacks(image, save, tmp_path):
    source = save(
        tmp_path / "net.keras", net_of(keras.ops.erfinv(layers.Conv2D(3, 1, activation="tanh")(image)), image)
    )
    refused(ModelError, source, tmp_path, "operations that ONNX lacks: Erfinv")


def test_a_net_that_computes_nan(image, save, tmp_path):
    net = net_of(layers.Conv2D(3, 1)(image), image)
    net.set_weights([np.full(weight.shape, np.nan) for weight in net.get_weights()])
    refused(ModelError, save(tmp_path / "net.keras", net), tmp_path, "NaN")


def test_quantised_net(build, save, tmp_path):
    net = keras.Sequential([layers.Input((16, 32, 4)), layers.Dense(8), layers.Dense(3)])
    net.quantize("int8")
    refused(ModelError, save(tmp_path / "net.keras", net), tmp_path, "quantised")


def test_no_contract_and_no_names(build, save, tmp_path):
    source = save(tmp_path / "net.keras", build("sequential"))
    refused(ContractError, source, tmp_path, "no contract", "--class-names", options=None)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"classes": ("a", "b")}, "2 classes, the net outputs 3 maps"),
        ({"ignored_class": 3}, "ignored_class"),
        ({"scale": 0.0}, "scale"),
        ({"mean": (1.0, 2.0)}, "mean"),
        ({"class_id": 1}, "a specialist"),
        ({"activation": "probabilities"}, "use logits"),
    ],
)
def test_options_that_do_not_fit(changes, word, archive, tmp_path):
    options = replace(OPTIONS, **changes)
    error = ModelError if "activation" in changes else ContractError
    refused(error, archive[0], tmp_path, "little.keras", word, options=options)


@pytest.mark.parametrize(
    ("changes", "word"), [({"channels": 3, "mean": (0.0,)}, "3 channels"), ({"size": (64, 128)}, "size (64, 128)")]
)
def test_contract_that_does_not_fit(changes, word, build, save, contract, tmp_path):
    source = save(tmp_path / "net.keras", build("transposed"), replace(contract, **changes))
    refused(ContractError, source, tmp_path, word)


@pytest.mark.parametrize(
    "text", ["{", '{"schema": 99}', '{"schema": 1, "classes": 3}', "\ud800".encode(errors="surrogatepass")]
)
def test_contract_that_is_none(text, build, save, tmp_path):
    source = save(tmp_path / "net.keras", build("sequential"))
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(KERAS_MEMBER, text)
    refused(ContractError, source, tmp_path, "net.keras")


@pytest.mark.parametrize("ending", ["softmax", "sigmoid"])
def test_probabilities_must_be_called_so(ending, build, save, tmp_path):
    refused(ContractError, save(tmp_path / "net.keras", build(ending)), tmp_path, ending, "--activation probabilities")


@pytest.mark.parametrize("opset", [12, 19])
def test_opset_out_of_range(opset, archive, tmp_path):
    refused(PlanError, archive[0], tmp_path, f"opset {opset}", "13 to 18", opset=opset)


def test_tiles_of_another_size(archive, tmp_path):
    tiles = np.zeros((2, 64, 128, 1), np.uint8)
    refused(InputError, archive[0], tmp_path, "(64, 128, 1)", "(16, 32, 1)", tiles=tiles)


def test_existing_output_is_kept(archive, tmp_path):
    out = tmp_path / "net.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        export_onnx(archive[0], out)
    assert out.read_bytes() == b"mine"


def test_output_that_is_a_folder_or_below_a_file(archive, tmp_path):
    with pytest.raises(OutputError, match="a folder"):
        export_onnx(archive[0], tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        export_onnx(archive[0], tmp_path / "file" / "net.onnx")


def test_another_backend(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    refused(PlanError, archive[0], tmp_path, "'jax'", "'tensorflow'", "separate process")


@pytest.mark.parametrize("package", ["tf2onnx", "onnxslim"])
def test_missing_extra(package, archive, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    refused(PlanError, archive[0], tmp_path, f"'{package}'", "pip install 'maskfuse[export]'")

"""The written file against the net itself, run here without the exporter's own comparison."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from engine.errors import ModelError
from engine.models.contract import ModelContract
from exporters import ContractOptions, GraphStep, export_onnx
from exporters.graph import STEPS

CLASSES = ("background", "soil", "rock")
OPTIONS = ContractOptions(classes=CLASSES, scale=1 / 255)
models = pytest.importorskip("trainers.models")

KINDS = (
    "transposed",
    "odd kernel",
    "nearest",
    "bilinear",
    "depthwise",
    "dropout",
    "squeeze",
    "colour",
    "sequential",
    "mixed_float16",
)


def session_of(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def images_for(net: object, count: int) -> np.ndarray:
    _, height, width, channels = net.input_shape
    draw = np.random.default_rng(count)
    return draw.random((count, height or 24, width or 40, channels), dtype=np.float32)


def planar(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(array).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", KINDS)
def test_written_file_computes_what_the_net_computes(name, build, save, tmp_path):
    net = build(name)
    source = save(tmp_path / "net.keras", net)
    done = export_onnx(source, tmp_path / "net.onnx", options=OPTIONS)
    session = session_of(done.path)
    # Half precision rounds the activations to 11 bits, the export does not; the exact twin is tested below.
    tolerance = 2e-2 if name == "mixed_float16" else 2e-5
    for batch in (1, 3, 7):
        images = images_for(net, batch)
        (logits,) = session.run(["logits"], {"images": planar(images)})
        expected = planar(net(images, training=False))
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=tolerance * max(1, np.abs(expected).max()))
    assert done.transposes == 0
    assert done.dropped == ()


def test_half_precision_training_exports_the_float32_twin(build, save, tmp_path):
    half, full = build("mixed_float16"), build("transposed")
    full.set_weights(half.get_weights())
    done = export_onnx(save(tmp_path / "net.keras", half), tmp_path / "net.onnx", options=OPTIONS)
    images = images_for(full, 3)
    (logits,) = session_of(done.path).run(None, {"images": planar(images)})
    np.testing.assert_allclose(logits, planar(full(images, training=False)), atol=2e-5)
    kinds = {item.data_type for item in onnx.load(done.path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds


def test_file_is_planar_with_open_batch_and_folded_shapes(archive, tmp_path):
    done = export_onnx(archive[0], tmp_path / "net.onnx")
    session = session_of(done.path)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("images", ["batch", 1, 16, 32], "tensor(float)")
    assert (given.name, given.shape, given.type) == ("logits", ["batch", 3, 16, 32], "tensor(float)")
    model = onnx.load(done.path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "Relu", "MaxPool", "ConvTranspose", "Concat"}
    assert done.nodes == len(model.graph.node)
    assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [("", 17)]


def test_free_sides_stay_free(build, save, tmp_path):
    net = build("free size")
    done = export_onnx(save(tmp_path / "net.keras", net), tmp_path / "net.onnx", options=OPTIONS)
    session = session_of(done.path)
    assert session.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    assert done.contract.size is None
    for batch, height, width in ((1, 8, 8), (3, 32, 48), (7, 8, 12)):
        images = np.random.default_rng(0).random((batch, height, width, 1), dtype=np.float32)
        (logits,) = session.run(None, {"images": planar(images)})
        np.testing.assert_allclose(logits, planar(net(images, training=False)), atol=2e-5)


@pytest.mark.parametrize("opset", [13, 18])
def test_other_opsets(opset, archive, tmp_path):
    done = export_onnx(archive[0], tmp_path / "net.onnx", opset=opset)
    versions = {entry.domain: entry.version for entry in onnx.load(done.path).opset_import}
    assert versions[""] == opset == done.contract.notes["opset"]


def test_contract_goes_from_the_archive_into_the_file(archive, contract, tmp_path, read_stamp):
    done = export_onnx(archive[0], tmp_path / "net.onnx")
    stamped = read_stamp(done.path)
    assert stamped == done.contract
    assert (stamped.input_layout, stamped.output_layout) == ("NCHW", "NCHW")
    for field in ("classes", "scale", "size", "ignored_class", "architecture", "activation", "kind", "channels"):
        assert getattr(stamped, field) == getattr(contract, field)
    notes = stamped.notes
    assert notes["validation_miou"] == 0.5
    assert 0 <= notes["parity_max_difference"] <= 1e-4
    assert notes["parity_agreement"] >= 0.9999
    assert (notes["parity_tiles"], notes["nodes"], notes["transposes"]) == (11, done.nodes, 0)
    assert len(notes["source_sha256"]) == 64


def test_options_win_over_the_archive(archive, tmp_path, read_stamp):
    options = ContractOptions(classes=("sky", "sand", "stone"), mean=(0.5,), std=(0.25,), architecture="other")
    done = export_onnx(archive[0], tmp_path / "net.onnx", options=options)
    stamped = read_stamp(done.path)
    assert (stamped.classes, stamped.mean, stamped.std) == (("sky", "sand", "stone"), (0.5,), (0.25,))
    assert (stamped.architecture, stamped.ignored_class) == ("other", 0)


def test_specialist(build, save, tmp_path, read_stamp):
    source = save(tmp_path / "net.keras", build("specialist"))
    options = ContractOptions(classes=CLASSES, class_id=2, group="five", scale=1 / 255)
    stamped = read_stamp(export_onnx(source, tmp_path / "net.onnx", options=options).path)
    assert (stamped.kind, stamped.class_id, stamped.group, stamped.outputs) == ("specialist", 2, "five", 1)


def test_probabilities(build, save, tmp_path, read_stamp):
    source = save(tmp_path / "net.keras", build("softmax"))
    options = ContractOptions(classes=CLASSES, scale=1 / 255, activation="probabilities")
    done = export_onnx(source, tmp_path / "net.onnx", options=options)
    assert read_stamp(done.path).activation == "probabilities"
    (maps,) = session_of(done.path).run(None, {"images": np.full((1, 1, 16, 32), 0.5, np.float32)})
    np.testing.assert_allclose(maps.sum(axis=1), 1, atol=1e-5)


def scaled(model: onnx.ModelProto, factor: float = 1.01) -> onnx.ModelProto:
    """Return the model with one weight array changed: a simplifier with a bug."""
    weight = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    array = onnx.numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    return model


def fixed_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


def raising(model: onnx.ModelProto) -> onnx.ModelProto:
    raise KeyError("no such node")


def other_output(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.output[0].name = model.graph.node[0].output[0]
    return model


def broken_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.node[0]
    return model


@pytest.fixture(scope="module")
def good(archive, tmp_path_factory) -> Path:
    return export_onnx(archive[0], tmp_path_factory.mktemp("good") / "good.onnx").path


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (scaled, "breaks parity"),
        (fixed_batch, "ONNX Runtime refuses"),
        (raising, "KeyError"),
        (other_output, "the graph outputs"),
        (broken_graph, "ONNX Runtime refuses"),
    ],
)
def test_a_step_that_breaks_the_graph_is_left_out(step, reason, archive, good, tmp_path):
    lines: list[str] = []
    steps = (STEPS[0], GraphStep("bad step", step), *STEPS[1:])
    done = export_onnx(archive[0], tmp_path / "bad.onnx", steps=steps, report=lines.append)
    assert done.dropped == ("bad step",)
    assert len(lines) == 1
    assert "bad step" in lines[0]
    assert reason in lines[0]
    images = {"images": planar(images_for(archive[1], 2))}
    np.testing.assert_array_equal(session_of(done.path).run(None, images)[0], session_of(good).run(None, images)[0])


def test_a_conversion_that_misses_is_not_written(archive, tmp_path, monkeypatch):
    from exporters import keras_to_onnx

    true_convert = keras_to_onnx.convert
    monkeypatch.setattr(keras_to_onnx, "convert", lambda *given: scaled(true_convert(*given)))
    with pytest.raises(ModelError, match=r"little\.keras: the conversion misses parity .* nothing was written"):
        export_onnx(archive[0], tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_keeps_the_older_file(archive, tmp_path, monkeypatch):
    from exporters import keras_to_onnx

    out = tmp_path / "net.onnx"
    out.write_bytes(b"older")
    true_convert = keras_to_onnx.convert
    monkeypatch.setattr(keras_to_onnx, "convert", lambda *given: scaled(true_convert(*given)))
    with pytest.raises(ModelError):
        export_onnx(archive[0], out, overwrite=True)
    assert out.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("arch", sorted(models.ARCHITECTURES))
def test_architectures_of_the_trainers(arch, save, tmp_path):
    keras.utils.set_random_seed(1)
    specialist = models.ARCHITECTURES[arch].specialist
    net = models.build_model(arch, "tiny", input_shape=(64, 128, 1), classes=5)
    contract = ModelContract(
        classes=("background", "soil", "bedrock", "sand", "big_rock"),
        scale=1 / 255,
        kind="specialist" if specialist else "multiclass",
        class_id=3 if specialist else None,
    )
    done = export_onnx(save(tmp_path / "net.keras", net, contract), tmp_path / "net.onnx")
    assert done.dropped == ()
    graph = onnx.load(done.path).graph
    ends = {graph.input[0].name, graph.output[0].name}
    convolutions = [node for node in graph.node if "Conv" in node.op_type]
    given = {name for node in convolutions for name in node.output}
    read = {name for node in convolutions for name in node.input}
    turned = [node for node in graph.node if node.op_type == "Transpose"]
    # Attention turns maps into tokens, its own matrices, and tokens into maps; nothing else is turned.
    assert not [node.name for node in turned if ends & {*node.input, *node.output}]
    assert not [node.name for node in turned if node.input[0] in given and node.output[0] in read]
    assert not turned or any(node.op_type == "MatMul" for node in graph.node)
    assert not {"Shape", "Loop", "Tile"} & {node.op_type for node in graph.node}
    images = images_for(net, 2)
    (logits,) = session_of(done.path).run(None, {"images": planar(images)})
    expected = planar(net(images, training=False))
    np.testing.assert_allclose(logits, expected, atol=2e-5 * max(1, np.abs(expected).max()))

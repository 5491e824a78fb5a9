"""Files with open sides against Keras nets that were built for those sizes, and what each command makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from keras import layers

from engine.errors import InputError, ModelError, OutputError
from engine.models.contract import ModelContract
from engine.models.opening import open_net
from exporters import any_size, cli
from exporters.any_size import AnySize, export_any_size
from exporters.parity import Parity, worst
from exporters.sides import find_stride, proof_sizes, with_sides
from tests.conftest import Result

SIZE = (16, 32)
models = pytest.importorskip("trainers.models")


def planar(array: object) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(array).transpose(0, 3, 1, 2))


def agrees(path: Path, net: keras.Model, size: tuple[int, int], seed: int = 0) -> None:
    """Compare a file with a Keras net at one size, apart from the exporter's own comparison."""
    images = np.random.default_rng(seed).random((2, *size, net.input_shape[3]), dtype=np.float32)
    expected = planar(net(images, training=False))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": planar(images)})
    assert logits.shape[2:] == size
    np.testing.assert_allclose(logits, expected, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.fixture(autouse=True)
def pace(monkeypatch) -> dict[str, float]:
    """The ratio of the speeds: what a machine under load measures cannot decide a test."""
    held = {"ratio": 1.0}
    monkeypatch.setattr(any_size, "speed", lambda *nets, rounds: (held["ratio"], 100.0))
    return held


@pytest.mark.parametrize(
    ("arch", "stride", "sizes"),
    [
        ("pan", 32, ((64, 32), (96, 160))),
        ("residual_attention_unet", 4, ((4, 12), (68, 36))),
    ],
)
def test_architectures_at_sizes_they_were_not_trained_at(arch, stride, sizes, save, tmp_path, read_stamp):
    keras.utils.set_random_seed(1)
    net = models.build_model(arch, "tiny", input_shape=(32, 64, 1), classes=3)
    promised = ModelContract(classes=("a", "b", "c"), scale=1 / 255, size=(32, 64))
    done = export_any_size(save(tmp_path / "net.keras", net, promised), tmp_path / "net.onnx")
    assert done.fixed is None
    stamped = read_stamp(tmp_path / "net.onnx")
    assert (stamped, stamped.size, stamped.stride) == (done.open.contract, None, stride)
    assert (stamped.notes["trained_size"], done.sizes[:2]) == ("32x64", ((32, 64), (64, 128)))
    assert len(done.sizes) >= 3 and not any(side % stride for size in done.sizes for side in size)
    graph = onnx.load(done.open.path).graph
    # As fast as the fixed one: nothing is computed from the shape of the image.
    assert not {"Shape", "Slice", "Pad", "Transpose"} & {node.op_type for node in graph.node}
    agrees(done.open.path, net, (32, 64))
    for size in sizes:
        other = models.build_model(arch, "tiny", input_shape=(*size, 1), classes=3) if arch != "pan" else None
        # The builder of a PAN adds as many levels as the sides can be halved; the net itself keeps its three.
        other = other or with_sides(net, size)
        other.set_weights(net.get_weights())
        agrees(done.open.path, other, size)


def test_tokens_of_one_size_are_refused_in_one_line(save, contract, tmp_path):
    net = models.build_model("transformer_unet", "tiny", input_shape=(*SIZE, 1), classes=3)
    source = save(tmp_path / "net.keras", net, contract)
    with pytest.raises(ModelError) as caught:
        export_any_size(source, tmp_path / "net.onnx")
    message = str(caught.value)
    assert message.startswith(f"{source}: it takes 16x32 alone: layers tokens_flat, tokens_maps are bound to it; ")
    assert message.endswith("export it without --any-size")
    assert "\n" not in message and "\x1b" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["net.keras"]


def strided(pad: str = "same") -> keras.Model:
    """A net with every layer whose borders depend on the size: strides, pools that overlap, odd kernels, resizing."""
    image = layers.Input((24, 48, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.MaxPooling2D(3, strides=3, padding=pad)(x)
    x = layers.Conv2D(4, 5, dilation_rate=2, padding="same", activation="relu")(x)
    x = layers.UpSampling2D(3, interpolation="bilinear")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    small = layers.UpSampling2D(2)(layers.AveragePooling2D(2, padding="same")(image))
    return keras.Model(image, layers.Conv2D(3, 3, padding="same")(layers.Concatenate()([x, small])))


def test_borders_at_odd_multiples_of_the_stride(save, contract, tmp_path):
    keras.utils.set_random_seed(2)
    net = strided()
    done = export_any_size(save(tmp_path / "net.keras", net, replace(contract, size=(24, 48))), tmp_path / "net.onnx")
    assert done.open.contract.stride == 6
    for size in ((6, 6), (18, 30), (42, 66)):
        agrees(done.open.path, with_sides(net, size), size)


def grouped() -> keras.Model:
    """Group normalisation writes the sides into its graph: the fixed one cannot be opened."""
    image = layers.Input((*SIZE, 1))
    x = layers.GroupNormalization(2)(layers.Conv2D(4, 3, padding="same")(image))
    return keras.Model(image, layers.Conv2D(3, 1)(x))


def test_a_slower_file_stands_beside_the_fixed_one(save, contract, tmp_path, pace, read_stamp):
    pace["ratio"] = 0.9
    net, lines = grouped(), []
    out = tmp_path / "net.onnx"
    done = export_any_size(save(tmp_path / "net.keras", net, contract), out, report=lines.append)
    assert len(lines) == 1 and "does not compute others" in lines[0]
    assert [file.path.name for file in done.files] == ["net.onnx", "net_any.onnx"]
    assert (read_stamp(out).size, read_stamp(out).stride) == (SIZE, 1)
    assert read_stamp(tmp_path / "net_any.onnx").size is None
    assert "speed x0.90 of the fixed file at 16x32" in str(done)
    assert str(done).endswith(": slower, so net.onnx keeps that size and net_any.onnx takes any")
    agrees(tmp_path / "net_any.onnx", with_sides(net, (8, 24)), (8, 24))
    agrees(out, net, SIZE)
    out.unlink()
    with pytest.raises(OutputError, match=r"net_any\.onnx: already exists"):
        export_any_size(tmp_path / "net.keras", out)
    assert not out.exists()


def test_a_graph_that_misses_at_another_size_is_not_written(save, contract, tmp_path, monkeypatch):
    true_run = any_size.run_keras
    monkeypatch.setattr(any_size, "run_keras", lambda net, images: true_run(net, images) + np.float32(0.1))
    source = save(tmp_path / "net.keras", grouped(), contract)
    with pytest.raises(ModelError, match="misses parity"):
        export_any_size(source, tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.keras"]


def test_a_net_with_open_sides_and_nested_nets(build, save, contract, tmp_path):
    inner = keras.Sequential([layers.Input((*SIZE, 1)), layers.Conv2D(4, 3, padding="same"), layers.ReLU()])
    image = layers.Input((*SIZE, 1))
    nested = keras.Model(image, layers.Conv2D(3, 1)(inner(image)))
    for name, net, stride in (("free", build("free size"), 2), ("nested", nested, 1), ("flat", build("sequential"), 1)):
        source = save(tmp_path / f"{name}.keras", net, replace(contract, size=None))
        done = export_any_size(source, tmp_path / f"{name}.onnx")
        assert (done.open.contract.stride, done.size) == (stride, (64, 128) if name == "free" else SIZE)
        agrees(done.open.path, with_sides(net, (6, 10)), (6, 10))


def test_the_stride_and_the_sizes(build, contract):
    net = with_sides(build("transposed"), (None, None))
    assert find_stride(net, SIZE, contract) == 2
    assert proof_sizes((64, 128), 8) == [(64, 128), (128, 256), (72, 120), (8, 8)]
    assert proof_sizes((64, 64), 64) == [(64, 64), (128, 128), (128, 192)]


def test_the_worst_of_several_sizes_counts():
    good, poor = Parity(1e-6, 1.0, 3, 1.0), Parity(1e-3, 0.9, 4, 100.0)
    assert worst([good, poor]) == Parity(1e-3, 0.9, 7, 100.0)
    nan = Parity(float("nan"), 1.0, 1, 1.0)
    assert np.isnan(worst([good, nan, poor]).max_difference)


@pytest.fixture(scope="module")
def opened(tmp_path_factory, build, save, contract) -> AnySize:
    """One small file for any size, and its archive beside it."""
    folder = tmp_path_factory.mktemp("any size")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(any_size, "speed", lambda *nets, rounds: (1.0, 100.0))
        return export_any_size(save(folder / "net.keras", build("transposed"), contract), folder / "net.onnx")


@pytest.fixture
def exporters(call: Callable[..., Result]) -> Callable[..., Result]:
    return lambda *arguments: call(cli.app, *arguments)


@pytest.fixture
def data(tmp_path) -> Path:
    draw = np.random.default_rng(0)
    path = tmp_path / "tiles.npz"
    images = draw.integers(0, 256, (6, 20, 24)).astype(np.uint8)
    np.savez(path, images=images, labels=draw.integers(0, 3, (6, 20, 24)).astype(np.uint8))
    return path


def test_quantize_and_pack_pass_it_through(opened, exporters, call, data, tmp_path, read_stamp):
    from engine.cli import app as engine

    done = exporters("quantize", opened.open.path, "--calibrate", data, "--max-loss", 1, "-o", tmp_path / "int8.onnx")
    assert done.code == 0, done.err
    assert (read_stamp(tmp_path / "int8.onnx").size, read_stamp(tmp_path / "int8.onnx").stride) == (None, 2)
    (tmp_path / "plan.toml").write_text(f'[[members]]\nmodel = "{opened.open.path}"\n')
    whole = tmp_path / "whole.onnx"
    done = exporters("pack", tmp_path / "plan.toml", "--out", whole, "--tiles", data)
    assert done.code == 0, done.err
    # The packed graph mirrors the sides by itself.
    assert (read_stamp(whole).size, read_stamp(whole).stride) == (None, 1)
    for name, model in (("a", opened.open.path), ("b", whole)):
        # Another size than that of training, and a scene in tiles of a third one.
        out = tmp_path / f"{name}.npy"
        assert call(engine, "ensemble", "-m", model, "-i", data, "-o", out).code == 0
        scene = np.random.default_rng(1).integers(0, 256, (57, 91)).astype(np.uint8)
        np.save(tmp_path / "scene.npy", scene)
        goal = tmp_path / f"{name}.scene.npy"
        done = call(engine, "ensemble", "-m", model, "-i", tmp_path / "scene.npy", "-o", goal, "--tile", "32x48")
        assert done.code == 0, done.err
        assert np.load(goal).shape[-2:] == (57, 91)
    scene, goal = tmp_path / "scene.npy", tmp_path / "none.npy"
    done = call(engine, "ensemble", "-m", opened.open.path, "-i", scene, "-o", goal, "--tile", "31x48")
    assert done.code == 2
    assert "--tile 31x48" in done.err
    assert "30x48 or 32x48" in done.err
    assert not goal.exists()
    assert np.mean(np.load(tmp_path / "a.npy") == np.load(tmp_path / "b.npy")) > 0.999


def test_tiles_that_the_stride_does_not_divide(opened, data, tmp_path):
    from exporters.tiles import labelled_tiles

    held = replace(opened.open.contract, stride=16)
    with pytest.raises(InputError, match=r"the tiles are .* the model takes any size that 16 divides"):
        labelled_tiles(data, held)


def test_the_commands_take_the_option(exporters, build, save, contract, tmp_path, read_stamp):
    source = save(tmp_path / "one.keras", build("transposed"), contract)
    done = exporters("onnx", source, "--out", tmp_path / "out", "--any-size")
    assert done.code == 0, done.err
    told, wrote, _ = done.err.splitlines()
    assert told.startswith(f"{source}: any size that 2 divides, parity at 16x32, 32x64, 18x30, 2x2; speed x1.00 of ")
    assert wrote == f"wrote {tmp_path / 'out' / 'one.onnx'}"
    sources = [
        save(tmp_path / f"k{k}.keras", build("specialist"), replace(contract, kind="specialist", class_id=k))
        for k in range(3)
    ]
    five = tmp_path / "five.onnx"
    done = exporters("specialists", *sources, "--out", five, "--any-size")
    assert done.code == 0, done.err
    assert (read_stamp(five).size, read_stamp(five).stride) == (None, 2)
    agrees(five.with_suffix("") / "k1.onnx", with_sides(build("specialist"), (6, 10)), (6, 10))
    assert open_net(five, sample=np.zeros((6, 10, 1), np.uint8)).contract.kind == "specialists"
    twin = save(tmp_path / "one_any.keras", build("transposed"), contract)
    done = exporters("onnx", source, twin, "--out", tmp_path / "new", "--any-size")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "several models would be written to one_any.onnx" in done.err

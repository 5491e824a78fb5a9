"""Lower precision: written only where the score keeps, and what is written is what was asked for."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError, PlanError
from engine.models.contract import ModelContract
from engine.models.opening import open_net
from exporters import precision
from exporters.lowering import Recipe
from exporters.measures import Measured, logits_of, miou, speed
from exporters.precision import lower
from exporters.tiles import LabelledTiles, labelled_tiles
from tests.helpers.nets import FIVE, save_member, save_net

SIZE = (16, 32)
HEIGHT, WIDTH = SIZE


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return save_member(tmp_path_factory.mktemp("float") / "net.onnx", 3, promised={"notes": {"validation_miou": 0.5}})


@pytest.fixture(scope="module")
def tiles(source) -> LabelledTiles:
    """Tiles whose labels are what the float net says, so that its MIoU is 1 and every change shows."""
    images = np.random.default_rng(0).integers(0, 256, (24, *SIZE, 1)).astype(np.uint8)
    logits = logits_of(open_net(source), images)
    logits[:, 0] = -np.inf
    return LabelledTiles(images, logits.argmax(axis=1).astype(np.uint8))


@pytest.fixture(scope="module")
def int8(source, tiles, tmp_path_factory) -> precision.Lowered:
    return lower(source, tmp_path_factory.mktemp("int8") / "net_int8.onnx", tiles, max_loss=0.5)


@pytest.fixture
def archive_of(tmp_path):
    def save(**arrays: np.ndarray) -> Path:
        np.savez(tmp_path / "tiles.npz", **arrays)
        return tmp_path / "tiles.npz"

    return save


def ends_of(path: Path) -> tuple[tuple[str, str], tuple[str, str]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    return (taken.name, taken.type), (given.name, given.type)


def test_int8_is_static_a_channel_with_unsigned_activations(int8, source):
    model = onnx.load(int8.path)
    held = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    weights = {name: value for name, value in held.items() if value.dtype == np.int8 and value.ndim == 4}
    assert len(weights) == 2
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            assert held[node.input[1]].shape == (len(held[node.input[0]]),)
        if node.op_type == "QuantizeLinear":
            assert held[node.input[2]].dtype == np.uint8
    assert ends_of(int8.path) == ends_of(source)


def test_the_contract_stays_and_tells(int8, source, read_stamp, tiles):
    held, before = read_stamp(int8.path), open_net(source).contract
    assert held == int8.contract
    assert replace(held, notes={}, version=before.version) == replace(before, notes={})
    notes = held.notes
    assert (notes["precision"], notes["precision_tiles"], notes["validation_miou"]) == ("int8", 24, 0.5)
    assert notes["precision_of_sha256"] == open_net(source).checksum
    assert notes["precision_miou_before"] == 1.0
    assert notes["precision_miou_after"] < 1.0
    assert notes["precision_miou_after"] == pytest.approx(miou(open_net(int8.path), tiles), abs=1e-5)
    assert notes["precision_speed_ratio"] > 0


def test_int8_computes_nearly_the_same(int8, source, tiles):
    exact, close = (logits_of(open_net(path), tiles.images) for path in (source, int8.path))
    assert 0 < np.abs(exact - close).max() < 0.1 * np.abs(exact).max()


def test_float16_keeps_its_ends(source, tiles, tmp_path):
    done = lower(source, tmp_path / "half.onnx", tiles, to="fp16", max_loss=0.05)
    model = onnx.load(done.path)
    assert {item.data_type for item in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert ends_of(done.path) == ends_of(source)
    assert done.measured.before == 1.0
    assert done.measured.after > 0.95


@pytest.mark.parametrize(("floating", "first", "last"), [((), 0, 0), (("first",), 1, 0), (("first", "last"), 1, 1)])
def test_ends_stay_in_float(floating, first, last, source, tiles, tmp_path):
    done = lower(source, tmp_path / "net.onnx", tiles, max_loss=1.0, recipes=[Recipe("x", "MinMax", floating)])
    held = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(done.path).graph.initializer}
    whole = [value.shape for value in held.values() if value.dtype == np.float32 and value.ndim == 4]
    assert whole == [(4, 1, 3, 3)] * first + [(5, 4, 1, 1)] * last


def test_the_next_recipe_is_tried_when_the_score_falls(source, tiles, tmp_path, monkeypatch):
    scores = iter([0.8, 0.7, 0.799])
    monkeypatch.setattr(precision, "miou", lambda *given: next(scores))
    done = lower(source, tmp_path / "net.onnx", tiles, max_loss=0.005)
    assert done.recipe == precision.RECIPES["int8"][1].name
    assert done.refused == ("int8: MIoU 0.8000 -> 0.7000",)
    assert (done.measured.before, done.measured.after) == (0.8, 0.799)


def test_a_net_that_loses_too_much_is_not_written(source, tiles, tmp_path):
    with pytest.raises(ModelError, match=r"drops by more than 1e-09 .*nothing was written.*--max-loss") as caught:
        lower(source, tmp_path / "net.onnx", tiles, max_loss=1e-9, recipes=precision.RECIPES["int8"][:2])
    assert str(caught.value).count("->") == 2
    assert list(tmp_path.iterdir()) == []


def test_specialists_of_both_kinds(tiles, tmp_path):
    one = save_member(tmp_path / "one.onnx", 1, promised={"kind": "specialist", "class_id": 2, "group": "g"})
    done = lower(one, tmp_path / "one8.onnx", tiles, max_loss=1.0)
    assert (done.contract.kind, done.contract.class_id) == ("specialist", 2)
    five = save_member(tmp_path / "five.onnx", 1, promised={"kind": "specialists", "bias": (0.0, 1.0, 2.0, 3.0, 4.0)})
    done = lower(five, tmp_path / "five8.onnx", tiles, max_loss=1.0)
    assert done.contract.bias == (0.0, 1.0, 2.0, 3.0, 4.0)


def test_the_score_of_one_specialist(tmp_path):
    member = open_net(save_member(tmp_path / "one.onnx", 1, promised={"kind": "specialist", "class_id": 2}))
    images = np.random.default_rng(1).integers(0, 256, (5, *SIZE, 1)).astype(np.uint8)
    labels = np.random.default_rng(2).integers(0, 5, (5, *SIZE)).astype(np.uint8)
    own, counted = logits_of(member, images)[:, 0] > 0, labels != 0
    truth = labels == 2
    hit = (own & truth & counted).sum() / ((own | truth) & counted).sum()
    rest = (~own & ~truth & counted).sum() / ((~own | ~truth) & counted).sum()
    assert miou(member, LabelledTiles(images, labels)) == pytest.approx((hit + rest) / 2)


def test_speed_is_a_ratio_of_the_two(source, int8, tiles):
    ratio, rate = speed(open_net(source), open_net(int8.path), tiles.images, rounds=3)
    assert 0 < ratio < 1000
    assert rate > 0
    told = str(Measured(0.5, 0.498, 1.875, 1234.4, 7))
    assert told == "speed x1.88 (1,234 images/s on one CPU thread), MIoU 0.5000 -> 0.4980 (-0.0020) on 7 tiles"


def refused(error: type[EngineError], tmp_path: Path, source: Path, tiles: object, *words: str, **options) -> None:
    out = tmp_path / "out"
    with pytest.raises(error) as caught:
        lower(source, out / "net.onnx", tiles, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert not out.exists()


def test_models_that_do_not_fit(source, int8, tiles, tmp_path, monkeypatch):
    refused(InputError, tmp_path, tmp_path / "none.onnx", tiles, "none.onnx")
    (tmp_path / "text.onnx").write_text("text")
    refused(ModelError, tmp_path, tmp_path / "text.onnx", tiles, "text.onnx")
    foreign = save_net(tmp_path / "foreign.onnx")
    refused(
        ContractError, tmp_path, foreign, tiles, "how pixels are scaled", "exporters adopt foreign.onnx", "foreign.toml"
    )
    refused(ModelError, tmp_path, int8.path, tiles, "already lowered")
    refused(PlanError, tmp_path, source, tiles, "--to int4; allowed are int8 and fp16", to="int4")
    blank = replace(tiles, labels=np.zeros_like(tiles.labels))
    refused(InputError, tmp_path, source, blank, "no labelled pixel")
    with pytest.raises(OutputError, match="--overwrite"):
        lower(source, int8.path, tiles)
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(PlanError, tmp_path, source, tiles, "pip install 'maskfuse[export]'")


def contract_of(**fields: object) -> ModelContract:
    return ModelContract(**{"classes": FIVE, "size": SIZE, **fields})


def test_tiles_and_labels_of_every_layout(archive_of, tmp_path):
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (9, *SIZE)).astype(np.uint8)
    labels = draw.integers(0, 5, (9, *SIZE)).astype(np.uint8)
    pairs = np.stack([images, labels], axis=1).astype(np.float64)
    for path in (
        archive_of(images=images, labels=labels),
        archive_of(images=images, masks=labels),
        archive_of(training_set=pairs, test_set=images[:3]),
    ):
        found = labelled_tiles(path, contract_of())
        np.testing.assert_array_equal(found.images[..., 0], images)
        np.testing.assert_array_equal(found.labels, labels)
    few = labelled_tiles(path, contract_of(), limit=3)
    np.testing.assert_array_equal(few.labels, labels[[0, 4, 8]])
    np.save(tmp_path / "labels.npy", labels)
    apart = labelled_tiles(archive_of(images=images), contract_of(), tmp_path / "labels.npy")
    np.testing.assert_array_equal(apart.labels, labels)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((3, *SIZE))}, ("it has no labels", "--labels")),
        ({"images": np.zeros((3, *SIZE)), "labels": np.zeros((2, *SIZE))}, ("holds 2 label maps", "holds 3")),
        ({"images": np.zeros((3, 8, 8)), "labels": np.zeros((3, 8, 8))}, ("(8, 8, 1)", f"({HEIGHT}, {WIDTH}, 1)")),
        ({"images": np.zeros((3, *SIZE, 3)), "labels": np.zeros((3, *SIZE))}, ("(16, 32, 3)", "(16, 32, 1)")),
        ({"images": np.zeros((3, *SIZE)), "labels": np.full((3, *SIZE), 7)}, ("holds 7", "0 to 4")),
    ],
)
def test_tiles_that_do_not_fit(arrays, words, archive_of):
    with pytest.raises(InputError) as caught:
        labelled_tiles(archive_of(**arrays), contract_of())
    assert all(word in str(caught.value) for word in words)
    assert len(str(caught.value).splitlines()) == 1


def test_tiles_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        labelled_tiles(tmp_path / "none.npz", contract_of())
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(InputError, match=r"text\.npz"):
        labelled_tiles(tmp_path / "text.npz", contract_of())

"""The comparison, the tiles it runs on, and the clean-up of reshapes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engine.errors import InputError, ModelError
from exporters.graph import count, drop_plain_reshapes
from exporters.parity import Parity, Tolerance, load_tiles, measure, random_tiles, run_onnx
from exporters.reshapes import fix_reshapes
from tests.helpers.broken import locked


def test_measure_counts_differences_and_labels(contract):
    draw = np.random.default_rng(0)
    reference = draw.normal(size=(2, 3, 4, 5)).astype(np.float32)
    other = reference.copy()
    winner = reference[1, :, 2, 3].argmax()
    other[1, winner, 2, 3] -= 100.0
    found = measure(reference, other, contract)
    assert found.max_difference == pytest.approx(100.0, rel=1e-5)
    assert found.agreement == pytest.approx(1 - 1 / 40)
    assert found.tiles == 2
    assert found.peak == np.abs(reference).max()
    assert measure(reference, reference.copy(), contract) == Parity(0.0, 1.0, 2, found.peak)


def test_measure_labels_one_map_by_its_sign(contract):
    reference = np.array([-1.0, -0.25, 0.25, 1.0], np.float32).reshape(1, 1, 2, 2)
    shifted = reference + np.float32(0.5)
    assert measure(reference, shifted, contract).agreement == 0.75


@pytest.mark.parametrize("other", [np.zeros((2, 3, 4, 4), np.float32), np.zeros((2, 3, 4, 5), np.float64)])
def test_measure_refuses_other_shapes_and_types(other, contract):
    with pytest.raises(ModelError, match="the graph outputs"):
        measure(np.zeros((2, 3, 4, 5), np.float32), other, contract)


@pytest.mark.parametrize(
    ("difference", "agreement", "peak", "passes"),
    [
        (1e-4, 1.0, 0.5, True),
        (1.1e-4, 1.0, 0.5, False),
        (1.1e-4, 1.0, 2.0, True),
        (2.1e-4, 1.0, 2.0, False),
        (0.0, 0.9998, 1.0, False),
        (float("nan"), 1.0, 1.0, False),
    ],
)
def test_tolerance(difference, agreement, peak, passes):
    assert Parity(difference, agreement, 1, peak).within(Tolerance()) is passes


def test_tiles_of_every_layout(tmp_path):
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (5, 4, 6)).astype(np.uint8)
    masks = np.zeros_like(images)
    np.savez(tmp_path / "plain.npz", images=images)
    np.savez(tmp_path / "colour.npz", images=np.stack([images] * 3, axis=-1))
    np.savez(tmp_path / "pairs.npz", training_set=np.stack([images, masks], axis=1).astype(np.float64))
    np.savez(tmp_path / "both.npz", training_set=np.ones((3, 2, 4, 6)), test_set=images)
    for name in ("plain", "pairs", "both"):
        np.testing.assert_array_equal(load_tiles(tmp_path / f"{name}.npz")[..., 0], images)
    assert load_tiles(tmp_path / "colour.npz").shape == (5, 4, 6, 3)
    np.testing.assert_array_equal(load_tiles(tmp_path / "plain.npz", limit=3)[..., 0], images[[0, 2, 4]])


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"other": np.zeros((2, 4, 4))}, "none of the keys"),
        ({"images": np.zeros((2, 4))}, "shape (2, 4)"),
        ({"images": np.zeros((0, 4, 4))}, "shape (0, 4, 4, 1)"),
        ({"images": np.full((2, 4, 4), "a")}, "<U1"),
        ({"images": np.full((2, 4, 4), None)}, "not a readable"),
    ],
)
def test_tiles_that_do_not_fit(arrays, word, tmp_path):
    path = tmp_path / "tiles.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as caught:
        load_tiles(path)
    assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04 cut"])
def test_tiles_that_cannot_be_read(content, tmp_path):
    path = tmp_path / "tiles.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"tiles\.npz"):
        load_tiles(path)


def test_tiles_behind_a_password(tmp_path):
    np.savez(tmp_path / "tiles.npz", images=np.zeros((2, 4, 4)))
    (tmp_path / "tiles.npz").write_bytes(locked((tmp_path / "tiles.npz").read_bytes()))
    with pytest.raises(InputError, match="password required"):
        load_tiles(tmp_path / "tiles.npz")


def test_a_bare_array_is_not_tiles(tmp_path):
    path = tmp_path / "tiles.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 4, 4)))
    with pytest.raises(InputError, match="not a readable"):
        load_tiles(path)


def test_random_tiles_are_the_same_each_time_and_cover_the_range():
    tiles = random_tiles((16, 24), 2)
    assert tiles.shape == (11, 16, 24, 2)
    np.testing.assert_array_equal(tiles, random_tiles((16, 24), 2))
    assert tiles[0].min() < 10
    assert tiles[0].max() > 245
    # Every second tile is blocks of 8 x 8.
    np.testing.assert_array_equal(tiles[1, 8:16, 16:24], np.broadcast_to(tiles[1, 8, 16], (8, 8, 2)))


def reshape_graph(target: list[int]) -> onnx.ModelProto:
    """A Relu, a Reshape of (batch, 4, 1, 1), a negation."""
    nodes = [
        helper.make_node("Relu", ["images"], ["a"]),
        helper.make_node("Reshape", ["a", "target"], ["b"]),
        helper.make_node("Neg", ["b"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "reshape",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 1, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [helper.make_tensor("target", TensorProto.INT64, [len(target)], target)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("target", "nodes"), [([-1, 4, 1, 1], 2), ([0, 4, 1, 1], 2), ([-1, 1, 1, 4], 3), ([-1, 4], 3), ([11, 4, 1, 1], 3)]
)
def test_only_plain_reshapes_go(target, nodes):
    after = drop_plain_reshapes(reshape_graph(target))
    assert count(after) == (nodes, 0)
    assert len(after.graph.initializer) == nodes - 2


def test_a_graph_without_its_plain_reshape_computes_the_same():
    images = np.random.default_rng(0).normal(size=(11, 1, 1, 4)).astype(np.float32)
    expected = -np.maximum(images, 0).transpose(0, 3, 1, 2)
    for model in (reshape_graph([-1, 4, 1, 1]), drop_plain_reshapes(reshape_graph([-1, 4, 1, 1]))):
        np.testing.assert_array_equal(run_onnx(model.SerializeToString(), images), expected)


def test_a_reshape_that_is_the_output_stays():
    model = reshape_graph([-1, 4, 1, 1])
    del model.graph.node[2]
    model.graph.node[1].output[0] = "logits"
    assert count(drop_plain_reshapes(model)) == (2, 0)


def computed_reshape(size: int | str = 6) -> onnx.ModelProto:
    """(batch, 4, 6, 1) to (batch x 6, 4), with a target computed from the input's shape."""
    nodes = [
        helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", "first and third"], ["some"]),
        helper.make_node("ReduceProd", ["some"], ["rows"], keepdims=1),
        helper.make_node("Concat", ["rows", "four"], ["target"], axis=0),
        helper.make_node("Reshape", ["turned", "target"], ["flat"]),
        helper.make_node("Neg", ["flat"], ["logits"]),
    ]
    held = {"first and third": [0, 2], "four": [4]}
    graph = helper.make_graph(
        nodes,
        "computed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, size, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [helper.make_tensor(name, TensorProto.INT64, [len(value)], value) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_computed_targets_become_constant():
    images = np.random.default_rng(0).normal(size=(5, 6, 1, 4)).astype(np.float32)
    after = fix_reshapes(computed_reshape())
    assert [node.op_type for node in after.graph.node] == ["Transpose", "Reshape", "Neg"]
    assert len(after.graph.initializer) == 1
    got, want = (run_onnx(model.SerializeToString(), images) for model in (after, computed_reshape()))
    np.testing.assert_array_equal(got, want)


def test_targets_that_follow_the_size_stay_computed():
    assert len(fix_reshapes(computed_reshape("width")).graph.node) == 7

"""Nodes and inputs as the onnx package reads them; pools that an exporter froze, and nets that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper

from engine.errors import ModelError
from engine.models import graph as graph_module
from engine.models import graph_facts
from engine.models.graph import MOST_INTEGERS, read_graph
from engine.models.graph_facts import frozen_pools
from tests.helpers.nets import save_graph, save_net

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["kernel_shape", "strides", "axis", "é"]),
    st.one_of(INTEGERS, st.lists(INTEGERS, min_size=1, max_size=4)),
    max_size=3,
)
OPEN = ("N", 3, "H", "W")


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Graphs that no runtime would take, but that are ONNX files: names, domains and integers of every kind."""
    nodes = []
    for _ in range(draw(st.integers(0, 4))):
        domain = draw(st.sampled_from(["", "ai.onnx", "com.other"]))
        inputs, outputs = draw(st.lists(TEXTS, max_size=3)), draw(st.lists(TEXTS, max_size=2))
        node = helper.make_node(draw(TEXTS), inputs, outputs, name=draw(TEXTS), domain=domain, **draw(ATTRIBUTES))
        node.attribute.append(helper.make_attribute("factor", draw(st.floats(-1, 1))))
        node.attribute.append(helper.make_attribute("mode", "linear"))
        nodes.append(node)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in draw(
            st.dictionaries(TEXTS, st.lists(st.one_of(INTEGERS, TEXTS.filter(bool), st.none()), max_size=4), max_size=3)
        ).items()
    ]
    weights = [helper.make_tensor("w", TensorProto.INT64, [2], draw(st.tuples(INTEGERS, INTEGERS)))]
    model = helper.make_model(helper.make_graph(nodes, draw(TEXTS), ports, [], weights))
    helper.set_model_props(model, draw(st.dictionaries(TEXTS, TEXTS, max_size=2)))
    return model


def operator(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def whole_numbers(node: onnx.NodeProto) -> dict[str, tuple[int, ...]]:
    kinds = {AttributeProto.INT: lambda item: (item.i,), AttributeProto.INTS: lambda item: tuple(item.ints)}
    return {item.name: kinds[item.type](item) for item in node.attribute if item.type in kinds}


def dimensions(port: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    sizes = port.type.tensor_type.shape.dim
    return tuple(getattr(size, size.WhichOneof("value")) if size.WhichOneof("value") else None for size in sizes)


@given(model=models())
@settings(max_examples=150, deadline=None)
def test_nodes_and_inputs_are_those_that_the_onnx_package_reads(model: onnx.ModelProto) -> None:
    raw = model.SerializeToString()
    read = read_graph(raw)
    theirs = onnx.load_model_from_string(raw).graph
    assert [(node.operator, node.name) for node in read.nodes] == [(operator(node), node.name) for node in theirs.node]
    assert [node.inputs for node in read.nodes] == [tuple(node.input) for node in theirs.node]
    assert [node.outputs for node in read.nodes] == [tuple(node.output) for node in theirs.node]
    assert [dict(node.integers) for node in read.nodes] == [whole_numbers(node) for node in theirs.node]
    assert dict(read.inputs) == {port.name: dimensions(port) for port in theirs.input}


def length(content: bytes) -> bytes:
    """A field's content behind its length, below 128."""
    return bytes([len(content)]) + content


def test_integers_may_be_packed() -> None:
    """As proto3 writes repeated numbers; the onnx package writes them one by one."""
    numbers = b"\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # 3, -1
    attribute = b"\x0a" + length(b"pads") + b"\x42" + length(numbers)
    node = b"\x22" + length(b"AveragePool") + b"\x2a" + length(attribute)
    raw = b"\x3a" + length(b"\x0a" + length(node))
    (read,) = read_graph(raw).nodes
    assert (read.operator, dict(read.integers)) == ("AveragePool", {"pads": (3, -1)})
    assert list(onnx.load_model_from_string(raw).graph.node[0].attribute[0].ints) == [3, -1]


@given(model=models(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_spoilt_files_end_in_one_way(model: onnx.ModelProto, data: st.DataObject) -> None:
    raw = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        read_graph(bytes(raw))
    except ValueError as error:
        assert not isinstance(error, UnicodeError)


def pooling_net(
    path: Path,
    kernels: tuple[tuple[int, int], ...] = ((4, 6),),
    *,
    operator: str = "AveragePool",
    strides: tuple[int, int] | None = None,
    pads: int = 0,
    between: int = 1,
    sized: bool = True,
    shape: tuple[int | str, ...] = OPEN,
) -> Path:
    """A pyramid: each pool, a convolution of a kernel, enlarged to the image's size or by a fixed factor, joined."""
    weights = {
        "w": np.ones((3, 3, between, between), np.float32),
        "none": np.zeros(0, np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "start": np.array([0], np.int64),
        "end": np.array([2], np.int64),
        "maps": np.array([3], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Slice", ["shape", "end", "far"], ["hw"]),
        helper.make_node("Slice", ["shape", "start", "end"], ["nc"]),
        helper.make_node("Concat", ["nc", "hw"], ["sizes"], axis=0),
    ]
    weights["far"] = np.array([4], np.int64)
    joined = ["image"]
    for index, kernel in enumerate(kernels):
        edge, half = [pads] * 4, between // 2
        nodes += [
            helper.make_node(
                operator, ["image"], [f"p{index}"], f"pool {index}",
                kernel_shape=kernel, strides=strides or kernel, pads=edge,
            ),
            helper.make_node("Conv", [f"p{index}", "w"], [f"c{index}"], pads=[half] * 4, kernel_shape=[between] * 2),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
            helper.make_node(
                "Resize",
                [f"r{index}", "", "", "sizes"] if sized else [f"r{index}", "", "twice"],
                [f"e{index}"],
                mode="linear",
            ),
        ]  # fmt: skip
        joined.append(f"e{index}")
    nodes.append(helper.make_node("Concat", joined, ["out"], axis=1))
    return save_graph(
        path,
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", "M", "H", "W"])],
        weights,
    )


def test_pools_of_a_fixed_kernel_in_a_net_of_open_size(tmp_path: Path) -> None:
    assert frozen_pools(pooling_net(tmp_path / "n.onnx")) == ["pool 0"]
    assert frozen_pools(pooling_net(tmp_path / "n.onnx", ((8, 8),), operator="MaxPool")) == ["pool 0"]
    assert frozen_pools(pooling_net(tmp_path / "n.onnx", ((2, 2), (3, 3)))) == ["pool 0", "pool 1"]
    assert frozen_pools(pooling_net(tmp_path / "n.onnx", ((2, 2), (1, 1)))) == ["pool 0", "pool 1"]
    assert frozen_pools(pooling_net(tmp_path / "n.onnx", shape=("N", 3, 64, "W"))) == ["pool 0"]


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (1, 3, 64, 96)},
        {"shape": ("N", 3, 64, 96)},
        {"kernels": ((2, 2),)},
        # DAPPM of DDRNet: windows that overlap.
        {"kernels": ((5, 5), (9, 9)), "strides": (2, 2), "pads": 2},
        {"kernels": ((4, 4),), "pads": 1},
        # A stage of an encoder: what looks at neighbours follows.
        {"kernels": ((4, 4),), "between": 3},
        # Enlarged by a fixed factor: the net was made so.
        {"sized": False},
    ],
)
def test_pools_that_a_net_was_made_with(options: dict[str, object], tmp_path: Path) -> None:
    assert frozen_pools(pooling_net(tmp_path / "n.onnx", **options)) == []


def gathered(path: Path, *, masked: bool = False, shaped: bool = True) -> Path:
    """Averages of gathered pixels, as torch writes a pool that does not divide the size it traced."""
    weights = {"index": np.zeros((2, 2, 2), np.int64), "axes": np.array([4, 5]), "zero": np.float32([0])}
    weights |= {"four": np.float32([4]), "one": np.array(1), "none": np.zeros(0, np.float32)}
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Expand", ["index", "shape"], ["indices"]),
        helper.make_node("GatherND", ["image", "indices" if shaped else "index"], ["pixels"], "window"),
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[4, 5, 0, 1, 2, 3]),
    ]
    if masked:
        nodes += [
            helper.make_node("Where", ["mask", "turned", "zero"], ["kept"]),
            helper.make_node("Gather", ["kept", "one"], ["a"], axis=5),
            helper.make_node("Gather", ["kept", "one"], ["b"], axis=4),
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Div", ["sum", "four"], ["mean"]),
        ]
        weights["mask"] = np.array([True])
    else:
        nodes.append(helper.make_node("ReduceMean", ["turned", "axes"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Resize", ["mean", "", "", "shape"], ["out"], mode="linear"))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(OPEN)) for name in ("image", "out")]
    return save_graph(path, nodes, ports[:1], ports[1:], weights)


@pytest.mark.parametrize("masked", [False, True])
def test_pools_that_are_written_as_gathers(masked: bool, tmp_path: Path) -> None:
    assert frozen_pools(gathered(tmp_path / "n.onnx", masked=masked)) == ["window"]
    assert frozen_pools(gathered(tmp_path / "n.onnx", masked=masked, shaped=False)) == []


def test_pools_that_are_laid_end_to_end(tmp_path: Path) -> None:
    """Keys and values of attention over a pyramid; one pool alone may be meant so."""
    weights = {"flat": np.array([0, 0, -1])}
    for kernels, expected in (((4, 8), ["p0", "p1"]), ((8,), [])):
        nodes, joined = [], []
        for index, side in enumerate(kernels):
            square = [side, side]
            nodes += [
                helper.make_node("AveragePool", ["image"], [f"p{index}"], kernel_shape=square, strides=square),
                helper.make_node("Reshape", [f"p{index}", "flat"], [f"f{index}"]),
                helper.make_node("Relu", [f"f{index}"], [f"r{index}"]),
            ]
            joined.append(f"r{index}")
        nodes.append(helper.make_node("Concat", joined, ["out"], axis=2))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(OPEN))
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3, "L"])
        assert frozen_pools(save_graph(tmp_path / "n.onnx", nodes, [image], [out], weights)) == expected


def test_ordinary_nets_and_other_files_show_nothing(tmp_path: Path) -> None:
    assert frozen_pools(save_net(tmp_path / "net.onnx")) == []
    for content in (b"", b"\x00", b"no model", bytes(1000), b"\x3a\xff\xff\xff\xff\x0f"):
        (tmp_path / "bad.onnx").write_bytes(content)
        assert frozen_pools(tmp_path / "bad.onnx") == []
    with pytest.raises(ModelError, match="cannot read"):
        frozen_pools(tmp_path / "absent.onnx")


def test_a_file_of_too_many_fields_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pooling_net(tmp_path / "n.onnx")
    monkeypatch.setattr(graph_module, "MOST_FIELDS", 60)
    assert frozen_pools(path) == []
    with pytest.raises(ValueError, match="too many fields"):
        read_graph(path.read_bytes())


def test_long_lists_of_integers_are_cut(tmp_path: Path) -> None:
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2] * 1000)
    graph = helper.make_graph([node], "net", [], [])
    (read,) = read_graph(helper.make_model(graph).SerializeToString()).nodes
    assert read.integers["kernel_shape"] == (2,) * MOST_INTEGERS


def test_every_node_is_met_a_few_times_however_they_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain below which every value is enlarged: a search from each of them would meet count ** 2 nodes."""
    count, met = 500, []
    nodes, last = [helper.make_node("Shape", ["image"], ["s"])], "image"
    for index in range(count):
        nodes.append(helper.make_node("Mul", [last, last], [f"v{index}"]))
        nodes.append(helper.make_node("Resize", [f"v{index}", "", "", "s"], [f"e{index}"]))
        last = f"v{index}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(OPEN)) for name in ("image", "e0")]
    monkeypatch.setattr(graph_facts, "_tiles", lambda node: met.append(node) or False)
    assert frozen_pools(save_graph(tmp_path / "n.onnx", nodes, ports[:1], ports[1:])) == []
    assert count <= len(met) <= 4 * count

"""engine inspect lists any ONNX file: what its inputs and outputs are, what is known, what stays open."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import Result
from tests.helpers.foreign import Form, save_foreign
from tests.helpers.nets import save_graph, save_member, save_net

Engine = Callable[..., Result]
FLOAT = TensorProto.FLOAT


def info(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: Sequence[str], output: str, **options: object) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], **options)


def identity(shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> tuple:
    return [node("Identity", ["x"], "y")], [info("x", shape, kind)], [info("y", shape, kind)]


def sequence(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, FLOAT, ["n", 1, "h", "w"])


IMAGE = info("x", ["n", 1, "h", "w"])
# name: nodes, inputs, outputs; a word of what is open.
ODD: dict[str, tuple[tuple, str]] = {
    "a vector": (identity(["n", 7]), "its input has rank 2"),
    "a scalar": (identity([]), "its input has rank 0"),
    "video": (identity(["n", 3, "t", "h", "w"]), "its input has rank 5"),
    "texts": (identity(["n", 1, "h", "w"], TensorProto.STRING), "it takes tensor(string)"),
    "whole numbers": (identity(["n", 1, "h", "w"], TensorProto.INT64), "it takes int64"),
    "no input": (([node("Constant", [], "y", value_float=1.0)], [], [info("y", [])]), "it takes no input"),
    "classifier": (
        ([node("ReduceMean", ["x"], "y", axes=[2, 3], keepdims=0)], [IMAGE], [info("y", ["n", 1])]),
        "maps of rank 4, or labels of rank 3, are needed",
    ),
    "two images": (
        ([node("Add", ["x", "z"], "y")], [IMAGE, info("z", ["n", 1, "h", "w"])], [info("y", ["n", 1, "h", "w"])]),
        "it takes 2 inputs, x float32 (n, 1, h, w), z float32 (n, 1, h, w)",
    ),
    "a further input": (
        ([node("Mul", ["x", "z"], "y")], [IMAGE, info("z", [1])], [info("y", ["n", 1, "h", "w"])]),
        "its input z float32 (1) is no image: state its value in its TOML file",
    ),
    "a sequence in": (
        (
            [node("SequenceAt", ["x", "zero"], "y"), ],
            [sequence("x"), info("zero", [], TensorProto.INT64)],
            [info("y", ["n", 1, "h", "w"])],
        ),
        "it takes 2 inputs",
    ),
    "a sequence out": (
        ([node("SequenceConstruct", ["x"], "y")], [IMAGE], [sequence("y")]),
        "maps of rank 4, or labels of rank 3, are needed",
    ),
    "a side of 0": (identity(["n", 1, 0, 16]), "size: (0, 16); both sides must be above 0"),
    "channels of 0": (identity(["n", 0, 16, 16]), "both sides must be above 0"),
    "a batch of 0": (identity([0, 1, 16, 16]), ""),
    "65 channels": (identity(["n", 65, 16, 16]), ""),
    "pooled away": (
        ([node("GlobalAveragePool", ["x"], "y")], [IMAGE], [info("y", ["n", 1, 1, 1])]),
        "maps must have the input's sides or a whole fraction of them",
    ),
    "a patch too many": (
        ([node("Pad", ["x", "ends"], "y")], [IMAGE], [info("y", ["n", 1, None, None])],
         {"ends": np.array([0, 0, 1, 1, 0, 0, 0, 0], np.int64)}),
        "maps must have the input's sides",
    ),
    "many maps": (
        ([node("Tile", ["x", "often"], "y")], [IMAGE], [info("y", ["n", 300, "h", "w"])],
         {"often": np.array([1, 300, 1, 1], np.int64)}),
        "300 of them; allowed are 2 to 256",
    ),
    "it never runs": (
        ([node("Reshape", ["x", "shape"], "y")], [IMAGE], [info("y", ["n", 1, 5, 5])],
         {"shape": np.array([1, 1, 5, 5], np.int64)}),
        "it does not run on an image of 128x128, nor on 256x256, 224x224, 512x512",
    ),
    "far too large": (identity(["n", 3, 200_000, 200_000]), "too large"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_listed(name: str, tmp_path: Path, engine: Engine) -> None:
    graph, told = ODD[name]
    path = save_graph(tmp_path / "odd net.onnx", *graph)
    done = engine("inspect", path, "--scale", 1, "--json")
    assert (done.code, done.err.split(maxsplit=1)[0], done.err.count("\n")) == (0, "next:", 1)
    (row,) = json.loads(done.out)
    assert len(row["inputs"]) == len(graph[1])
    assert len(row["outputs"]) == len(graph[2])
    assert told in " ".join(row["open"])
    plain = engine("inspect", path, "--scale", 1)
    assert (plain.code, plain.err) == (0, done.err)
    assert "odd net" in plain.out
    assert told in plain.out


def test_good_odd_and_unreadable_files_are_all_listed(tmp_path: Path, engine: Engine) -> None:
    save_member(tmp_path / "a.onnx")
    save_net(tmp_path / "b.onnx", two_outputs=True, end="sigmoid")
    save_graph(tmp_path / "c.onnx", *ODD["a vector"][0])
    (tmp_path / "d.onnx").write_bytes(b"no model")
    save_foreign(tmp_path / "e.onnx", Form(ending="labels3", batch=1))
    done = engine("inspect", tmp_path, "--json")
    assert done.code == 2
    rows = {Path(row["model"]).name: row for row in json.loads(done.out)}
    assert sorted(rows) == [f"{letter}.onnx" for letter in "abcde"]
    assert rows["a.onnx"]["open"] == []
    assert rows["b.onnx"]["adapted"] == ["output out is read of aux, out"]
    asked = " ".join(rows["b.onnx"]["open"])
    assert "--scale 1/255" in asked
    assert "--activation logits or --activation probabilities" in asked
    assert rows["b.onnx"]["inputs"] == ["image float32 (N, 1, H, W)"]
    assert "cannot open" in rows["d.onnx"]["error"]
    assert done.err.count("\n") == 1
    assert "--classes background,road" in " ".join(rows["e.onnx"]["open"])
    plain = engine("inspect", tmp_path)
    assert plain.code == 2
    for text in ("c.onnx: inputs: x float32 (n, 7)", "c.onnx: open: its input has rank 2", "b.onnx: open: "):
        assert text in plain.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--classes", "a,b"), "2 classes are stated, it outputs 5 maps"),
        (("--output-name", "none"), "it has no output 'none'; there are: out"),
        (("--channel-order", "bgr"), "channel_order: bgr for 1 channels, not 3"),
        (("--foreground-threshold", "0.3"), "the kind multiclass has no foreground"),
        (("--mean", "0.5", "--std", "0.5"), "nothing says how raw pixels come to that"),
    ],
)
def test_what_is_stated_and_does_not_fit_is_listed_too(
    options: tuple[str, ...], told: str, tmp_path: Path, engine: Engine
) -> None:
    save_net(tmp_path / "net.onnx")
    done = engine("inspect", tmp_path / "net.onnx", *options, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert told in " ".join(row["open"])


def test_a_broken_contract_is_listed_as_open(tmp_path: Path, engine: Engine) -> None:
    save_net(tmp_path / "net.onnx", metadata="{")
    done = engine("inspect", tmp_path / "net.onnx", "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert "the contract in the metadata is not JSON" in row["open"][0]


def test_outputs_are_named_by_file_as_in_a_run(tmp_path: Path, engine: Engine) -> None:
    nets = [save_net(tmp_path / f"{name}.onnx", two_outputs=True) for name in "ab"]
    named = ("--output-name", "a=aux", "--output-name", f"{nets[1]}=out")
    done = engine("inspect", *nets, "--scale", 1, *named, "--json")
    assert [row["output"].split()[0] for row in json.loads(done.out)] == ["aux", "out"]
    done = engine("inspect", *nets, "--output-name", "c=aux")
    assert (done.code, done.out) == (2, "")
    assert "c is not a member; members: a.onnx, b.onnx" in done.err

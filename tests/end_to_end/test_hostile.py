"""Files made to do harm: refused in one line, within seconds and a bounded amount of memory, nothing written."""

from __future__ import annotations

import ast
import gc
import json
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from engine.errors import InputError, ModelError, PlanError
from engine.models.contract import ModelContract
from engine.models.external_data import external_files, model_checksum, model_size
from engine.models.opening import open_net
from engine.runs.plan import read_plan
from engine.sources.labels import open_labels
from engine.sources.open import open_source
from tests.conftest import ROOT, Result
from tests.helpers.hostile import ARRAYS, HUGE, PICTURES, PLANS, SUBMISSIONS
from tests.helpers.nets import FIVE, save_graph, save_member, save_net
from tests.helpers.world import World


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str, tmp_path: Path) -> None:
    file, write, told = ARRAYS[name]
    write(tmp_path / file)
    assert (tmp_path / file).stat().st_size < 20_000
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as refused:
        open_source(tmp_path / file)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert time.process_time() - began < 5


def test_a_group_of_several_damaged_arrays_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The package opens them at once; asyncio would print a traceback for each beyond the first."""
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    for name in ("images", "labels"):
        group.create_array(name, data=np.zeros((3, 4, 5), np.uint8))
        file = tmp_path / "x.zarr" / name / "zarr.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "chunk_key_encoding": {"name": "none"}}))
    with pytest.raises(InputError, match=r"^[^\n]*x\.zarr[^\n]*$"):
        open_source(tmp_path / "x.zarr")
    gc.collect()
    assert not caplog.records


def test_an_archive_of_too_many_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for index in range(10_001):
            archive.writestr(f"{index}.npy", b"")
    with pytest.raises(InputError, match="holds 10001 members"):
        open_source(tmp_path / "x.npz")


def test_an_honest_archive_of_zeros_is_read(tmp_path: Path) -> None:
    """Nothing compresses better than this."""
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((300, 64, 128), np.uint8))
    assert sum(len(batch.ids) for batch in open_source(tmp_path / "x.npz").batches(64)) == 300


def test_columns_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sources.numpy_files.memory_bound", lambda: 1000)
    np.savez(tmp_path / "x.npz", images=np.asfortranarray(np.zeros((9, 8, 16), np.uint8)))
    with pytest.raises(InputError, match="column by column"):
        list(open_source(tmp_path / "x.npz").batches(2))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str, tmp_path: Path) -> None:
    write, told = PICTURES[name]
    (tmp_path / "tiles").mkdir()
    write(tmp_path / "tiles" / "a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=told):
        list(open_source(tmp_path / "tiles").batches(1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_escape_sequences_in_names_do_not_reach_the_terminal(
    world: World, tmp_path: Path, engine: Callable[..., Result]
) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    Image.fromarray(world.images[0]).save(folder / "a\x1b[2Jb.png")
    refused = engine("ensemble", "-m", world.models, "-i", folder, "-o", tmp_path / "m.csv")
    assert (refused.code, "control character" in refused.err, "\x1b" in refused.err) == (2, True, False)
    model = save_member(tmp_path / "net\x1b[2J.onnx")
    done = engine(
        "ensemble", "-m", model, "-i", world.images_file, "--labels", world.labels_file,
        "-o", tmp_path / "out\x1b[31m.csv",
    )  # fmt: skip
    assert done.code == 0
    assert "\x1b[2J" not in done.out
    assert "\x1b" not in done.err


@pytest.mark.parametrize(("lines", "told"), SUBMISSIONS)
def test_submissions(lines: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text(lines)
    with pytest.raises(InputError) as refused:
        list(open_labels(tmp_path / "y.csv").batches(4))
    assert told in str(refused.value)


def test_a_submission_without_line_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sources.text_rows.MOST_LINE", 1000)
    (tmp_path / "y.csv").write_bytes(b"id,0\n0," + b"1" * 5000)
    with pytest.raises(InputError, match="a line of more than 1000 bytes"):
        list(open_labels(tmp_path / "y.csv").batches(4))


def outside(path: Path, location: str) -> Path:
    """A net whose first weights lie in another file."""
    save_member(path)
    model = onnx.load(path)
    tensor = next(item for item in model.graph.initializer if item.name == "w1")
    data = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(len(data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    (path.parent / "weights.bin").write_bytes(data)
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin", "", "a/../../secret.bin", "\0"])
def test_weights_outside_the_models_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside its own folder"):
        open_net(outside(folder / "net.onnx", location))


def test_weights_beside_the_model_are_read_and_part_of_its_checksum(world: World, tmp_path: Path) -> None:
    path = outside(tmp_path / "net.onnx", "weights.bin")
    member = open_net(path, sample=world.images[0][..., None])
    plain = open_net(save_member(tmp_path / "plain.onnx"))
    assert model_size(path) == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    prepared = member.prepare(world.images[..., None])
    np.testing.assert_array_equal(member.session.run("out", prepared), plain.session.run("out", prepared))
    (tmp_path / "weights.bin").write_bytes(bytes((tmp_path / "weights.bin").stat().st_size))
    assert open_net(path).checksum != member.checksum
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights.bin, which is not there"):
        open_net(path)
    assert model_checksum(world.models / "a.onnx") == open_net(world.models / "a.onnx").checksum


def test_weights_are_found_wherever_a_graph_can_hold_them(tmp_path: Path) -> None:
    """In an attribute of a node of a branch of an If, as the onnx package writes it."""
    tensor = TensorProto(dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../deep.bin"
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, [1])])
    choice = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    path = save_graph(tmp_path / "n.onnx", [choice], [helper.make_tensor_value_info("x", 9, [])], [])
    with pytest.raises(ModelError, match=r"'../deep.bin', outside"):
        external_files(path, path.read_bytes())


def test_operators_that_only_a_library_brings(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, 1, ["N", 5, "H", "W"]) for name in ("image", "out")]
    node = helper.make_node("Evil", ["image"], ["out"], domain="com.evil")
    graph = helper.make_graph([node], "net", ports[:1], ports[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.evil", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"com\.evil:Evil"):
        open_net(tmp_path / "net.onnx")


def test_a_net_that_wants_terabytes(world: World, tmp_path: Path, engine: Callable[..., Result]) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["image", "sum"], ["more"]),
        helper.make_node("Concat", ["more"] * 5, ["out"], axis=1),
    ]
    ports = [helper.make_tensor_value_info("image", 1, ["N", 1, "H", "W"])]
    ends = [helper.make_tensor_value_info("out", 1, ["N", 5, "H", "W"])]
    path = save_graph(
        tmp_path / "net.onnx", nodes, ports, ends, metadata=ModelContract(FIVE, input_layout="NCHW", ignored_class=0)
    )
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [1], [HUGE]))
    path.write_bytes(model.SerializeToString())
    refused = engine("ensemble", "-m", path, "-i", world.images_file, "-o", tmp_path / "m.csv")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "net.onnx fails on a batch" in refused.err


@pytest.mark.parametrize("text", PLANS)
def test_plans(text: str, world: World, tmp_path: Path, engine: Callable[..., Result]) -> None:
    save_member(tmp_path / "a.onnx")
    save_net(tmp_path / "bare.onnx")
    plan = tmp_path / "plan.toml"
    plan.write_text("[[members]]\n" + text)
    began = time.process_time()
    refused = engine("ensemble", "--plan", plan, "-i", world.images_file, "-o", tmp_path / "m.csv")
    assert time.process_time() - began < 5
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "bare.onnx", "plan.toml"]


def test_a_plan_that_never_ends(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such plan"):
        read_plan(Path("/dev/zero"))


def test_nothing_is_unpickled_or_evaluated_anywhere() -> None:
    forbidden = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
    called = {"eval", "exec", "compile", "__import__"}
    for path in sorted(path for top in ("engine", "exporters", "trainers") for path in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.partition(".")[0] for name in names}, path
            if not isinstance(node, ast.Call):
                continue
            assert not (isinstance(node.func, ast.Name) and node.func.id in called), f"{path}:{node.lineno}"
            options = {word.arg: word.value for word in node.keywords}
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "np.load":
                allowed = options.get("allow_pickle")
                assert isinstance(allowed, ast.Constant), f"{path}:{node.lineno}"
                assert allowed.value is False, f"{path}:{node.lineno}"
            assert ast.unparse(node.func) not in ("torch.load", "np.fromfile"), f"{path}:{node.lineno}"
            unsafe = options.get("safe_mode")
            assert not (isinstance(unsafe, ast.Constant) and unsafe.value is False), f"{path}:{node.lineno}"

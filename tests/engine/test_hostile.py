"""Files made to do harm: refused in one line, within seconds and a bounded amount of memory, nothing written."""

from __future__ import annotations

import ast
import io
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from engine.contract import ModelContract
from engine.errors import InputError, ModelError, PlanError
from engine.external_data import external_files, model_checksum
from engine.images import open_source
from engine.labels import open_labels
from engine.plan import read_plan
from engine.sessions import open_member
from tests.conftest import ROOT, Result
from tests.engine.conftest import World
from tests.engine.nets import FIVE, save_graph, save_member, save_net

HUGE = 10**12
Write = Callable[[Path], object]


def npy(shape: str, data: bytes = b"", descr: str = "'|u1'", order: str = "False", version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def npz(content: bytes, declared: int = 0, name: str = "images.npy", method: int = zipfile.ZIP_DEFLATED) -> Write:
    """An archive of one member that declares another size than it has."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr(zipfile.ZipInfo(name), content, method)
            if declared:
                archive.filelist[0].file_size = declared

    return write


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def header_bomb(path: Path) -> None:
    """A header of 4 GB of spaces, which deflates to next to nothing."""
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 10**7
    npz(content)(path)


def overlong_central(path: Path) -> None:
    npz(npy("(7, 8, 16)", bytes(896)), method=zipfile.ZIP_STORED)(path)
    held = bytearray(path.read_bytes())
    at = held.index(b"PK\1\2")
    held[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(held)


ARRAYS: dict[str, tuple[str, Write, str]] = {
    "npy of 10^12 bytes": ("x.npy", raw(npy(f"({HUGE}, 1, 1)", b"abc")), f"declares {HUGE} bytes"),
    "npy of negative sides": ("x.npy", raw(npy("(-7, -8, 16)", bytes(896))), "declares the shape"),
    "npy of truths as sides": ("x.npy", raw(npy("(True, 8, 16)", bytes(128))), "declares the shape"),
    "npy of 10^40 rows": ("x.npy", raw(npy(f"({10**40}, 0, 1)")), "declares the shape"),
    "npy whose shape is no tuple": ("x.npy", raw(npy("7")), "x.npy"),
    "npy whose header is code": ("x.npy", raw(npy("__import__('os').getcwd()")), "x.npy"),
    "npy of deep brackets": ("x.npy", raw(npy("(" * 4000 + ")" * 4000)), "x.npy"),
    "npy of an unknown type": ("x.npy", raw(npy("(1, 1, 1)", b"a", "'|Q9'")), "x.npy"),
    "npy of records": ("x.npy", raw(npy("(1, 1, 1)", b"a", "[('a', '|u1')]")), "bool, whole numbers or floats"),
    "npy of pickles": ("x.npy", raw(npy("(1, 1, 1)", b"cos\nsystem\n.", "'|O'")), "pickled Python objects"),
    "npy of format 9": ("x.npy", raw(npy("(1, 1, 1)", b"a", version=1).replace(b"\1\0", b"\x09\0", 1)), "version"),
    "npz that claims 10^12 bytes": ("x.npz", npz(npy(f"({HUGE}, 1, 1)"), HUGE + 128), "more than a file of"),
    "npz in lzma that claims 10^12": (
        "x.npz",
        npz(npy(f"({HUGE}, 1, 1)"), HUGE + 128, method=zipfile.ZIP_LZMA),
        "more than a file of",
    ),
    "npz whose directory claims 2 GB": ("x.npz", overlong_central, "more than a file of"),
    "npz whose header is a bomb": ("x.npz", header_bomb, "declares a header of 4294967295 bytes"),
    "npz with a way up": ("x.npz", npz(npy("(1, 1, 1)", b"a"), name="../../images.npy"), "no array's name"),
    "npz with a way from the root": ("x.npz", npz(npy("(1, 1, 1)", b"a"), name="/etc/images.npy"), "no array's name"),
    "npz with an escape sequence": ("x.npz", npz(npy("(1, 1, 1)", b"a"), name="a\x1b[31m.npy"), "no array's name"),
    "npz column by column": (
        "x.npz",
        npz(npy("(2, 8, 16)", bytes(256), order="True").replace(b"(2, 8, 16)", b"(3, 8, 16)")),
        "declares 384 bytes and holds 256",
    ),
}


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
    monkeypatch.setattr("engine.arrays.memory_bound", lambda: 1000)
    np.savez(tmp_path / "x.npz", images=np.asfortranarray(np.zeros((9, 8, 16), np.uint8)))
    with pytest.raises(InputError, match="column by column"):
        list(open_source(tmp_path / "x.npz").batches(2))


def png_bomb(path: Path) -> None:
    """30,000 x 30,000 grey pixels in the header, and next to nothing behind it."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b"0"), b"IEND")
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def eps(path: Path) -> None:
    """PostScript that Pillow would hand to a program of the system."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 8\n%%EndComments\n(x) run\n%%EOF\n")


def text_bomb(path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(stream, "PNG")
    held = stream.getvalue()
    chunk = b"zTXtComment\0\0" + zlib.compress(bytes(10**8), 9)
    bomb = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(held[:33] + bomb + held[33:])


@pytest.mark.parametrize(
    ("write", "told"), [(png_bomb, "too large to decode"), (eps, "cannot read the image"), (text_bomb, "cannot read")]
)
def test_pictures(write: Write, told: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("id_class,rle\n0_1,1 99999999999999\n", "more than 268435456 pixels"),
        ("id_class,rle\n" + "".join(f"0_{c},{'1 999999999999999 ' * 50}\n" for c in range(9)), "more than 268435456"),
        ("id_class,rle\n" + "".join(f"{i},1 1\n" for i in range(3)), "the image's id, _ and a class"),
        ("id_class,rle\n0_1,1 -5\n", "pairs of start and length"),
        ("id_class,rle\n0_1,1 1e9\n", "pairs of start and length"),
        ("id_class,rle\n0_256,1 5\n", "class from 0 to 255"),
        ("id,0,1\n0,1,9999999999999999999999\n", "whole numbers from 0 to 255"),
        ("id,0,1\n0,=cmd(),1\n", "whole numbers from 0 to 255"),
        ("id,0,1\n0,\u0661,1\n", "whole numbers from 0 to 255"),
        ("id,1,0\n", "is no submission"),
        ("\0" * 100, "is no submission"),
    ],
)
def test_submissions(lines: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text(lines)
    with pytest.raises(InputError) as refused:
        list(open_labels(tmp_path / "y.csv").batches(4))
    assert told in str(refused.value)


def test_a_submission_without_line_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sources.submission.MOST_LINE", 1000)
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
        open_member(outside(folder / "net.onnx", location))


def test_weights_beside_the_model_are_read_and_part_of_its_checksum(world: World, tmp_path: Path) -> None:
    path = outside(tmp_path / "net.onnx", "weights.bin")
    member = open_member(path, sample=world.images[0][..., None])
    plain = open_member(save_member(tmp_path / "plain.onnx"))
    prepared = member.prepare(world.images[..., None])
    np.testing.assert_array_equal(member.session.run("out", prepared), plain.session.run("out", prepared))
    (tmp_path / "weights.bin").write_bytes(bytes((tmp_path / "weights.bin").stat().st_size))
    assert open_member(path).checksum != member.checksum
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights.bin, which is not there"):
        open_member(path)
    assert model_checksum(world.models / "a.onnx") == open_member(world.models / "a.onnx").checksum


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
        open_member(tmp_path / "net.onnx")


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


@pytest.mark.parametrize(
    "text",
    [
        'model = "\\u0000"',
        'model = "/dev/zero"',
        'model = "/dev/stdin"',
        'model = "../../../../etc/passwd"',
        'model = "/**/*.onnx"',
        'model = "a.onnx"\nweight = 1' + "0" * 400,
        'model = "a.onnx"\nweight = -1',
        'model = "a.onnx"\nweight = nan',
        'model = "a.onnx"\nweight = inf',
        'model = "a.onnx"\nweight = true',
        'model = "a.onnx"\nweight = [[1]]',
        'model = "a.onnx"\nsha256 = "zz"',
        'model = "a.onnx"\npath = "b.onnx"',
        'model = "bare.onnx"\n[members.contract]\nclasses = ["a\\u001b", "b", "c", "d", "e"]',
        'model = "bare.onnx"\n[members.contract]\nscale = 1e999',
        'model = "bare.onnx"\n[members.contract]\nnotes = 1979-05-27',
        "model = 1979-05-27",
        "a = " + "[" * 5000,
        "a" * 1_000_001,
    ],
)
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

"""Files that are broken in one certain way each, written into the current folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from tests.helpers.nets import save_graph, save_member, save_specialists
from tests.helpers.world import World

Arrange = Callable[[World], object]


def text(name: str, content: str) -> Arrange:
    return lambda world: Path(name).write_text(content)


def cut(source: str, name: str, size: int) -> Arrange:
    """The first bytes of one of the world's files."""

    def write(world: World) -> None:
        whole = Path(source.format(models=world.models, images=world.images_file)).read_bytes()
        assert len(whole) > size
        Path(name).write_bytes(whole[:size])

    return write


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _npz(content: bytes, method: int = zipfile.ZIP_STORED) -> bytearray:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("images.npy", content)
    return bytearray(stream.getvalue())


def locked_npz(world: World) -> None:
    """An archive whose flags say that a password is needed."""
    Path("x.npz").write_bytes(locked(_npz(_npy(world.images))))


def locked(archive: bytes) -> bytes:
    """Return an archive whose first member says that it needs a password."""
    raw = bytearray(archive)
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    return bytes(raw)


def damaged_lzma(world: World) -> None:
    raw = _npz(_npy(world.images), zipfile.ZIP_LZMA)
    start = raw.index(b"images.npy") + len("images.npy")
    raw[start + 20 : start + 60] = bytes(40)
    Path("x.npz").write_bytes(raw)


def torn_header(world: World) -> None:
    raw = _npy(world.images)
    Path("x.npy").write_bytes(raw.replace(b"(7, 8, 16)", b"(7, 8, 16 "))


def lying_header(world: World) -> None:
    Path("x.npz").write_bytes(_npz(_npy(world.images).replace(b"(7, 8, 16)", b"(9, 8, 16)")))


def pictures(**shapes: tuple[int, ...]) -> Arrange:
    def write(world: World) -> None:
        Path("tiles").mkdir()
        for name, shape in shapes.items():
            Image.fromarray(np.full(shape, 90, np.uint8)).save(Path("tiles") / f"{name}.png")

    return write


def corrupt_picture(world: World) -> None:
    pictures(a=(8, 16))(world)
    stream = io.BytesIO()
    Image.fromarray(world.images[1]).save(stream, "PNG")
    Path("tiles/b.png").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])


def text_as_picture(world: World) -> None:
    pictures(a=(8, 16))(world)
    Path("tiles/b.png").write_text("hello")


def one_stem_twice(world: World) -> None:
    pictures(a=(8, 16))(world)
    Image.open("tiles/a.png").save("tiles/a.bmp")


def mixed_depths(world: World) -> None:
    pictures(a=(8, 16))(world)
    Image.fromarray(np.zeros((8, 16), np.uint16)).save("tiles/b.png")


def garbled_names(world: World) -> None:
    raw = (world.models / "a.onnx").read_bytes()
    Path("net.onnx").write_bytes(raw.replace(b"maskfuse.contract", b"maskfuse.contra\xff\xff"))


def _graph(inputs: list[object], node: str, kind: int = TensorProto.FLOAT, rank: int = 4) -> None:
    output = helper.make_tensor_value_info("out", kind, ["N", 1, "H", "W"][:rank])
    names = [item.name for item in inputs]  # type: ignore[attr-defined]
    save_graph(Path("net.onnx"), [helper.make_node(node, names, ["out"])], inputs, [output])  # type: ignore[arg-type]


def scalar_net(world: World) -> None:
    _graph([helper.make_tensor_value_info("x", TensorProto.FLOAT, [])], "Identity", rank=0)


def whole_number_net(world: World) -> None:
    kind = TensorProto.INT64
    _graph([helper.make_tensor_value_info("x", kind, ["N", 1, "H", "W"])], "Identity", kind)


def two_input_net(world: World) -> None:
    _graph([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, "H", "W"]) for name in "xy"], "Add")


def class_twice(world: World) -> None:
    save_specialists(Path("set"))
    promised = {"kind": "specialist", "class_id": 1, "group": "set"}
    save_member(Path("set/one_more.onnx"), 9, promised=promised)


def _csv(rows: list[tuple[str, list[str]]], pixels: int = 128) -> None:
    lines = [",".join(["id", *map(str, range(pixels))]), *(",".join([name, *values]) for name, values in rows)]
    Path("y.csv").write_text("\n".join(lines) + "\n")


def csv_of(value: str) -> Arrange:
    return lambda world: _csv([(str(index), [value] * 128) for index in range(7)])


def ragged_csv(world: World) -> None:
    _csv([(str(index), ["1"] * (127 if index == 1 else 128)) for index in range(7)])


def csv_of_others(world: World) -> None:
    _csv([(name, ["1"] * 128) for name in "klmnopq"])
    Path("y.csv").rename("z.csv")
    _csv([(f"a{index}", ["1"] * 128) for index in range(7)])


def jpeg_truth(world: World) -> None:
    Path("truth").mkdir()
    Image.fromarray(world.labels[0]).save("truth/0.jpg")


def csv_without_rows(world: World) -> None:
    _csv([])

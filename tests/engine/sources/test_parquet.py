"""Parquet files as other programs write them: read like any array, bounded, damage told in one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import EngineError, InputError
from engine.sources.base import Source
from engine.sources.coding import LabelCoding
from engine.sources.fingerprint import fingerprint
from engine.sources.labels import as_labels, open_labels
from engine.sources.open import open_source
from tests.conftest import ROOT, Result
from tests.helpers.properties import examples
from tests.helpers.world import World

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

SHAPES = [(23, 4, 6), (23, 4, 6, 3), (23, 3, 4, 6)]


def stack(shape: tuple[int, ...] = SHAPES[0], kind: str = "uint8") -> np.ndarray:
    return np.random.default_rng(4).integers(0, 250, shape).astype(kind)


def last(pixels: np.ndarray) -> np.ndarray:
    """Return (n, height, width, channels)."""
    if pixels.ndim == 3:
        return pixels[..., None]
    return pixels if pixels.shape[3] in (1, 3) else pixels.transpose(0, 2, 3, 1)


def encoded(image: np.ndarray, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, form)
    return stream.getvalue()


def save(path: Path, table: Any, rows: int = 5) -> Path:
    parquet.write_table(table, path, row_group_size=rows)
    return path


def flat(pixels: np.ndarray) -> list[np.ndarray]:
    return [image.reshape(-1) for image in pixels]


def tensors(path: Path, pixels: np.ndarray) -> Path:
    array = arrow.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    return save(path, arrow.table({"image": array}))


def lists(path: Path, pixels: np.ndarray) -> Path:
    table = arrow.table({"image": flat(pixels)})
    return save(path, table.replace_schema_metadata({"shape": json.dumps(pixels.shape[1:])}))


def fixed_lists(path: Path, pixels: np.ndarray) -> Path:
    size = int(np.prod(pixels.shape[1:]))
    array = arrow.FixedSizeListArray.from_arrays(pixels.reshape(-1), size)
    field = arrow.field("image", array.type, metadata={"shape": json.dumps(pixels.shape[1:])})
    return save(path, arrow.table([array], schema=arrow.schema([field])))


def nested(path: Path, pixels: np.ndarray) -> Path:
    import pandas

    # Lists of lists, as a data frame of Python lists becomes.
    pandas.DataFrame({"image": [image.tolist() for image in pixels]}).to_parquet(path, row_group_size=4)
    return path


WRITERS = [tensors, lists, fixed_lists, nested]


def check(source: Source, want: np.ndarray) -> None:
    """The source holds these images, read in turn and from anywhere."""
    assert (source.size, source.channels, len(source)) == (want.shape[1:3], want.shape[3], len(want))
    for size in (1, 7, 64):
        np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in source.batches(size)]), want)
    assert source.at is not None
    for start, stop in ((20, 23), (0, 3), (3, 9), (4, 6), (9, 23), (0, 23)):
        np.testing.assert_array_equal(source.at(start, stop), want[start:stop])


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_pixels_of_every_kind(
    write: Callable[[Path, np.ndarray], Path], shape: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    pixels = stack(shape, kind)
    source = open_source(write(tmp_path / "x.parquet", pixels))
    check(source, last(pixels))
    assert not source.named
    assert list(source.ids) == [str(row) for row in range(len(pixels))]


@pytest.mark.parametrize("kind", [arrow.binary(), arrow.large_binary(), arrow.binary(4 * 6 * 3)])
@pytest.mark.parametrize("columns", [("height", "width"), ("height", "width", "channels")])
def test_bytes_with_their_size_in_columns(kind: Any, columns: tuple[str, ...], tmp_path: Path) -> None:
    pixels = stack(SHAPES[1])
    sides = {name: [side] * len(pixels) for name, side in zip(columns, pixels.shape[1:], strict=False)}
    values = arrow.array([image.tobytes() for image in pixels], kind)
    check(open_source(save(tmp_path / "x.parquet", arrow.table({"pixels": values, **sides}))), pixels)


@pytest.mark.parametrize("wrapped", [True, False])
def test_pictures_as_hugging_face_stores_them(wrapped: bool, tmp_path: Path) -> None:
    pixels = stack(SHAPES[1])
    held = [encoded(image) for image in pixels]
    column = [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(held)] if wrapped else held
    told = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}
    table = arrow.table({"label": [1] * len(pixels), "image": column}).replace_schema_metadata(told)
    check(open_source(save(tmp_path / "x.parquet", table)), pixels)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_picture_of_as_many_bytes_as_pixels_is_a_picture(form: str, tmp_path: Path) -> None:
    """Its size may be any multiple of height times width: then it has the length of one channel, or of several."""
    pixels = np.arange(23 * 40 * 50, dtype=np.uint32).reshape(23, 40, 50) // 4000 % 256
    held = [encoded(image.astype(np.uint8), form) for image in pixels]
    length = -(-max(map(len, held)) // 2000) * 2000
    held = [data + bytes(length - len(data)) for data in held]
    want = np.stack(
        [np.asarray(Image.open(io.BytesIO(data)).convert("RGB" if form == "WEBP" else "L")) for data in held]
    )
    table = arrow.table({"image": held, "height": [40] * 23, "width": [50] * 23})
    check(open_source(save(tmp_path / "x.parquet", table)), want.reshape(23, 40, 50, -1))


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"BM", b"P5", b"P6\n", b"RIFF", b"\x89PNG"])
def test_pixels_that_begin_as_a_picture_does_are_pixels(start: bytes, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (23, 40, 50)).astype(np.uint8)
    pixels.reshape(23, -1)[:, : len(start)] = np.frombuffer(start, np.uint8)
    table = arrow.table({"image": [image.tobytes() for image in pixels], "height": [40] * 23, "width": [50] * 23})
    check(open_source(save(tmp_path / "x.parquet", table)), pixels[..., None])


def test_int64_label_maps_as_hugging_face_stores_them(tmp_path: Path) -> None:
    """Its datasets write whole numbers of 64 bits as 32-bit TIFFs, in a struct of bytes and path."""
    ids = np.array([0, 7, 11, 1000])
    labels = np.random.default_rng(4).integers(0, 4, (9, 4, 6))
    rows = [{"bytes": encoded(image, "TIFF"), "path": None} for image in ids[labels].astype(np.int32)]
    path = save(tmp_path / "x.parquet", arrow.table({"mask": rows}))
    held = parquet.read_table(path)["mask"].to_pylist()
    stored = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in held])
    np.testing.assert_array_equal(stored, ids[labels])
    batches = open_labels(f"{path}:mask", LabelCoding(1000, (0, 7, 11))).batches(4)
    got = np.concatenate([as_labels(batch, 3, "x") for batch in batches])
    np.testing.assert_array_equal(got, np.where(labels == 3, 255, labels).reshape(9, -1))


def test_tensors_with_permuted_axes_are_refused(tmp_path: Path) -> None:
    array = arrow.FixedShapeTensorArray.from_numpy_ndarray(stack(SHAPES[2]).transpose(0, 2, 3, 1))
    with pytest.raises(InputError, match="permuted axes"):
        open_source(save(tmp_path / "x.parquet", arrow.table({"image": array})))


def test_tensors_that_ray_data_wrote_with_and_without_ray(tmp_path: Path) -> None:
    """Written and read once more in a process of its own, where Ray has made its types known."""
    pytest.importorskip("ray.data", reason="Ray Data is not installed")
    np.save(tmp_path / "want.npy", stack())
    script = """
import sys, numpy, pyarrow, pyarrow.parquet, ray.data
from ray.data.extensions import ArrowTensorArray
from engine.sources.open import open_source
want = numpy.load(sys.argv[1])
pyarrow.parquet.write_table(pyarrow.table({"image": ArrowTensorArray.from_numpy(want)}), sys.argv[2], row_group_size=5)
source = open_source(sys.argv[2])
assert (source.at(3, 11) == want[3:11, ..., None]).all()
"""
    arguments = [sys.executable, "-c", script, str(tmp_path / "want.npy"), str(tmp_path / "x.parquet")]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    check(open_source(tmp_path / "x.parquet"), last(stack()))


def test_ids_of_a_column_and_files_of_a_folder(tmp_path: Path) -> None:
    pixels = stack()
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "_temporary.parquet").write_bytes(b"half written")
    for number, rows in ((10, slice(9, 23)), (9, slice(0, 9))):
        names = [f"tile {row}" for row in range(len(pixels))[rows]]
        table = arrow.table({"id": names, "image": flat(pixels[rows]), "mask": flat(pixels[rows] % 5)})
        save(folder / f"{number}.parquet", table.replace_schema_metadata({"height": "4", "width": "6"}))
    source = open_source(folder)
    check(source, last(pixels))
    assert source.named
    assert list(source.ids) == [f"tile {row}" for row in range(23)]
    assert list(source.ids[3:5]) == ["tile 3", "tile 4"]
    check(open_labels(folder), last(pixels % 5))
    part = open_source(f"{folder / '9.parquet'}:mask")
    np.testing.assert_array_equal(np.concatenate([b.pixels for b in part.batches(4)]), last(pixels[:9] % 5))
    seen = fingerprint(str(folder))
    (folder / "9.parquet").write_bytes((folder / "10.parquet").read_bytes())
    assert fingerprint(str(folder)) != seen
    with pytest.raises(InputError, match="two images named tile 9"):
        open_source(folder)


def test_a_run_over_parquet_is_one_over_the_array(world: World, tmp_path: Path, engine: Callable[..., Result]) -> None:
    tensors(tmp_path / "images.parquet", world.images)
    save(tmp_path / "labels.parquet", arrow.table({"mask": [image.tolist() for image in world.labels]}))
    for name, images, labels in (
        ("a.csv", world.images_file, world.labels_file),
        ("b.csv", tmp_path / "images.parquet", tmp_path / "labels.parquet"),
    ):
        done = engine("ensemble", "-m", world.models, "-i", images, "--labels", labels, "-o", tmp_path / name)
        assert done.code == 0, done.err
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_images_that_cannot_be_read_are_named_or_left_out(tmp_path: Path) -> None:
    pixels = stack(SHAPES[1])
    held: list[bytes | None] = [encoded(image) for image in pixels]
    held[0], held[7], held[9] = None, b"\x89PNG and no more", encoded(pixels[9, :2])
    path = save(tmp_path / "x.parquet", arrow.table({"id": list(range(100, 123)), "image": held}))
    with pytest.raises(InputError, match=r"x\.parquet:image row 0 holds no value"):
        open_source(path)
    bad: dict[str, str] = {}
    source = open_source(path, bad=lambda name, error: bad.setdefault(name, str(error)) and None)
    found = np.concatenate([batch.pixels for batch in source.batches(4)])
    assert sorted(bad) == ["100", "107", "109"]
    assert "row 9 is 2x6 with 3 channels, the first image is 4x6" in bad["109"]
    want = pixels.copy()
    want[[0, 7, 9]] = 0
    np.testing.assert_array_equal(found, want)


def odd(**columns: Any) -> Callable[[Path], object]:
    return lambda path: save(path, arrow.table(columns))


def declared(path: Path) -> None:
    """A file whose footer says of one row group that it has very many rows."""
    many = 1 << 20
    save(path, arrow.table({"image": arrow.array([b"\0" * 8] * many, arrow.binary(8))}), many)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("PAR1 and more"), "cannot read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot read"),
    "footer of terabytes": (
        lambda path: path.write_bytes(b"PAR1" + b"\xff" * 60 + b"\xff\xff\xff\x7fPAR1"),
        "cannot read",
    ),
    "no rows": (odd(image=arrow.array([], arrow.binary())), "holds no rows"),
    "no images": (odd(name=["a", "b"], value=[1, 2]), "which column holds the images"),
    "two of them": (odd(one=[b"a"], two=[b"b"]), "one (binary), two (binary)"),
    "no shape": (odd(image=[[1, 2, 3, 4]]), "no shape"),
    "bytes that are no picture": (odd(image=[b"nothing of the kind"]), "no shape"),
    "too few numbers": (odd(image=[b"abc"], height=[2], width=[2]), "asks for 4"),
    "a side of 0": (odd(image=[b"abcd"], height=[0], width=[2]), "is no size of an image"),
    "a huge side": (odd(image=[b"abcd"], height=[2**40], width=[2]), "is no size of an image"),
    "ragged lists": (odd(image=[[[1, 2], [3]]]), "different lengths"),
    "gaps": (odd(image=[[[1, 2], [3, None]]]), "1 gaps"),
    "paths alone": (odd(image=[{"bytes": None, "path": "a.png"}]), "column holds the images"),
    "an id twice": (odd(image=[b"abcd"] * 2, height=[2] * 2, width=[2] * 2, id=["a", "a"]), "two images named a"),
    "an id missing": (odd(image=[b"abcd"] * 2, height=[2] * 2, width=[2] * 2, id=["a", None]), "has gaps"),
    "an escape in an id": (odd(image=[b"abcd"], height=[2], width=[2], id=["\x1b[2J"]), "control character"),
    "a long id": (odd(image=[b"abcd"], height=[2], width=[2], id=["a" * 5000]), "id of 5000 bytes"),
    "more rows than bytes": (declared, "its bytes cannot hold"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(name: str, tmp_path: Path) -> None:
    write, told = REFUSED[name]
    write(tmp_path / "x.parquet")
    with pytest.raises(InputError) as refused:
        for batch in open_source(tmp_path / "x.parquet").batches(2):
            del batch
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 1000
    assert told.replace("its bytes", f"its {(tmp_path / 'x.parquet').stat().st_size} bytes") in text


@examples(150, suppress=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), change=st.binary(min_size=1, max_size=6), cut=st.booleans())
def test_damage_anywhere_is_an_error_of_one_line(place: float, change: bytes, cut: bool, tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    if not whole.exists():
        names = [f"n{row}" for row in range(23)]
        save(whole, arrow.table({"id": names, "image": [encoded(image) for image in stack()]}))
    data = bytearray(whole.read_bytes())
    at = int(place * (len(data) - 1))
    data[at : len(data) if cut else at + len(change)] = change
    (tmp_path / "x.parquet").write_bytes(data)
    try:
        source = open_source(tmp_path / "x.parquet")
        assert sum(len(batch.pixels) for batch in source.batches(5)) == len(source)
    except EngineError as error:
        assert "\n" not in str(error)


def test_files_that_differ_are_refused(tmp_path: Path) -> None:
    tensors(tmp_path / "1.parquet", stack())
    lists(tmp_path / "2.parquet", stack())
    with pytest.raises(InputError, match="all files must be alike"):
        open_source(tmp_path)
    assert "pip install 'maskfuse[parquet]'" in _without_pyarrow(tmp_path)


def _without_pyarrow(folder: Path) -> str:
    script = (
        "import sys; sys.modules['pyarrow'] = None; sys.modules['pyarrow.parquet'] = None\n"
        "from engine.sources.open import open_source\n"
        f"try:\n    open_source({str(folder)!r})\nexcept Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    return done.stdout


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    """Of a row group that takes 150 MB in Arrow's hands, parts are held."""
    pixels = np.random.default_rng(1).integers(0, 255, (128, 256, 256), np.uint8)
    array = arrow.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    save(tmp_path / "x.parquet", arrow.table({"image": array}), 128)
    source = open_source(tmp_path / "x.parquet")
    before = arrow.total_allocated_bytes()
    most = 0
    for batch in source.batches(16):
        most = max(most, arrow.total_allocated_bytes() - before)
        del batch
    assert most < 40 << 20

"""Parquet files and Zarr stores: damaged, and sound ones of every kind that holds no images."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from engine.errors import InputError
from engine.sources.labels import open_labels
from engine.sources.open import open_source
from tests.fuzz.inputs import NUMBERS, PLACE, VALUES, changed, made, ours, put, whole
from tests.fuzz.target import spoilt, target

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
zarr = pytest.importorskip("zarr", reason="zarr is not installed")

IMAGES = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6)
NAMES = [f"tile {index}" for index in range(len(IMAGES))]


def picture(image: np.ndarray) -> bytes:
    return made(Image.fromarray(image).save, "PNG")


def table(columns: Any, **options: Any) -> bytes:
    return made(lambda stream: parquet.write_table(columns, stream, **{"row_group_size": 2, **options}))


FLAT = [image.reshape(-1).tolist() for image in IMAGES]
SIDES = {"height": [4] * 5, "width": [6] * 5}
BYTES = [image.tobytes() for image in IMAGES]
PICTURES = [picture(image) for image in IMAGES]
WHOLE = (
    table(arrow.table({"image": arrow.FixedShapeTensorArray.from_numpy_ndarray(IMAGES), "id": NAMES})),
    table(arrow.table({"image": [{"bytes": data, "path": "a.png"} for data in PICTURES]}), compression="zstd"),
    table(arrow.table({"id": arrow.array(NAMES).dictionary_encode(), "image": FLAT, **SIDES}), compression="gzip"),
    table(arrow.table({"image": [image.tolist() for image in IMAGES]}), compression="none"),
    table(arrow.table({"image": arrow.array(BYTES, arrow.binary(24)), **SIDES}), use_dictionary=False, version="1.0"),
)


def read(name: str) -> None:
    """Read what lies there as images and as label maps."""
    for opened in (open_source, open_labels):
        with ours(InputError):
            assert whole(opened(name)).size


@target(content=spoilt(*WHOLE))
def test_parquet(content: bytes) -> None:
    read(str(put("x.parquet", content)))


ROWS = 3
# One value a row, of every kind that Parquet knows, images among them.
COLUMNS: list[Any] = [
    arrow.array(BYTES[:ROWS]),
    arrow.array(PICTURES[:ROWS], arrow.large_binary()),
    arrow.array(PICTURES[:ROWS], arrow.binary_view()),
    arrow.array(PICTURES[:ROWS]).dictionary_encode(),
    arrow.array([None, *PICTURES[1:ROWS]]),
    arrow.array(BYTES[:ROWS], arrow.binary(24)),
    arrow.array([{"bytes": data} for data in PICTURES[:ROWS]]),
    arrow.array([{"path": "a.png"}, None, {"path": ""}]),
    arrow.array(FLAT[:ROWS], arrow.list_(arrow.uint8())),
    arrow.array(FLAT[:ROWS], arrow.list_view(arrow.uint8())),
    arrow.array(FLAT[:ROWS], arrow.list_(arrow.float16(), 24)),
    arrow.array([[1.5, float("nan"), None], [], None]),
    arrow.array([[[True] * 6] * 4] * ROWS),
    arrow.array([[[1, 2], [3]], [[1, 2, 3]], [[]]]),
    arrow.array([[["a"]], [["b"]], [["c"]]]),
    arrow.array(NAMES[:ROWS]),
    arrow.array(NAMES[:ROWS], arrow.string_view()),
    arrow.array(["a", "a", "b"]).dictionary_encode(),
    arrow.array(["a\nb", None, ""]),
    arrow.Array.from_buffers(
        arrow.string(), 3, [None, arrow.py_buffer(np.int32([0, 1, 2, 3]).tobytes()), arrow.py_buffer(b"\xff\xfea")]
    ),
    arrow.array([4, 6, 3]),
    arrow.array([4, 4, 4], arrow.uint64()),
    arrow.array([6, None, 0], arrow.int8()),
    arrow.array([-1, 2**62, 6]),
    arrow.array([0.5, 1.0, float("inf")]),
    arrow.nulls(ROWS),
    arrow.array([{"a": 1}] * ROWS),
    arrow.array([[("a", 1)]] * ROWS, arrow.map_(arrow.string(), arrow.int64())),
    arrow.array([1, 2, 3], arrow.timestamp("ns", "UTC")),
    arrow.array([1, 2, 3], arrow.decimal128(5, 1)),
    arrow.FixedShapeTensorArray.from_numpy_ndarray(IMAGES[:ROWS]),
]
TITLES = ["image", "label", "labels", "mask", "id", "file_name", "height", "width", "channels", "bytes", ""]
PARAMETERS = VALUES | st.lists(NUMBERS, max_size=4) | st.just({"shape": [4, 6]})
KEYS = [
    b"shape",
    b"height",
    b"width",
    b"channels",
    b"huggingface",
    b"ARROW:extension:name",
    b"ARROW:extension:metadata",
]
TEXTS = PARAMETERS.map(lambda value: json.dumps(value).encode()) | st.sampled_from(
    [b"arrow.fixed_shape_tensor", b"ray.data.arrow_tensor_v2", b"\xff", b"[" * 900]
)
METADATA = st.dictionaries(st.sampled_from(KEYS), TEXTS, max_size=3)


@target(
    columns=st.lists(
        st.tuples(st.sampled_from(TITLES), st.integers(0, len(COLUMNS) - 1), METADATA), min_size=1, max_size=4
    ),
    metadata=METADATA,
    dictionary=st.booleans(),
    key=st.sampled_from(["", "", *TITLES]),
)
def test_parquet_columns(
    columns: list[tuple[str, int, dict[bytes, bytes]]], metadata: dict[bytes, bytes], dictionary: bool, key: str
) -> None:
    """Sound files of any columns, two of one name among them."""
    arrays = [COLUMNS[index] for _, index, _ in columns]
    fields = [
        arrow.field(title, array.type, metadata=told) for (title, _, told), array in zip(columns, arrays, strict=True)
    ]
    try:
        content = table(arrow.table(arrays, arrow.schema(fields, metadata)), use_dictionary=dictionary)
    except (arrow.ArrowException, ValueError, KeyError):
        return  # no such file can be written: extension parameters that do not fit their storage
    read(f"{put('columns.parquet', content)}{key and ':'}{key}")


STORE = PLACE / "x.zarr"


def stored(version: int) -> dict[str, bytes]:
    """Return the files of a store with two arrays, by their places in it."""
    group = zarr.open_group(STORE, mode="w", zarr_format=version)
    group.create_array("images", data=IMAGES, chunks=(2, 4, 6))

    group.create_array("labels", data=IMAGES % 5, chunks=(5, 2, 6))
    found = {str(file.relative_to(STORE)): file.read_bytes() for file in STORE.rglob("*") if file.is_file()}
    shutil.rmtree(STORE)
    return found


STORES = {version: stored(version) for version in (2, 3)}
METADATA_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
DOCUMENTS = {
    version: sorted(name for name in files if name.endswith(METADATA_FILES)) for version, files in STORES.items()
}
TERMS = """uint8 float64 string |u1 <f8 |O <U9 |V0 bytes zstd gzip blosc sharding_indexed crc32c transpose vlen-utf8
    regular default v2 array group F C NaN / . ../x"""
WORDS = st.sampled_from(TERMS.split())


def write(files: dict[str, bytes]) -> None:
    shutil.rmtree(STORE, ignore_errors=True)
    for name, content in files.items():
        (STORE / name).parent.mkdir(parents=True, exist_ok=True)
        (STORE / name).write_bytes(content)


@st.composite
def other_metadata(draw: st.DrawFn) -> dict[str, bytes]:
    """Return the files of a store, one or two of its documents changed into other JSON."""
    version = draw(st.sampled_from([2, 3]))
    files = dict(STORES[version])
    for name in draw(st.lists(st.sampled_from(DOCUMENTS[version]), min_size=1, max_size=2, unique=True)):
        files[name] = json.dumps(draw(changed(json.loads(files[name]), VALUES | WORDS))).encode()
    return files


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, bytes]:
    """Return the files of a store, one or two of them changed, cut off or left out."""
    version = draw(st.sampled_from([2, 3]))
    files = dict(STORES[version])
    for name in draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True)):
        if draw(st.integers(0, 4)):
            files[name] = draw(spoilt(files[name]))
        else:
            del files[name]
    return files


@target(files=other_metadata())
def test_zarr_metadata(files: dict[str, bytes]) -> None:
    """JSON that is no sound metadata, beside sound chunks."""
    write(files)
    for key in ("images", "labels"):
        read(f"{STORE}:{key}")


@target(files=damaged())
def test_zarr_bytes(files: dict[str, bytes]) -> None:
    """Documents and chunks with bytes changed, cut off or left out."""
    write(files)
    for key in ("images", "labels"):
        read(f"{STORE}:{key}")

"""Types of Arrow that few programs write, folders with a column in their names, files that contradict themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.sources.open import open_source
from tests.engine.sources.test_parquet import encoded, save, stack

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

PIXELS = stack((7, 4, 6))
PICTURES = [encoded(image) for image in PIXELS]
NAMES = [f"tile {index}" for index in range(len(PIXELS))]


def read(path: Path | str) -> tuple[list[str], np.ndarray]:
    source = open_source(path)
    batches = list(source.batches(3))
    return [name for batch in batches for name in batch.ids], np.concatenate([batch.pixels for batch in batches])


def listed(kind: Any) -> Any:
    return arrow.array([image.tolist() for image in PIXELS], kind(kind(arrow.uint8())))


COLUMNS = {
    "binary_view": lambda: arrow.array(PICTURES, arrow.binary_view()),
    "dictionary of binary": lambda: arrow.array(PICTURES).dictionary_encode(),
    "dictionary of large_binary": lambda: arrow.array(PICTURES, arrow.large_binary()).dictionary_encode(),
    "list_view": lambda: listed(arrow.list_view),
    "large_list_view": lambda: listed(arrow.large_list_view),
    "struct of binary_view": lambda: arrow.StructArray.from_arrays(
        [arrow.array(PICTURES, arrow.binary_view()), arrow.array(NAMES)], ["bytes", "path"]
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_images_of_types_that_are_seldom_written(name: str, tmp_path: Path) -> None:
    ids, pixels = read(save(tmp_path / "a.parquet", arrow.table({"image": COLUMNS[name]()}), 7))
    np.testing.assert_array_equal(pixels[..., 0], PIXELS)
    assert ids == [str(index) for index in range(len(PIXELS))]


@pytest.mark.parametrize("kind", [arrow.string_view(), arrow.large_string(), arrow.dictionary("int32", "string")])
def test_ids_of_every_type_of_text(kind: Any, tmp_path: Path) -> None:
    table = arrow.table({"id": arrow.array(NAMES).cast(kind), "image": PICTURES})
    assert read(save(tmp_path / "a.parquet", table, 3))[0] == NAMES


@pytest.mark.parametrize("remote", [False, True])
def test_folders_that_state_a_column_are_one_set(remote: bool, tmp_path: Path) -> None:
    """As pyarrow itself writes them; a folder of another name stays out."""
    pytest.importorskip("fsspec")
    from pyarrow import dataset

    table = arrow.table(
        {"id": NAMES, "image": PICTURES, "split": [10, 10, 10, 2, 2, 2, 2], "sol": ["a", "b"] * 3 + ["a"]}
    )
    parts = dataset.partitioning(arrow.schema([("split", arrow.int64()), ("sol", arrow.string())]), flavor="hive")
    dataset.write_dataset(table, tmp_path / "set", format="parquet", partitioning=parts)
    (tmp_path / "set" / "notes").mkdir()
    save(tmp_path / "set" / "notes" / "other.parquet", arrow.table({"text": ["no image"]}))
    ids, pixels = read(f"file://{tmp_path}/set" if remote else tmp_path / "set")
    # Natural order of the folders' names: split=2 before split=10.
    order = [4, 6, 3, 5, 0, 2, 1]
    assert ids == [NAMES[index] for index in order]
    np.testing.assert_array_equal(pixels[..., 0], PIXELS[order])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("image", "height", "id"):
        table = arrow.table({"image": PICTURES, "height": [4] * 7, "width": [6] * 7, "id": NAMES})
        twice = table.append_column(name, table[name])
        with pytest.raises(InputError, match=f"two columns named {name}: rename one"):
            open_source(save(tmp_path / f"{name}.parquet", twice))
    other = arrow.table([PICTURES, [1] * 7, [2] * 7], names=["image", "note", "note"])
    np.testing.assert_array_equal(read(save(tmp_path / "other.parquet", other))[1][..., 0], PIXELS)


@pytest.mark.parametrize("many", [False, True])
def test_ids_that_are_not_utf_8_are_refused(many: bool, tmp_path: Path) -> None:
    ids = arrow.array([b"a", b"\xff\xfe", b"c"])
    ids = arrow.StringArray.from_buffers(3, ids.buffers()[1], ids.buffers()[2])
    ids = ids if not many else arrow.DictionaryArray.from_arrays(arrow.array([0, 1, 2]), ids)
    path = save(tmp_path / "a.parquet", arrow.table({"id": ids, "image": PICTURES[:3]}))
    with pytest.raises(InputError, match=r"cannot read .*a\.parquet .*it is damaged"):
        read(path)

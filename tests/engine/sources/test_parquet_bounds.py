"""Small files that declare much: refused by the bound on memory before they are decoded; honest ones are read."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError
from engine.sources.open import open_source
from engine.sources.parquet import ParquetRows
from engine.sources.scenes import open_scenes
from engine.utils.memory import memory_limit

BOUND = 1 << 26
REFUSED = r"takes? .*(MB|GB) of memory at once; 67\.1 MB are allowed: raise --memory"


def parquet(path: Path, values: Any, **more: Any) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    writer.write_table(arrow.table({"image": values}), path, compression="zstd", **more)
    return path


def refused(path: Path, most: int = 1 << 20) -> None:
    if path.is_file():
        assert path.stat().st_size < most
    with memory_limit(BOUND), pytest.raises(InputError, match=REFUSED):
        list(open_source(path).batches(1))


def lists(count: int, sizes: list[int]) -> Any:
    arrow = pytest.importorskip("pyarrow")
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    return arrow.ListArray.from_arrays(offsets, np.zeros(count, np.uint8))


def test_parquet_with_one_image_of_millions_of_equal_numbers(tmp_path: Path) -> None:
    refused(parquet(tmp_path / "a.parquet", lists(4_000_000, [4_000_000])), 10_000)


def test_parquet_with_one_such_image_among_thousands_of_small_ones(tmp_path: Path) -> None:
    sizes = [1000] * 2000 + [4_000_000]
    refused(parquet(tmp_path / "a.parquet", lists(sum(sizes), sizes)), 20_000)


def test_parquet_whose_one_value_is_repeated(tmp_path: Path) -> None:
    """A dictionary stores it once, and each row would take it anew."""
    arrow = pytest.importorskip("pyarrow")
    values = arrow.DictionaryArray.from_arrays(np.zeros(500, np.int32), arrow.array([bytes(70_000_000)]))
    refused(parquet(tmp_path / "a.parquet", values), 100_000)


def test_parquet_of_large_images_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    pixels = np.random.default_rng(1).integers(0, 255, (6, 1024, 1024)).astype(np.uint8)
    pixels[3:] = 7
    path = parquet(tmp_path / "a.parquet", arrow.FixedShapeTensorArray.from_numpy_ndarray(pixels))
    with memory_limit(BOUND):
        found = np.concatenate([batch.pixels for batch in open_source(path).batches(2)])
        rows = ParquetRows([path], "", "images", "a")
    np.testing.assert_array_equal(found[..., 0], pixels)
    assert rows._most_rows.tolist() == [1]
    encoded = arrow.array([bytes(1 << 21)] * 60)
    with memory_limit(BOUND):
        path = parquet(tmp_path / "b.parquet", encoded, use_dictionary=False, row_group_size=20)
        assert max(ParquetRows([path], "", "images", "a")._most_rows) < 8


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_tiff_with_a_huge_block(interleave: str, tmp_path: Path) -> None:
    """Of bands that lie together a block takes as many times as much."""
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    layout = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "sparse_ok": True, "compress": "deflate"}
    size = {"height": 8192, "width": 8192, "count": 5, "dtype": "uint8", "crs": "EPSG:3857"}
    place = rasterio.Affine(1, 0, 5, 0, -1, 5)
    with rasterio.open(path, "w", driver="GTiff", transform=place, interleave=interleave, **size, **layout):
        pass
    assert path.stat().st_size < 200_000
    with memory_limit(BOUND):
        if interleave == "band":
            assert open_scenes(path).sizes == [(8192, 8192)]
        else:
            with pytest.raises(InputError, match=f"is stored in blocks of 4096x4096 pixels, .*{REFUSED}"):
                open_scenes(path)


def test_a_tiff_of_one_strip(tmp_path: Path) -> None:
    """In a folder Pillow would decode it as a whole; as a scene GDAL takes it row by row."""
    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "tiles").mkdir()
    path = tmp_path / "tiles" / "a.tif"
    tifffile.imwrite(path, np.zeros((12000, 12000), np.uint8), rowsperstrip=12000, compression="zlib")
    assert path.stat().st_size < 200_000
    refused(tmp_path / "tiles")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with memory_limit(BOUND):
        scenes = open_scenes(path).each()
        assert not next(scenes).rows(5000, 5016).any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_pictures(mode: str, tmp_path: Path) -> None:
    side = {"L": 8500, "RGB": 5000, "I;16": 4200}[mode]
    (tmp_path / "tiles").mkdir()
    Image.new(mode, (side, side)).save(tmp_path / "tiles" / "a.png")
    refused(tmp_path / "tiles")


def test_zarr_chunks(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_array(tmp_path / "a.zarr", shape=(1000, 512, 512), chunks=(1000, 512, 512), dtype="uint8")
    refused(tmp_path / "a.zarr")


def test_arrays_that_lie_column_by_column(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.asfortranarray(np.zeros((300, 512, 512), np.uint8)))
    refused(tmp_path / "a.npz")

"""A store of objects (s3://, moto's server) and a web server here: the same images and bytes as from the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError
from engine.sources import remote
from engine.sources.fingerprint import fingerprint
from engine.sources.open import open_source
from tests.conftest import Result
from tests.fuzz.inputs import whole
from tests.helpers.range_server import serving
from tests.helpers.world import World

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
BUCKET = "tiles"


@pytest.fixture(scope="module")
def forms(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The world's images in every form, by name; the folder that holds them is under the empty name."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    folder = tmp_path_factory.mktemp("forms")
    np.savez_compressed(folder / "x.npz", images=world.images)
    np.savez_compressed(folder / "labels.npz", labels=world.labels)
    np.save(folder / "x.npy", world.images)
    zarr.create_array(folder / "x.zarr", data=world.images, chunks=(2, 8, 16))
    tensors = arrow.FixedShapeTensorArray.from_numpy_ndarray(world.images)
    parquet.write_table(arrow.table({"image": tensors}), folder / "x.parquet", row_group_size=3)
    (folder / "pictures").mkdir()
    for index, image in enumerate(world.images):
        Image.fromarray(image).save(folder / "pictures" / f"{index}.png")
    return {"": str(folder), **{name: name for name in ("x.npz", "x.npy", "x.zarr", "x.parquet", "pictures")}}


@pytest.fixture(scope="module")
def store(forms: dict[str, str]) -> Iterator[Any]:
    """A bucket with the images in every form, as s3fs sees it."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    names = {"ACCESS_KEY_ID": "reader", "SECRET_ACCESS_KEY": "hunter2", "DEFAULT_REGION": "us-east-1"}
    names["ENDPOINT_URL"] = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setattr(remote, "PAUSES", (0.0, 0.0))
        s3fs.S3FileSystem.clear_instance_cache()
        system = fsspec.filesystem("s3")
        system.mkdir(BUCKET)
        system.put(f"{forms['']}/", BUCKET, recursive=True)
        yield system
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


def test_every_form_in_a_store_is_that_on_the_disk(store: Any, forms: dict[str, str], world: World) -> None:
    for name in filter(None, forms):
        source = open_source(f"s3://{BUCKET}/{name}")
        np.testing.assert_array_equal(whole(source)[..., 0], world.images)
        assert list(source.ids) == list(open_source(f"{forms['']}/{name}").ids)


def test_a_run_over_a_store_writes_the_same_bytes(
    store: Any, forms: dict[str, str], world: World, tmp_path: Path, engine: Callable[..., Result]
) -> None:
    for place, out in ((f"s3://{BUCKET}", "there.csv"), (forms[""], "here.csv")):
        named = ("-i", f"{place}/x.npz", "--labels", f"{place}/labels.npz", "-o", tmp_path / out)
        done = engine("ensemble", "-m", world.models, *named)
        assert done.code == 0, done.err
        assert "hunter2" not in done.err + done.out
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


@pytest.fixture(scope="module")
def scenes(forms: dict[str, str], store: Any) -> list[str]:
    """The same map as a COG, as JPEG 2000, whose nodata value lies in a file beside it, and as a Zarr array."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    copy = pytest.importorskip("rasterio.shutil", reason="rasterio is not installed").copy
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    folder = Path(forms[""]) / "scenes"
    folder.mkdir()
    pixels = np.random.default_rng(2).integers(1, 256, (150, 200), dtype=np.uint8)
    zarr.create_array(folder / "map.zarr", data=pixels, chunks=(64, 64))
    pixels[:, :50] = 0
    place = rasterio.transform.from_origin(500000, 5000000, 10, 10)
    told = {"height": 150, "width": 200, "count": 1, "dtype": "uint8", "crs": "EPSG:32633", "transform": place}
    names = ["map.zarr"]
    for name, driver, how in (
        ("map.tif", "COG", {"blocksize": 128}),
        ("map.jp2", "JP2OpenJPEG", {"quality": 100, "reversible": True}),
    ):
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", nodata=0, **told) as made:
                made.write(pixels, 1)
            with memory.open() as made:
                copy(made, folder / name, driver=driver, **how)
        names.append(name)
    assert (folder / "map.jp2.aux.xml").exists()
    store.put(f"{folder}/", f"{BUCKET}/scenes", recursive=True)
    return names


def test_a_scene_in_a_store_or_behind_a_web_server_gives_the_mask_of_the_one_on_the_disk(
    scenes: list[str],
    forms: dict[str, str],
    world: World,
    tmp_path: Path,
    engine: Callable[..., Result],
    process: Callable[..., Result],
) -> None:
    folder = Path(forms[""]) / "scenes"
    with serving(folder) as (address, asked):
        for name in scenes:
            masks = []
            for at, place in enumerate((str(folder), f"s3://{BUCKET}/scenes", address)):
                out = tmp_path / str(at) / (name.replace(".", "-") + (".npy" if name == "map.zarr" else ".tif"))
                out.parent.mkdir(exist_ok=True)
                # GDAL asks for files beside it with Python's lock held: a server in this process could not answer.
                run = process if name == "map.jp2" and at else engine
                done = run("ensemble", "-m", world.models, "-i", f"{place}/{name}", "--tile", "32x64", "-o", out)
                assert "hunter2" not in done.err
                if place == address and name == "map.zarr":
                    assert done.code == 2
                    assert done.err.count("\n") == 1
                    assert "web servers list no folders" in done.err
                else:
                    assert done.code == 0, done.err
                    masks.append(out.read_bytes())
            assert len(set(masks)) == 1
        assert asked
        assert all(part.startswith("bytes=") for part in asked)
    done = engine("ensemble", "-m", world.models, "-i", f"s3://{BUCKET}/none.tif", "--tile", "8x8", "-o", "m.tif")
    assert (done.code, done.err) == (2, f"error: no such file or folder: s3://{BUCKET}/none.tif\n")


def test_a_store_names_what_is_not_there_and_what_has_changed(store: Any) -> None:
    for url in (f"s3://{BUCKET}/none.npy", "s3://no-such-bucket/x.npy", f"s3://{BUCKET}/none/"):
        with pytest.raises(InputError, match=r"^no such file or folder: s3://[^\n]*$"):
            open_source(url)
    seen = fingerprint(f"s3://{BUCKET}/x.npy")
    held = store.cat_file(f"{BUCKET}/x.npy")
    store.pipe_file(f"{BUCKET}/x.npy", held[:-1] + bytes([held[-1] ^ 1]))
    store.invalidate_cache()
    assert fingerprint(f"s3://{BUCKET}/x.npy") != seen
    store.pipe_file(f"{BUCKET}/x.npy", held)
    store.invalidate_cache()
    assert fingerprint(f"s3://{BUCKET}/x.npy") == seen


def test_every_file_behind_a_web_server_is_that_on_the_disk(forms: dict[str, str], world: World) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    with serving(Path(forms[""])) as (url, asked):
        for name in ("x.npz", "x.npy", "x.parquet"):
            np.testing.assert_array_equal(whole(open_source(f"{url}/{name}"))[..., 0], world.images)
        assert all(asked), "a whole file was fetched"

"""Inputs that change while they are read end a run without an output; parts of files that are not those asked for."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputChangedError, InputError
from engine.evaluate import evaluate
from engine.models.net import Net
from engine.runs.durable import images as durable
from engine.sources import remote
from engine.sources.open import open_source
from engine.sources.parts import check_part
from engine.sources.ranges import check_ranges
from engine.sources.unchanged import Unchanged
from tests.helpers.range_server import serving
from tests.helpers.runs import Engine
from tests.helpers.world import World


def touch(path: Path) -> None:
    """Give a file another time and leave its content, as writing the same length again does."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1000))


@pytest.fixture
def in_mid_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Calls something once, after a dozen calls of the nets."""
    calls, act = [0], [lambda: None]
    whole = Net.run

    def run(member: Net, *arguments: object, **named: object) -> None:
        calls[0] += 1
        if calls[0] == 60:
            act[0]()
        whole(member, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Net, "run", run)
    return lambda action: act.__setitem__(0, action)


def made(folder: Path, form: str, pixels: np.ndarray) -> tuple[Path, Path]:
    """Write images in a form; return the input and the file of it that is changed."""
    path = folder / form
    if form == "images.npy":
        np.save(path, pixels)
        return path, path
    if form == "images.npz":
        np.savez(path, images=pixels)
        return path, path
    if form == "images.zarr":
        import zarr

        zarr.create_array(store=path, shape=pixels.shape, chunks=(8, 8, 16), dtype="u1")[:] = pixels
        return path, path / "c" / "1" / "0" / "0"
    if form == "images.parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"image": [image.tobytes() for image in pixels], "height": [8] * 80, "width": [16] * 80})
        pq.write_table(table, path)
        return path, path
    path.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(path / f"{index}.png")
    return path, path / "70.png"


@pytest.mark.parametrize(
    "form", ["images.npy", "images.npz", "images.zarr", "images.parquet", "images", "images/*.png"]
)
def test_images_that_change_end_the_run_without_an_output(
    form: str,
    world: World,
    tmp_path: Path,
    engine: Engine,
    in_mid_run: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 8)
    pixels = np.random.default_rng(5).integers(0, 240, (80, 8, 16)).astype(np.uint8)
    _, changed = made(tmp_path, form.partition("/")[0], pixels)
    before = set(tmp_path.iterdir())
    in_mid_run(lambda: touch(changed))
    done = engine(
        "ensemble",
        "-m",
        world.models,
        "-i",
        tmp_path / form,
        "-o",
        tmp_path / "m.csv",
        "--batch-size",
        2,
        "--workers",
        1,
    )
    assert done.code == 2
    assert "was changed while it was read, so nothing is written: run again" in done.err
    assert "are kept" not in done.err
    assert set(tmp_path.iterdir()) == before


def test_a_scene_and_true_labels_that_change(
    world: World, tmp_path: Path, engine: Engine, in_mid_run: Callable[[Callable[[], object]], None]
) -> None:
    scene, truth = tmp_path / "scene.npy", tmp_path / "truth.npy"
    np.save(scene, np.zeros((200, 100), np.uint8))
    np.save(truth, np.zeros((200, 100), np.uint8))
    in_mid_run(lambda: touch(truth))
    told = engine(
        "ensemble", "-m", world.models, "-i", scene, "--labels", truth, "-o", tmp_path / "m.png", "--tile", "16x32",
        "--batch-size", 1, "--workers", 1,
    )  # fmt: skip
    assert told.code == 2
    assert f"error: {truth} was changed while it was read" in told.err
    assert not list(tmp_path.glob("*m.png*"))


def test_masks_of_the_run_itself_are_no_change(world: World, tmp_path: Path, engine: Engine) -> None:
    """They may lie beside the pictures that are read."""
    made(tmp_path, "images", np.zeros((80, 8, 16), np.uint8))
    goal = tmp_path / "images" / "m.csv"
    assert engine("ensemble", "-m", world.models, "-i", tmp_path / "images", "-o", goal).code == 0


def test_masks_that_change_are_not_scored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import evaluate as module

    counted = module._count

    def count(*arguments: object) -> object:
        touch(world.labels_file)
        return counted(*arguments)  # type: ignore[arg-type]

    labels = str(world.labels_file)
    assert evaluate(labels, labels, classes="5").score.confusion.sum() > 0
    monkeypatch.setattr(module, "_count", count)
    with pytest.raises(InputChangedError, match="was changed while it was read"):
        evaluate(labels, labels, classes="5")


def test_what_is_at_a_url_is_asked_for_again(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    system = MemoryFileSystem()
    system.pipe("/changing/a.npy", b"0" * 100)
    read = Unchanged("memory://changing/a.npy")
    read.check()
    system.pipe("/changing/a.npy", b"1" * 100)
    with pytest.raises(InputChangedError, match=r"memory://changing/a\.npy was changed"):
        read.check()
    pytest.importorskip("aiohttp")
    (tmp_path / "a.npy").write_bytes(b"0" * 100)
    with serving(tmp_path) as (address, _):
        read = Unchanged(f"{address}/a.npy")
        read.check()
        os.utime(tmp_path / "a.npy", (1, 1))
        with pytest.raises(InputChangedError):
            read.check()


def test_another_part_than_the_one_asked_for_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "PAUSES", ())
    images = np.random.default_rng(1).integers(0, 240, (50, 64, 128)).astype(np.uint8)
    np.save(tmp_path / "a.npy", images)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(96))
    with serving(tmp_path) as (address, _):
        right = np.concatenate([batch.pixels for batch in open_source(f"{address}/a.npy").batches(8)])
    np.testing.assert_array_equal(right[..., 0], images)
    told = r"the server sent 'bytes 819\d-.* where bytes=\d-\d+ was asked for"
    with serving(tmp_path, ahead=8192) as (address, _), pytest.raises(InputError, match=told):
        open_source(f"{address}/a.npy")
    with serving(tmp_path, ahead=1) as (address, _), pytest.raises(InputError, match="the server sent"):
        open_source(f"zip://a.npy::{address}/a.zip")
    with serving(tmp_path, ahead=1) as (address, _), pytest.raises(InputError, match="the server sent 'bytes 2-2/100'"):
        check_ranges(f"{address}/a.tif")


@pytest.mark.parametrize(
    ("asked", "came", "fits"),
    [
        ("bytes=0-9", "bytes 0-9/100", True),
        ("bytes=0-9", "bytes 0-9/*", True),
        ("bytes=95-104", "bytes 95-99/100", True),
        ("bytes=95-", "bytes 95-99/100", True),
        ("bytes=-5", "bytes 95-99/100", True),
        ("bytes=0-9", "bytes 10-19/100", False),
        ("bytes=0-9", "bytes 0-8/100", False),
        ("bytes=5-9", "bytes 0-99/100", False),
        ("bytes=0-9", "", False),
        ("bytes=0-9", "items 0-9/100", False),
    ],
)
def test_parts_as_servers_name_them(asked: str, came: str, fits: bool) -> None:
    if fits:
        check_part(asked, came, "https://example.org/a.npy")
        return
    with pytest.raises(InputError, match=f"where {asked} was asked for: copy the file"):
        check_part(asked, came, "https://example.org/a.npy?secret=1")

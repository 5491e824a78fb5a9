"""Zarr stores that are incomplete: missing, empty and short chunks, and metadata that declares what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError, PlanError
from engine.sources.labels import open_labels
from engine.sources.open import open_source
from engine.sources.reading import Reading
from engine.sources.scenes import open_scenes
from tests.helpers.runs import Engine
from tests.helpers.world import World

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")

IMAGES = np.random.default_rng(4).integers(1, 240, (10, 8, 16)).astype(np.uint8)
FILL = Reading(missing_chunks="fill")


def store(path: Path, images: np.ndarray = IMAGES, **how: object) -> Path:
    array = zarr.create_array(store=path, shape=images.shape, dtype=images.dtype, **{"chunks": (2, 8, 16), **how})
    array[:] = images
    return path


def chunks(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".z", "zarr.")))


def pixels(path: Path | str, reading: Reading = FILL) -> np.ndarray:
    return np.concatenate([batch.pixels for batch in open_source(path, reading=reading).batches(3)])[..., 0]


LAYOUTS = [
    {},
    {"zarr_format": 2},
    {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    {"chunk_key_encoding": {"name": "default", "separator": "."}},
    {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    {"shards": (4, 8, 16), "chunks": (2, 8, 16)},
    {"chunks": (2, 5, 7)},
]


@pytest.mark.parametrize("how", LAYOUTS)
def test_missing_chunks_are_counted(how: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store(tmp_path / "a.zarr", fill_value=7, **how)
    np.testing.assert_array_equal(pixels(path, Reading()), IMAGES)
    total = len(chunks(path))
    for file in chunks(path)[1:3]:
        file.unlink()
    told = f"2 of {total} chunks are missing"
    for opened in (open_source, open_scenes):
        with pytest.raises(InputError, match=f"{told}, as after an interrupted copy: .*--missing-chunks fill"):
            opened(path)
    capsys.readouterr()
    filled = pixels(path)
    assert capsys.readouterr().err == f"{path}: {told}; they are read as 7\n"
    assert (filled == 7).any()
    np.testing.assert_array_equal(filled[filled != 7], IMAGES[filled != 7])


def test_missing_chunks_of_a_group_and_behind_a_url(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_array("images", data=IMAGES, chunks=(2, 8, 16))
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "g.zarr"), "/missing/g.zarr", recursive=True)
    url = "memory://missing/g.zarr"
    assert len(open_source(f"{url}:images")) == 10
    system.rm("/missing/g.zarr/images/c/2/0/0")
    (tmp_path / "g.zarr/images/c/2/0/0").unlink()
    for place in (url, tmp_path / "g.zarr"):
        with pytest.raises(InputError, match=r"g\.zarr:images: 1 of 5 chunks are missing"):
            open_source(f"{place}:images")


def test_label_maps_lack_chunks_by_design(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What writes them leaves out chunks of class 0: they are filled, and that is said."""
    labels = IMAGES // 60
    labels[4:6] = 0
    found = open_labels(store(tmp_path / "labels.zarr", labels), any_size=True)
    np.testing.assert_array_equal(np.concatenate([b.pixels for b in found.batches(4)])[..., 0], labels)
    assert capsys.readouterr().err == f"{found.name}: 1 of 5 chunks are missing; they are read as 0\n"


def test_masks_of_this_program_lack_none(tmp_path: Path, world: World, engine: Engine) -> None:
    """Written with all chunks, even those of zeros: then one that is missing shows."""
    more = ("-o", tmp_path / "m.zarr", "--bias", "9,0,0,0,0", "--no-suppress")
    assert engine("ensemble", "-m", world.models, "-i", world.images_file, *more).code == 0
    assert not np.asarray(zarr.open(tmp_path / "m.zarr", mode="r")).any()
    assert len(chunks(tmp_path / "m.zarr")) == 1


def test_the_option(world: World, tmp_path: Path, engine: Engine) -> None:
    path = store(tmp_path / "a.zarr")
    chunks(path)[3].unlink()
    line = ("ensemble", "-m", world.models, "-i", path, "-o", tmp_path / "m.npy")
    refused = engine(*line)
    assert (refused.code, "1 of 5 chunks are missing" in refused.err) == (2, True)
    assert engine(*line, "--missing-chunks", "fail").code == 2
    unknown = engine(*line, "--missing-chunks", "skip")
    assert unknown.err == "error: --missing-chunks skip: unknown; allowed are fail and fill\n"
    done = engine(*line, "--missing-chunks", "fill")
    assert (done.code, "1 of 5 chunks are missing; they are read as 0" in done.err) == (0, True)


COMPRESSORS = [
    *((2, ours) for ours in (
        numcodecs.Blosc(), numcodecs.Blosc("zstd"), numcodecs.Blosc("lz4", clevel=0), numcodecs.Zlib(),
        numcodecs.GZip(), numcodecs.BZ2(), numcodecs.LZMA(), numcodecs.LZ4(), numcodecs.Zstd(), None,
    )),
    *((3, ours) for ours in (zarr.codecs.BloscCodec(), zarr.codecs.ZstdCodec(), zarr.codecs.GzipCodec(), None)),
]  # fmt: skip


@pytest.mark.parametrize(("form", "ours"), COMPRESSORS)
def test_chunks_cut_short_are_never_read_as_other_pixels(form: int, ours: object, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 4, (10, 64, 64)).astype(np.uint8)
    path = store(tmp_path / "a.zarr", images, chunks=(5, 64, 64), zarr_format=form, compressors=ours)
    np.testing.assert_array_equal(pixels(path, Reading()), images)
    chunk = chunks(path)[1]
    whole = chunk.read_bytes()
    for left in (len(whole) - 1, len(whole) - 7, len(whole) // 2, 20, 16, 15, 1, 0):
        chunk.write_bytes(whole[:left])
        with pytest.raises(InputError, match="copy it again"):
            pixels(path)


def test_an_empty_shard_is_no_missing_one(tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", shards=(4, 8, 16))
    chunks(path)[1].write_bytes(b"")
    with pytest.raises(InputError, match="its chunk c/1/0/0 is empty, as after an interrupted copy"):
        open_source(path, reading=FILL)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(
    ("shape", "sides", "told"),
    [
        (
            [10**12, 8, 16],
            [2, 8, 16],
            r"declares 128,000,000,000,000 bytes in 500,000,000,000 chunks; \d are there",
        ),
        (
            [10**12, 8, 16],
            [10**12, 8, 16],
            r"declares chunks of 128,000,000,000,000 bytes, more|each of which takes 128000.0 GB",
        ),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_metadata_that_declares_what_is_not_there(
    form: int, shape: list[int], sides: list[int], told: str, empty: bool, tmp_path: Path
) -> None:
    path = store(tmp_path / "a.zarr", zarr_format=form)
    for file in chunks(path) if empty else ():
        file.unlink()
    about = path / (".zarray" if form == 2 else "zarr.json")
    held = json.loads(about.read_text())
    held["shape"] = shape
    if form == 2:
        held["chunks"] = sides
    else:
        held["chunk_grid"]["configuration"]["chunk_shape"] = sides
    about.write_text(json.dumps(held))
    for opened in (open_source, open_scenes):
        with pytest.raises(InputError, match=told):
            opened(path, reading=FILL)


def test_a_store_without_any_chunk_is_no_set_of_images(tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr")
    for file in chunks(path):
        file.unlink()
    with pytest.raises(InputError, match="5 of 5 chunks are missing"):
        open_source(path)
    with pytest.raises(PlanError, match="--missing-chunks none: unknown"):
        from engine.sources.zarr_chunks import check_missing

        check_missing("none")

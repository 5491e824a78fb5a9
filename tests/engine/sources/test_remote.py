"""Inputs behind URLs: the same images as from disk, no more bytes fetched than needed, no secret in any message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError
from engine.sources import remote
from engine.sources.base import Source
from engine.sources.fingerprint import fingerprint
from engine.sources.labels import open_labels
from engine.sources.open import open_source
from engine.sources.spec import is_url, scrubbed, shown, split_url
from tests.conftest import Result
from tests.helpers.world import World

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
COUNT = 23


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system behind memory://, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 5, (COUNT, 4, 6)).astype(np.uint8)


def npy(folder: Path, pixels: np.ndarray) -> str:
    np.save(folder / "x.npy", pixels)
    return "x.npy"


def npz(folder: Path, pixels: np.ndarray) -> str:
    np.savez_compressed(folder / "x.npz", other=np.zeros(3), tiles=pixels)
    return "x.npz:tiles"


def zarr(folder: Path, pixels: np.ndarray) -> str:
    package = pytest.importorskip("zarr", reason="zarr is not installed")
    group = package.open_group(folder / "x.zarr", mode="w")
    group.create_array("tiles", data=pixels, chunks=(5, 4, 6))
    return "x.zarr:tiles"


def pictures(folder: Path, pixels: np.ndarray) -> str:
    (folder / "tiles").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "tiles" / f"{index}.png")
    return "tiles"


def tables(folder: Path, pixels: np.ndarray) -> str:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    (folder / "set").mkdir()
    for number, rows in enumerate((slice(0, 9), slice(9, COUNT))):
        array = arrow.FixedShapeTensorArray.from_numpy_ndarray(pixels[rows])
        pyarrow.parquet.write_table(arrow.table({"image": array}), folder / "set" / f"{number}.parquet", 4)
    return "set"


FORMS = [npy, npz, zarr, pictures, tables]


def upload(memory: Any, folder: Path, name: str = "data") -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"memory://{name}"


def same(found: Source, want: Source) -> None:
    assert (list(found.ids), found.size, found.channels) == (list(want.ids), want.size, want.channels)
    whole = np.concatenate([batch.pixels for batch in want.batches(4)])
    for size in (1, 5, 40):
        np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in found.batches(size)]), whole)
    assert (found.at is None) == (want.at is None)
    if found.at is not None:
        for start, stop in ((20, 23), (0, 2), (2, 9)):
            np.testing.assert_array_equal(found.at(start, stop), whole[start:stop])


@pytest.mark.parametrize("write", FORMS)
def test_every_form_is_the_same_behind_a_url(
    write: Callable[[Path, np.ndarray], str], memory: Any, pixels: np.ndarray, tmp_path: Path
) -> None:
    name = write(tmp_path, pixels)
    there = upload(memory, tmp_path)
    for url in (f"{there}/{name}", f"file://{tmp_path}/{name}"):
        same(open_source(url), open_source(f"{tmp_path}/{name}"))
        same(open_labels(url), open_labels(f"{tmp_path}/{name}"))


@pytest.mark.parametrize("write", FORMS)
def test_a_fingerprint_changes_with_what_is_there(
    write: Callable[[Path, np.ndarray], str], memory: Any, pixels: np.ndarray, tmp_path: Path
) -> None:
    name = write(tmp_path, pixels)
    there = f"{upload(memory, tmp_path)}/{name}"
    seen = fingerprint(there)
    assert fingerprint(there) == seen
    path = next(path for path in sorted(memory.store) if path.startswith(f"/data/{name.split(':')[0]}"))
    held = memory.cat_file(path)
    memory.pipe(path, held + b"\0")
    assert fingerprint(there) != seen
    # S3, GCS and Azure tell a checksum; where and when it was written does not count then.
    told = remote.RemoteFile(memory, path, there, there, {"size": 3, "ETag": "abc", "LastModified": "now"})
    assert remote._state(told) == "abc"


def test_a_run_over_a_url_is_that_over_the_file(
    memory: Any, world: World, tmp_path: Path, engine: Callable[..., Result]
) -> None:
    memory.pipe("/data/images.npz", world.images_file.read_bytes())
    memory.pipe("/data/labels.npz", world.labels_file.read_bytes())
    places = (("a.csv", world.folder), ("b.csv", "memory://data"))
    for name, place in places:
        labels = f"{place}/labels.npz"
        done = engine(
            "ensemble", "-m", world.models, "-i", f"{place}/images.npz", "--labels", labels, "-o", tmp_path / name
        )
        assert done.code == 0, done.err
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


HUGE = (
    b"\x93NUMPY\x01\x00"
    + b"\x76\0"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 64, 64)}".ljust(117)
    + b"\n"
)


class Counted:
    """A file system that counts what is asked of it, and fails as often as it is told to."""

    def __init__(self, system: Any, fails: int = 0, error: Exception | None = None, short: bool = False) -> None:
        self.system, self.fails, self.error, self.short = system, fails, error or OSError("gone for a moment"), short
        self.fetched = self.asked = 0

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.asked += 1
        if self.fails:
            self.fails -= 1
            raise self.error
        self.fetched += end - start
        return self.system.cat_file(path) if self.short else self.system.cat_file(path, start=start, end=end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.system, name)


def counted(monkeypatch: pytest.MonkeyPatch, memory: Any, **more: Any) -> Counted:
    system = Counted(memory, **more)
    found = fsspec.core.url_to_fs

    def url_to_fs(url: str, **options: Any) -> tuple[Any, str]:
        return system, found(url.split("?")[0].replace("reader:hunter2@", ""), **options)[1]

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    return system


def test_of_an_array_the_rows_asked_for_are_fetched(
    memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (4000, 64, 128)).astype(np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    upload(memory, tmp_path)
    system = counted(monkeypatch, memory)
    source = open_source("memory://data/x.npy")
    assert source.at is not None
    head = system.fetched
    assert head <= remote.HEAD_BYTES
    np.testing.assert_array_equal(source.at(3000, 3007)[..., 0], pixels[3000:3007])
    assert system.fetched - head == 7 * 64 * 128
    for batch in source.batches(64):
        np.testing.assert_array_equal(batch.pixels[..., 0], pixels[batch.start : batch.start + len(batch.ids)])
    assert system.fetched - head == (4000 + 7) * 64 * 128


def test_reads_that_fail_are_done_again_twice(
    memory: Any, monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray, tmp_path: Path
) -> None:
    npy(tmp_path, pixels)
    upload(memory, tmp_path)
    source = None
    for fails, goes in ((2, True), (3, False)):
        system = counted(monkeypatch, memory, fails=fails)
        if goes:
            source = open_source("memory://data/x.npy")
            continue
        with pytest.raises(InputError, match="gone for a moment"):
            open_source("memory://data/x.npy")
        assert system.asked == 3
    assert source is not None
    for error in (PermissionError("no"), FileNotFoundError("no")):
        system = counted(monkeypatch, memory, fails=1, error=error)
        with pytest.raises(InputError):
            open_source("memory://data/x.npy")
        assert system.asked == 1
    counted(monkeypatch, memory, short=True)
    with pytest.raises(InputError, match="were asked for"):
        open_source("memory://data/x.npy").at(1, 2)  # type: ignore[misc]


SECRET = "memory://reader:hunter2@data/x.npy?X-Signature=s3cr3t%2Fkey&Expires=60"


def test_no_message_holds_a_secret(
    memory: Any, monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray, world: World, tmp_path: Path,
    engine: Callable[..., Result],
) -> None:  # fmt: skip
    npy(tmp_path, pixels)
    upload(memory, tmp_path)
    error = OSError(f"403 for {SECRET}, user reader:hunter2, key s3cr3t/key or s3cr3t%2Fkey")
    for more in ({"fails": 9, "error": error}, {"short": True}):
        counted(monkeypatch, memory, **more)
        done = engine("ensemble", "-m", world.models, "-i", SECRET, "-o", tmp_path / "m.csv")
        assert done.code == 2
        for word in ("hunter2", "s3cr3t", "reader"):
            assert word not in done.err + done.out, done.err
    assert shown(SECRET) == "memory://data/x.npy?..."
    assert scrubbed(f"see {SECRET}", SECRET) == "see memory://data/x.npy?..."


def test_what_cannot_be_read_is_told_in_one_line(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/d/x.txt", b"text")
    memory.pipe("/d/x.npy", HUGE)
    memory.pipe("/d/x.npz", b"PK and no more")
    memory.pipe("/d/x.parquet", b"PAR1")
    memory.pipe("/d/x.png", b"\x89PNG")
    memory.pipe("/pictures/x.png", b"\x89PNG")
    memory.pipe("/x.zarr/zarr.json", b"{}")
    np.save(tmp_path / "x.npy", np.asfortranarray(np.zeros((3, 4, 6), np.uint8)))
    for url, told in (
        ("memory://d/none.npy", "no such file or folder: memory://d/none.npy"),
        ("memory://d/x.txt", "cannot read .txt"),
        ("memory://d/x.npy", "declares"),
        ("memory://d/x.npz", "cannot read memory://d/x.npz"),
        ("memory://d/x.parquet", "cannot read memory://d/x.parquet"),
        ("memory://d/x.png", "is one picture"),
        ("memory://pictures", "cannot read the image memory://pictures/x.png"),
        ("memory://x.zarr", "memory://x.zarr: which array?"),
        ("memory://nothing/", "no such file or folder"),
        ("nosuch://a/b.npy", "nosuch"),
        (f"file://{tmp_path}/x.npy", "column by column"),
        ("memory://d/x.csv", "copy it here"),
    ):
        with pytest.raises(InputError, match=r"^[^\n]*$") as refused:
            (open_labels if url.endswith("csv") else open_source)(url)
        assert told in str(refused.value)


def test_names_that_are_urls() -> None:
    for spec in ("s3://b/x.npy", "https://h/x", "memory://x", "simplecache::s3://b/x"):
        assert is_url(spec)
    for spec in ("x.npz:key", "C:/tiles", "./a://b", "folder/x.zarr:a/b"):
        assert not is_url(spec)
    assert split_url("s3://b/x.npz:tiles") == ("s3://b/x.npz", "tiles")
    assert split_url("s3://b/x.parquet") == ("s3://b/x.parquet", "")
    assert split_url("zip://x.npz::s3://b/all.zip") == ("zip://x.npz::s3://b/all.zip", "")

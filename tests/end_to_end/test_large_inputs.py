"""Inputs that do not fit in memory: read in parts, ahead of their use, and nothing of them kept."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError
from engine.sources.labels import as_labels, open_labels
from engine.sources.open import open_source
from engine.utils.threads import ahead

zarr = pytest.importorskip("zarr", reason="Zarr stores need the extra zarr")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory in use is read from /proc")
@pytest.mark.parametrize("held", [0, 8])
def test_a_mapped_array_does_not_stay_in_memory(held: int, tmp_path: Path) -> None:
    """96 MB of rows, of which each is touched; batches still in work are held for a while."""
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (1500, 256, 256))
    array[:] = np.arange(1500, dtype=np.uint8)[:, None, None]
    del array
    source = open_source(tmp_path / "x.npy")
    before, most, sums, waiting = resident(), 0, [], []
    for batch in source.batches(4):
        sums.append(int(batch.pixels.sum(dtype=np.int64)))
        waiting = [*waiting[-held:], batch.pixels] if held else []
        assert all(int(pixels[0, 0, 0, 0]) < 256 for pixels in waiting)
        most = max(most, resident() - before)
    assert sum(sums) == int(np.arange(1500).astype(np.uint8).astype(int).sum()) * 256 * 256
    assert most < 40e6


def test_what_was_let_go_of_can_be_read_again(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (700, 256, 256), np.uint8)
    np.save(tmp_path / "x.npy", array)
    batches = list(open_source(tmp_path / "x.npy").batches(100))
    np.testing.assert_array_equal(np.concatenate([batch.pixels[..., 0] for batch in batches]), array)


def test_results_come_in_order_and_only_so_many_are_ready() -> None:
    started: list[int] = []
    gate = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item == 0:
            gate.wait(10)
        return item * item

    results = ahead(work, range(50), threads=2, waiting=4)
    threading.Timer(0.05, gate.set).start()
    assert next(results) == 0
    assert len(started) <= 4
    assert list(results) == [item * item for item in range(1, 50)]


def test_an_error_comes_where_its_result_would_have() -> None:
    results = ahead(lambda item: 1 // item, [3, 1, 0, 1], threads=2, waiting=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_leaving_early_stops_the_threads() -> None:
    before = threading.active_count()
    results = ahead(lambda item: item, range(1000), threads=3, waiting=5)
    next(results)
    results.close()
    # Nobody waits for them, but they end.
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_folder_tells_the_damaged_picture_when_its_turn_comes(tmp_path: Path) -> None:
    for index in range(30):
        Image.new("L", (8, 4), index).save(tmp_path / f"{index}.png")
    (tmp_path / "20.png").write_bytes(b"no picture")
    seen = 0
    with pytest.raises(InputError, match=r"20\.png"):
        for batch in open_source(tmp_path).batches(4):
            assert batch.pixels[:, 0, 0, 0].tolist() == list(range(seen, seen + 4))
            seen += 4
    assert seen == 20


def test_sizes_that_differ_are_for_tiles(tmp_path: Path) -> None:
    Image.new("L", (8, 4)).save(tmp_path / "a.png")
    Image.new("L", (9, 4)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png is 4x9 .* --tile HEIGHTxWIDTH"):
        list(open_source(tmp_path).batches(2))
    with pytest.raises(InputError, match=r"a\.png is one picture: add --tile"):
        open_source(tmp_path / "a.png")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("shape", [(20, 4, 8), (20, 4, 8, 3), (20, 3, 4, 8)])
def test_zarr_reads_as_it_was_written(shape: tuple[int, ...], chunk: int, version: int, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint16)
    path = tmp_path / "x.zarr"
    stored = zarr.create_array(
        store=path, shape=shape, dtype="u2", chunks=(min(chunk, 20), *shape[1:]), zarr_format=version
    )
    stored[:] = array
    wanted = array.transpose(0, 2, 3, 1) if shape[1] == 3 else array.reshape(20, 4, 8, -1)
    source = open_source(path)
    assert (source.size, source.channels, len(source)) == ((4, 8), wanted.shape[3], 20)
    for size in (1, 6, 50):
        batches = list(source.batches(size))
        assert [len(batch.ids) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in batches]), wanted)


def test_groups_are_asked_for_their_key(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    for name, value in (("first/tiles", 1), ("masks", 2)):
        group.create_array(name, shape=(2, 3, 4), dtype="u1")[:] = value
    key = f"{tmp_path / 'g.zarr'}:first/tiles"
    assert next(open_source(key).batches(2)).pixels.max() == 1
    assert next(open_labels(tmp_path / "g.zarr").batches(2)).pixels.max() == 2
    with pytest.raises(InputError, match=r"first/tiles \(2, 3, 4\).*say .*g\.zarr:KEY"):
        open_source(tmp_path / "g.zarr")
    with pytest.raises(InputError, match="no array 'other'; there are: "):
        open_source(f"{tmp_path / 'g.zarr'}:other")


def test_stores_that_are_none(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    (tmp_path / "damaged.zarr").mkdir()
    (tmp_path / "damaged.zarr" / "zarr.json").write_text("{no")
    (tmp_path / "nothing.zarr").mkdir()
    zarr.create_array(store=tmp_path / "flat.zarr", shape=(4,), dtype="u1")[:] = 7
    stored = zarr.create_array(store=tmp_path / "chunk.zarr", shape=(2, 4, 4), chunks=(1, 4, 4), dtype="u1")
    stored[:] = 7
    for path in (tmp_path / "chunk.zarr" / "c" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"xx")
    for name, told in {
        "empty": "which array",
        "damaged": "cannot read the Zarr store",
        "nothing": "cannot read the Zarr store",
        "flat": "has shape",
        "chunk": "damaged, copy it again",
    }.items():
        with pytest.raises(InputError, match=told) as held:
            list(open_source(tmp_path / f"{name}.zarr").batches(1))
        assert "\n" not in str(held.value)


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match=r"needs zarr: pip install 'maskfuse\[zarr\]'"):
        open_source(tmp_path / "x.zarr")


RUNS = "id_class,rle\na_0,1 2\na_1,3 4\nb_0,\nb_1,1 6\n"


def test_run_lengths_by_hand(tmp_path: Path) -> None:
    (tmp_path / "x.rle.csv").write_text(RUNS)
    source = open_labels(tmp_path / "x.rle.csv")
    assert (list(source.ids), source.size) == (["a", "b"], (1, 6))
    labels = as_labels(next(source.batches(2)), 2, "x")
    np.testing.assert_array_equal(labels, [[0, 0, 1, 1, 1, 1], [1] * 6])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("a_1,3 4", "a_1,4 3", "pixel 3 of image a has no class"),
        ("a_1,3 4", "a_1,2 5", "pixel 2 of image a has two classes"),
        ("b_1,1 6", "b_1,1 5", "image b has 5 pixels, image a has 6"),
        ("b_1,1 6", "b_1,", "image b has no runs"),
        ("a_1,3 4", "a_1,3", "line 3, image a, holds something other than pairs"),
        ("a_1,3 4", "a_1,3 -4", "line 3, image a, holds something other than pairs"),
        ("a_1,3 4", "a_1,3 " + "9" * 30, "line 3, image a, holds something other than pairs"),
        ("a_0,1 2", "a_0,0 2", "starts count from 1"),
        ("a_0,", "a,", "line 2 begins with 'a': "),
        ("a_0,", "a_300,", "line 2 begins with 'a_300'"),
        ("b_1,", "a_1,", "the rows of image a are not together"),
        (RUNS[13:], "", "has a header and no rows"),
    ],
)
def test_run_lengths_that_are_none(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in RUNS
    (tmp_path / "x.rle.csv").write_text(RUNS.replace(old, new))
    with pytest.raises(InputError, match=told):
        list(open_labels(tmp_path / "x.rle.csv").batches(2))

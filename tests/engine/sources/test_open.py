"""Images and labels in every form they come in: the same pixels, in order, whatever the batch."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError, PlanError
from engine.sources.base import Source, from_array
from engine.sources.labels import as_labels, check_match, open_labels
from engine.sources.numpy_files import array_files
from engine.sources.open import open_source, split_key
from engine.sources.slices import limited

SHAPE = (7, 8, 16)


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, SHAPE).astype(np.uint8)


def whole(source: Source, size: int = 3) -> np.ndarray:
    batches = list(source.batches(size))
    assert [batch.start for batch in batches] == list(range(0, len(source), size))
    assert [name for batch in batches for name in batch.ids] == list(source.ids)
    assert all(batch.pixels.ndim == 4 for batch in batches)
    return np.concatenate([batch.pixels for batch in batches])


def save_npy(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


def save_npz(folder: Path, array: np.ndarray) -> Path:
    np.savez(folder / "x.npz", images=array)
    return folder / "x.npz"


def save_packed(folder: Path, array: np.ndarray) -> Path:
    np.savez_compressed(folder / "y.npz", images=array)
    return folder / "y.npz"


@pytest.mark.parametrize("save", [save_npy, save_npz, save_packed])
@pytest.mark.parametrize("kind", ["|u1", "<u2", ">u2", "<i8", "<f4", ">f8", "|b1"])
@pytest.mark.parametrize("fortran", [False, True])
def test_arrays_of_every_kind(
    save: Callable[[Path, np.ndarray], Path], kind: str, fortran: bool, stack: np.ndarray, tmp_path: Path
) -> None:
    array = stack.astype(kind)
    source = open_source(save(tmp_path, np.asfortranarray(array) if fortran else array))
    assert (source.size, source.channels, len(source)) == ((8, 16), 1, 7)
    assert list(source.ids) == [str(index) for index in range(7)]
    for size in (1, 3, 7, 10**9):
        np.testing.assert_array_equal(whole(source, size)[..., 0], array)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", [True, False])
def test_channels_first_or_last(channels: int, last: bool, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 256, (5, 8, 16, channels)).astype(np.uint8)
    given = array if last else array.transpose(0, 3, 1, 2)
    for source in (open_source(save_npz(tmp_path, given)), from_array(given)):
        assert (source.size, source.channels) == ((8, 16), channels)
        np.testing.assert_array_equal(whole(source), array)


def test_the_tasks_own_file(stack: np.ndarray, tmp_path: Path) -> None:
    """`training_set` pairs images with masks, `test_set` holds images alone."""
    pairs = np.stack([stack, stack % 5], axis=1).astype(np.float64)
    np.savez(tmp_path / "task.npz", training_set=pairs, test_set=stack[:3])
    np.testing.assert_array_equal(whole(open_source(tmp_path / "task.npz"))[..., 0], stack[:3])
    key = f"{tmp_path / 'task.npz'}:training_set"
    np.testing.assert_array_equal(whole(open_source(key))[..., 0], stack)
    for spec in (key, tmp_path / "task.npz"):
        labels = open_labels(spec)
        np.testing.assert_array_equal(as_labels(next(labels.batches(7)), 5, "labels").reshape(SHAPE), stack % 5)


def test_a_key_after_the_colon(stack: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "odd.npz:name.npz"
    with path.open("wb") as stream:
        np.savez(stream, images=stack, more=stack[:2])
    assert split_key(str(path)) == (path, "")
    assert len(open_source(path)) == 7
    assert len(open_source(f"{path}:more")) == 2
    with pytest.raises(InputError, match=r"'pictures'; there are: images \(7, 8, 16\), more \(2, 8, 16\)"):
        open_source(f"{path}:pictures")


def test_reading_an_archive_takes_the_memory_of_a_batch(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((400, 64, 128), np.float64))
    source = open_source(tmp_path / "x.npz")
    tracemalloc.start()
    for batch in source.batches(2):
        assert batch.pixels.shape == (2, 64, 128, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 * 64 * 128 * 8 / 10


def test_only_headers_are_read_to_list_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((3, 2)), text=np.array(["x"]), things=np.array([{}]))
    found = array_files(tmp_path / "x.npz")
    assert {key: array.shape for key, array in found.items()} == {"a": (3, 2), "text": (1,), "things": (1,)}
    assert [key for key, array in found.items() if array.holds_numbers] == ["a"]


def pictures(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    for name, array in arrays.items():
        Image.fromarray(array).save(folder / name)
    return folder


def test_folders_are_sorted_as_people_sort(stack: np.ndarray, tmp_path: Path) -> None:
    names = ["10.png", "9.bmp", "100.tif"]
    numbered = open_source(pictures(tmp_path / "n", dict(zip(names, stack, strict=False))))
    assert list(numbered.ids) == ["9", "10", "100"]
    np.testing.assert_array_equal(whole(numbered, 2)[..., 0], stack[[1, 0, 2]])
    named = open_source(pictures(tmp_path / "a", {"b.png": stack[0], "a 10.png": stack[1], "größe.pgm": stack[2]}))
    assert list(named.ids) == ["a 10", "b", "größe"]
    (tmp_path / "a" / "notes.txt").write_text("left alone")
    assert len(open_source(tmp_path / "a")) == 3


@pytest.mark.parametrize(
    ("mode", "channels", "kind"),
    [
        ("L", 1, "u1"),
        ("RGB", 3, "u1"),
        ("RGBA", 3, "u1"),
        ("P", 3, "u1"),
        ("LA", 1, "u1"),
        ("I;16", 1, "u2"),
        ("1", 1, "b1"),
    ],
)
def test_pictures_of_every_mode(mode: str, channels: int, kind: str, tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    Image.new(mode, (16, 8)).save(tmp_path / "tiles" / "a.png")
    source = open_source(tmp_path / "tiles")
    assert (source.size, source.channels) == ((8, 16), channels)
    assert whole(source).dtype == np.dtype(kind)


def test_label_pictures_keep_their_palettes_indices(stack: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    image = Image.fromarray(stack[0] % 5)
    image.putpalette([9, 9, 9] * 5)
    image.save(tmp_path / "truth" / "a.png")
    np.testing.assert_array_equal(whole(open_labels(tmp_path / "truth"))[0, ..., 0], stack[0] % 5)
    Image.new("RGB", (16, 8)).save(tmp_path / "truth" / "a.png")
    with pytest.raises(InputError, match=r"a\.png has 3 channels"):
        open_labels(tmp_path / "truth")


def submission(path: Path, ids: list[str], rows: np.ndarray, end: str = "\n") -> Path:
    lines = [",".join(["id", *map(str, range(rows.shape[1]))])]
    lines += [",".join([name, *map(str, row)]) for name, row in zip(ids, rows.tolist(), strict=True)]
    path.write_bytes(end.join([*lines, ""]).encode("utf-8", "surrogateescape"))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("top", [10, 251])
def test_a_submission_reads_as_its_labels(top: int, end: str, stack: np.ndarray, tmp_path: Path) -> None:
    rows = stack.reshape(7, -1) % top
    ids = ["0", "a b", '"with, comma"', '"two ""quotes"""', "größe", "bytes\udcff", "-1"]
    source = open_labels(submission(tmp_path / "x.csv", ids, rows, end))
    assert list(source.ids) == ["0", "a b", "with, comma", 'two "quotes"', "größe", "bytes\udcff", "-1"]
    assert source.size == (1, 128)
    for size in (1, 3, 100):
        np.testing.assert_array_equal(whole(source, size)[:, 0, :, 0], rows)


@pytest.mark.parametrize("bad", ["", "x", "-1", "1.0", "256", "1000", " 1", "9" * 5000])
def test_a_submission_holds_whole_numbers_alone(bad: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"id,0,1,2\na,1,2,3\nb,1,{bad},3\n")
    with pytest.raises(InputError, match=r"x\.csv line 3 "):
        list(open_labels(tmp_path / "x.csv").batches(2))


@pytest.mark.parametrize("header", ["", "id", "name,0,1", "id,1,2", "id,0,2", "id;0;1"])
def test_a_submission_has_its_header(header: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(header + "\na,1,2\n", "utf-8")
    with pytest.raises(InputError, match="first line must read"):
        open_labels(tmp_path / "x.csv")


@pytest.mark.parametrize("value", [5, 254, -1, 0.5, np.nan, np.inf])
def test_a_label_outside_the_classes_is_named(value: float, stack: np.ndarray) -> None:
    maps = (stack % 5).astype(np.float64)
    maps[4, 2, 3] = value
    batch = next(from_array(maps, "labels").batches(7))
    with pytest.raises(InputError, match=f"truth: label map 4 holds {value}"):
        as_labels(batch, 5, "truth")
    assert as_labels(next(from_array(maps[:4], "labels").batches(7)), 5, "truth").dtype == np.uint8


def named(ids: list[str], size: tuple[int, int] = (8, 16), have_names: bool = True) -> Source:
    return Source("set", ids, size, 1, lambda count: iter(()), named=have_names)


def test_labels_match_by_name_or_else_by_place() -> None:
    check_match(named(["a", "b"]), named(["a", "b"]))
    check_match(named(["a", "b"]), named(["0", "1"], have_names=False))
    check_match(named(["0", "1"], have_names=False), named(["0", "1"], (1, 128)))
    for images, labels, told in (
        (named(["a", "b"]), named(["b", "a"]), "sort them alike"),
        (named(["a", "b"]), named(["a", "c"]), "id c where set has b"),
        (named(["0", "1"], have_names=False), named(["1", "0"]), "sort them alike"),
        (named(["a", "b"]), named(["a"]), "1 label maps, set holds 2"),
        (named(["a"]), named(["a"], (16, 8)), "16x8, set holds 8x16"),
        (named(["a"]), named(["a"], (1, 127)), "1x127"),
    ):
        with pytest.raises(InputError, match=told):
            check_match(images, labels)


@pytest.mark.parametrize("limit", [1, 3, 6, 7, 8, 10**30])
def test_a_limit_cuts_ids_and_pixels_alike(limit: int, stack: np.ndarray) -> None:
    source = limited(from_array(stack), limit)
    for size in (1, 2, 4, 100):
        np.testing.assert_array_equal(whole(source, size)[..., 0], stack[:limit])
    with pytest.raises(PlanError, match="--limit -1"):
        limited(source, -1)


@pytest.mark.parametrize("shape", [(), (3,), (8, 16), (0, 8, 16), (2, 0, 16), (2, 65, 80, 90), (1, 1, 1, 1, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    for role in ("images", "labels"):
        with pytest.raises(InputError, match="has shape"):
            from_array(np.zeros(shape, np.uint8), role, "x")  # type: ignore[arg-type]

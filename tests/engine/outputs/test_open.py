"""Writers: complete or not there at all, and readable by other programs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from engine.errors import EngineError, OutputError
from engine.outputs.open import WRITERS, MaskWriter, check_output, open_writer
from engine.outputs.path import output_path
from engine.outputs.png import PngStream
from engine.sources.labels import as_labels, open_labels
from engine.utils.palette import colours
from tests.helpers.runs import content

SIZE = (3, 4)
IDS = ["a", "with, comma", 'with "quotes"', "größe", "bytes\udcff"]
GOALS = [f"masks{form}" for form in WRITERS]
# What the engine itself reads back.
READ = ["masks.csv", "masks.rle.csv", "masks.json", "masks.json", "masks.npy", "masks.npz", "masks", "masks.zarr"]


@pytest.fixture
def masks() -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, 256, (len(IDS), *SIZE)).astype(np.uint8)
    drawn[0].flat[:6] = (0, 9, 10, 99, 100, 255)
    return drawn


def write(
    goal: Path, masks: np.ndarray, ids: list[str] = IDS, sizes: tuple[int, ...] = (2, 3), **options: bool
) -> None:
    with open_writer(goal, ids, SIZE, 256, **options) as writer:
        start = 0
        for size in sizes:
            writer.write(ids[start : start + size], masks[start : start + size].reshape(size, -1))
            start += size


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("goal", READ)
def test_what_is_written_reads_back(goal: str, masks: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / goal, masks)
    assert left(tmp_path) == [goal]
    source = open_labels(tmp_path / goal)
    got = as_labels(next(source.batches(9)), 256, goal).reshape(masks.shape)
    order = np.argsort(IDS) if goal == "masks" else np.arange(len(IDS))
    np.testing.assert_array_equal(got, masks[order])
    if source.named:
        assert list(source.ids) == [IDS[index] for index in order]


def test_other_programs_read_the_csv(masks: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / "m.csv", masks)
    # As plain objects: strings held by Arrow cannot be anything but UTF-8.
    table = pandas.read_csv(tmp_path / "m.csv", index_col="id", dtype={"id": object}, encoding_errors="surrogateescape")
    assert list(table.index) == IDS
    assert list(table.columns) == [str(index) for index in range(12)]
    np.testing.assert_array_equal(table.to_numpy(), masks.reshape(5, -1))
    text = (tmp_path / "m.csv").read_bytes()
    assert text.startswith(b"id,0,1,2,3,4,5,6,7,8,9,10,11\na,0,9,10,99,100,255,")
    assert text.endswith(b"\n")
    assert b" " not in text.replace(b"with ", b"").replace(b", comma", b"")


def test_other_programs_read_the_run_lengths(masks: np.ndarray, tmp_path: Path) -> None:
    """Decoded with pandas and a loop, from the convention alone: pairs of start, from 1, and length, row by row."""
    few = masks % 3
    with open_writer(tmp_path / "m.rle.csv", IDS, SIZE, 4) as writer:
        writer.write(IDS, few.reshape(len(IDS), -1))
    table = pandas.read_csv(
        tmp_path / "m.rle.csv", dtype={"id_class": object}, encoding_errors="surrogateescape", keep_default_na=False
    )
    assert list(table.columns) == ["id_class", "rle"]
    assert list(table["id_class"]) == [f"{name}_{value}" for name in IDS for value in range(4)]
    assert (table["rle"][3::4] == "").all()
    got = np.full(few.shape, 255, np.uint8)
    for position, text in enumerate(table["rle"]):
        numbers = [int(word) for word in text.split()]
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            got[position // 4].flat[start - 1 : start - 1 + length] = position % 4
    np.testing.assert_array_equal(got, few)


def test_a_slash_means_a_folder_whatever_its_name(masks: np.ndarray, tmp_path: Path) -> None:
    for text in ("masks.v2/", "x.csv/"):
        write(output_path(f"{tmp_path}/{text}"), masks)
        assert len(left(tmp_path / text)) == len(IDS)
    with pytest.raises(OutputError, match=r"cannot write \.v2 .*end its name in / if it has a dot"):
        check_output(output_path(f"{tmp_path}/masks.v2"), overwrite=True)


def test_a_name_that_leads_elsewhere_becomes_no_file(masks: np.ndarray, tmp_path: Path) -> None:
    for name in ("../out", "a/../b", "/a", "a/", "a//b", "..", "", "a\0b", "x" * 252):
        with pytest.raises(OutputError, match="cannot become a file"):
            write(tmp_path / "m", masks[:1], [name], (1,))
    assert left(tmp_path) == []


@pytest.mark.parametrize("parts", [[1] * 40, [40], [7, 33]])
@pytest.mark.parametrize("classes", [2, 5, 256])
def test_a_png_written_in_parts_is_one_picture(classes: int, parts: list[int]) -> None:
    labels = np.random.default_rng(1).integers(0, classes, (40, 30)).astype(np.uint8)
    stream = io.BytesIO()
    picture = PngStream(stream, (40, 30), classes)
    for part in np.split(labels, np.cumsum(parts)[:-1]):
        picture.write(part)
    picture.close()
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        image.verify()
    with Image.open(stream) as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
        assert image.getpalette()[:6] == [value for colour in colours(2) for value in colour]


def test_other_programs_read_the_store(masks: np.ndarray, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="Zarr stores need the extra zarr")
    write(tmp_path / "m.zarr", masks)
    array = zarr.open(tmp_path / "m.zarr", mode="r")
    np.testing.assert_array_equal(array[:], masks)
    assert array.attrs["ids"][:4] == IDS[:4]
    assert [tuple(colour) for colour in array.attrs["colours"]] == colours(256)


def test_a_folder_that_is_no_store_is_not_replaced(tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="Zarr stores need the extra zarr")
    (tmp_path / "m.zarr").mkdir()
    (tmp_path / "m.zarr" / "diary.txt").touch()
    with pytest.raises(OutputError, match=r"is a folder and no Zarr store"):
        check_output(tmp_path / "m.zarr", overwrite=True)


def test_other_programs_read_the_arrays(masks: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / "m.npy", masks)
    write(tmp_path / "m.npz", masks)
    plain = np.load(tmp_path / "m.npy", allow_pickle=False)
    assert (plain.dtype, plain.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(plain, masks)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["ids", "masks"]
        np.testing.assert_array_equal(archive["masks"], masks)
        assert archive["ids"].tolist() == IDS


def test_pictures_hold_ids_and_colours(masks: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / "m", masks % 5)
    with Image.open(tmp_path / "m" / "größe.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), masks[3] % 5)
        shades = {tuple(image.getpalette()[3 * index : 3 * index + 3]) for index in range(256)}
    assert len(shades) > 200


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("there", [False, True])
def test_an_error_on_the_way_leaves_what_was_there(goal: str, there: bool, masks: np.ndarray, tmp_path: Path) -> None:
    if there:
        write(tmp_path / goal, masks)
    before = left(tmp_path), content(tmp_path / goal)
    with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / goal, IDS, SIZE, 256, overwrite=there) as writer:
        writer.write(IDS[:2], masks[:2].reshape(2, -1))
        raise KeyboardInterrupt
    assert (left(tmp_path), content(tmp_path / goal)) == before
    assert bool(before[1]) == there


@pytest.mark.parametrize("goal", GOALS)
def test_how_many_masks_come_at_a_time_does_not_show(goal: str, masks: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / goal, masks)
    (tmp_path / "again").mkdir()
    write(tmp_path / "again" / goal, masks, sizes=(1, 3, 1))
    assert content(tmp_path / goal) == content(tmp_path / "again" / goal)


@pytest.mark.parametrize("goal", GOALS)
def test_a_short_run_is_no_result(goal: str, masks: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="2 of 5 masks came"):
        write(tmp_path / goal, masks, sizes=(2,))
    assert left(tmp_path) == []


@pytest.mark.parametrize("goal", GOALS)
def test_replacing_needs_a_word(goal: str, masks: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / goal, masks)
    with pytest.raises(OutputError, match="--overwrite"):
        write(tmp_path / goal, masks)
    before = content(tmp_path / goal)
    write(tmp_path / goal, 255 - masks, overwrite=True)
    assert left(tmp_path) == [goal]
    assert content(tmp_path / goal) != before
    if goal not in READ:
        return
    got = as_labels(next(open_labels(tmp_path / goal).batches(9)), 256, goal)
    assert sorted(got.ravel().tolist()) == sorted((255 - masks).ravel().tolist())


def full(call: Callable[..., object]) -> Callable[..., object]:
    def refuse(*arguments: object) -> object:
        raise OSError(28, "No space left on device")

    return refuse


@pytest.mark.parametrize("step", ["_open", "_write", "_close", "_place"])
@pytest.mark.parametrize("goal", GOALS)
def test_a_full_disk_at_any_step(
    goal: str, step: str, masks: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(tmp_path / goal, IDS, SIZE, 256)
    monkeypatch.setattr(writer, step, full(getattr(writer, step)))
    with pytest.raises(OutputError, match=r"masks.* \(No space left on device\): choose another place or make space"):
        _run(writer, masks)
    assert left(tmp_path) == []


def _run(writer: MaskWriter, masks: np.ndarray) -> None:
    with writer:
        writer.write(IDS, masks.reshape(len(IDS), -1))


def test_a_folder_that_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for goal in (tmp_path / "none" / "m.csv", tmp_path / "file" / "m.csv"):
        with pytest.raises(OutputError, match="no such folder"):
            check_output(goal, overwrite=True)


@pytest.mark.parametrize("goal", ["m.txt", "m.png", "m.csv.gz", "m.CSV.bak"])
def test_unknown_forms_are_listed(goal: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.csv \(submission\), \.rle\.csv"):
        check_output(tmp_path / goal, overwrite=False)


def test_a_goal_of_the_other_nature_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").mkdir()
    (tmp_path / "m").touch()
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "diary.txt").touch()
    for name, told in (("m.csv", "is a folder"), ("m", "is a file"), ("album", "not replaced")):
        with pytest.raises(OutputError, match=told):
            check_output(tmp_path / name, overwrite=True)
    for goal in (Path(), Path(".."), Path("/")):
        with pytest.raises(EngineError, match="cannot write"):
            check_output(goal, overwrite=True)
    assert left(tmp_path) == ["album", "m", "m.csv"]

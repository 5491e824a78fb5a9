"""Run lengths of Kaggle and COCO against pandas, NumPy and pycocotools, both ways; what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from pycocotools import mask as coco

from engine.errors import InputError, PlanError
from engine.evaluate import evaluate
from engine.outputs.open import open_writer
from engine.sources.base import Source, from_array
from engine.sources.labels import open_labels

SIZE = (5, 7)
IDS = ["b", "a, c", "10"]


@pytest.fixture
def masks() -> np.ndarray:
    drawn = np.random.default_rng(1).integers(0, 4, (3, *SIZE)).astype(np.uint8)
    drawn[1] = 0
    drawn[2, :, 3:] = 2
    return drawn


def like(ids: list[str] = IDS, size: tuple[int, int] = SIZE) -> Source:
    return Source("images", ids, size, 1, lambda count: iter(()), named=True)


def maps(source: Source) -> np.ndarray:
    return np.concatenate([batch.pixels[..., 0] for batch in source.batches(2)])


def write(path: Path, masks: np.ndarray, classes: int, rle: str, ids: list[str] = IDS) -> Path:
    with open_writer(path, ids[: len(masks)], masks.shape[1:], classes, rle=rle) as writer:
        writer.write(ids[: len(masks)], masks.reshape(len(masks), -1))
    return path


def kaggle_decoded(text: object, size: tuple[int, int]) -> np.ndarray:
    """The decoder that stands in countless notebooks: column by column, starts from 1."""
    flat = np.zeros(size[0] * size[1], np.uint8)
    numbers = np.asarray(str(text).split() if isinstance(text, str) else [], int)
    for start, length in zip(numbers[::2] - 1, numbers[1::2], strict=True):
        flat[start : start + length] = 1
    return flat.reshape(size, order="F")


def test_pandas_reads_the_classes_of_kaggles_form(masks: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "m.rle.csv", masks, 4, "kaggle")
    table = pandas.read_csv(path)
    assert list(table.columns) == ["ImageId_ClassId", "EncodedPixels"]
    assert list(table["ImageId_ClassId"]) == [f"{name}_{value}" for name in IDS for value in (1, 2, 3)]
    for text, (index, value) in zip(table["EncodedPixels"], np.ndindex(3, 3), strict=True):
        np.testing.assert_array_equal(kaggle_decoded(text, SIZE), masks[index] == value + 1)
    np.testing.assert_array_equal(maps(open_labels(path, like=like())), masks)


def test_two_classes_have_a_row_an_image(masks: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "m.rle.csv", masks // 2, 2, "kaggle")
    table = pandas.read_csv(path)
    assert list(table.columns) == ["ImageId", "EncodedPixels"]
    assert list(table["ImageId"]) == IDS
    for text, mask in zip(table["EncodedPixels"], masks // 2, strict=True):
        np.testing.assert_array_equal(kaggle_decoded(text, SIZE), mask)
    np.testing.assert_array_equal(maps(open_labels(path, like=like())), masks // 2)


def test_foreground_rows_alone_in_any_order_and_ids_with_a_suffix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.csv"
    rows = [("a.jpg", 3, "1 2 6 1"), ("c.jpg", 1, "35 1"), ("a.jpg", 1, "3 1")]
    pandas.DataFrame(rows, columns=["ImageId", "ClassId", "EncodedPixels"]).to_csv(path, index=False)
    expected = np.zeros((3, *SIZE), np.uint8)
    expected[0, [0, 1, 0], [0, 0, 1]], expected[0, 2, 0], expected[2, 4, 6] = 3, 1, 1
    np.testing.assert_array_equal(maps(open_labels(path, like=like(["a", "b", "c"]))), expected)
    assert "1 of 3 images have no row there: class 0 everywhere" in capsys.readouterr().err


def test_rows_of_the_other_order(tmp_path: Path) -> None:
    # With the mark that spreadsheets put in front, and their line ends.
    (tmp_path / "m.csv").write_text("\ufeffImageId,EncodedPixels\r\na,1 9\r\n", "utf-8")
    flat = np.arange(35) < 9
    by_column, by_row = (
        maps(open_labels(tmp_path / "m.csv", like=like(["a"]), rle=rle))[0] for rle in ("kaggle", "rows")
    )
    np.testing.assert_array_equal(by_column, flat.reshape(SIZE, order="F"))
    np.testing.assert_array_equal(by_row, flat.reshape(SIZE))


def test_pycocotools_reads_cocos_form(masks: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", masks, 4, "coco")
    found = np.full(masks.shape, 255, np.uint8)
    for entry in json.loads(path.read_text()):
        at = IDS.index(str(entry["image_id"]))
        found[at][coco.decode(entry["segmentation"]).astype(bool)] = entry["category_id"]
    np.testing.assert_array_equal(found, masks)
    for source in (open_labels(path), open_labels(path, like=like())):
        assert list(source.ids) == IDS
        np.testing.assert_array_equal(maps(source), masks)
    # A number where COCO's tools need one.
    assert {entry["image_id"] for entry in json.loads(path.read_text())} == {"b", "a, c", 10}


def uncompressed(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff(changes, prepend=0, append=mask.size).tolist()


@pytest.mark.parametrize("compressed", [True, False])
def test_what_pycocotools_writes_is_read(masks: np.ndarray, tmp_path: Path, compressed: bool) -> None:
    entries = []
    for index, value in np.ndindex(3, 3):
        mask = np.asfortranarray(masks[index] == value + 1, np.uint8)
        theirs = coco.encode(mask)
        plain = {"size": [5, 7], "counts": uncompressed(mask)}
        assert coco.frPyObjects(plain, 5, 7) == theirs
        packed = {"size": [5, 7], "counts": theirs["counts"].decode()}
        segmentation = packed if compressed else plain
        entries.append({"image_id": index, "category_id": value + 1, "segmentation": segmentation})
    images = [{"id": index, "file_name": f"{name}.jpg"} for index, name in enumerate(IDS)]
    (tmp_path / "m.json").write_text(json.dumps({"images": images, "annotations": entries}))
    np.testing.assert_array_equal(maps(open_labels(tmp_path / "m.json", like=like())), masks)


def test_numbers_of_coco_are_the_names_of_its_pictures(masks: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", masks[[2, 0]], 4, "coco", ["139", "7"])
    np.testing.assert_array_equal(maps(open_labels(path, like=like(["000000000007", "000000000139"]))), masks[[0, 2]])


@pytest.mark.parametrize(("name", "rle"), [("m.rle.csv", "kaggle"), ("m.json", "coco"), ("m.rle.csv", "rows")])
def test_evaluate_takes_them_on_either_side(name: str, rle: str, masks: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "truth.npy", masks)
    guessed = (masks + (np.arange(35).reshape(SIZE) % 5 == 0)).clip(0, 3).astype(np.uint8)
    path, truth = str(write(tmp_path / name, guessed, 4, rle)), str(tmp_path / "truth.npy")
    expected = np.bincount((4 * masks.astype(int) + guessed).ravel(), minlength=16).reshape(4, 4)
    for form in (rle, ""):
        np.testing.assert_array_equal(evaluate(path, truth, rle=form).score.confusion, expected)
        np.testing.assert_array_equal(evaluate(truth, path, rle=form).score.confusion, expected.T)


def test_evaluate_refuses_forms_that_are_not_there(masks: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "truth.npy", masks)
    path = str(tmp_path / "truth.npy")
    with pytest.raises(PlanError, match=r"--rle kaggle: neither .* holds such run lengths"):
        evaluate(path, path, rle="kaggle")
    with pytest.raises(PlanError, match="--rle columns; allowed are rows, kaggle, coco"):
        evaluate(path, path, rle="columns")
    kaggle = str(write(tmp_path / "m.rle.csv", masks, 4, "kaggle"))
    with pytest.raises(InputError, match="does not say how high and wide its images are"):
        evaluate(kaggle, kaggle)
    plain = str(write(tmp_path / "m.csv", masks, 4, ""))
    with pytest.raises(InputError, match="does not say how high and wide its images are"):
        evaluate(kaggle, plain)


BAD = {
    "beyond": ("a_1,30 7", "line 2: a run of image a ends at pixel 36; the image has 35"),
    "overlap": ("a_1,3 4 5 1", "line 2: runs of image a overlap at pixel 5"),
    "descending": ("a_1,9 1 3 1", "line 2: start 3 of image a stands behind 9: runs must be in ascending order"),
    "two classes": ("a_1,3 4\na_2,6 3", "line 3: pixel 6 of image a has class 2 and class 1 (.*line 2)"),
    "repeated": ("a_1,3 4\nb_1,\na_1,9 1", "line 4: class 1 of image a stands there twice"),
    "odd": ("a_1,3", "line 2, image a, holds something other than pairs"),
    "zero": ("a_1,0 3", "line 2, image a, holds a start or a length of 0"),
    "class": ("a_fish,1 3", "line 2 begins with 'a_fish'"),
    "no class": ("a,1 3", "line 2 begins with 'a'"),
    "stranger": ("z_1,1 3", "has image z, which images lacks"),
    "nothing": ("", "has a header and no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_rows_are_named(case: str, tmp_path: Path) -> None:
    rows, message = BAD[case]
    (tmp_path / "m.csv").write_text(f"ImageId_ClassId,EncodedPixels\n{rows}\n")
    with pytest.raises(InputError, match=message.replace("(.*line 2)", r"\(.*line 2\)")):
        maps(open_labels(tmp_path / "m.csv", like=like(["a", "b"])))


SEGMENTATION = {"size": [5, 7], "counts": [3, 4, 28]}
ENTRY = {"image_id": "a", "category_id": 1, "segmentation": SEGMENTATION}
BAD_COCO = {
    "beyond": ([{**ENTRY, "segmentation": {"size": [5, 7], "counts": [3, 40]}}], "entry 0: the counts of image a end"),
    "size": (
        [{**ENTRY, "segmentation": {"size": [7, 5], "counts": [35]}}],
        "entry 0: image a is 7x5, images holds 5x",
    ),
    "classes": ([ENTRY, {**ENTRY, "category_id": 2}], "entry 1: pixel 4 of image a has class 2 and class 1"),
    "polygon": ([{**ENTRY, "segmentation": [[1, 2, 3, 4]]}], "entry 0 holds polygons"),
    "category": ([{**ENTRY, "category_id": 256}], "entry 0: category_id 256"),
    "text": ([{**ENTRY, "segmentation": {"size": [5, 7], "counts": "PPP"}}], "entry 0, image a: its counts are no"),
    "numbers": ([{**ENTRY, "segmentation": {"size": [5, 7], "counts": [1.5]}}], "image a: its counts are neither"),
    "none": ([], "has no entries"),
    "key": ([{"image_id": 1}], "entry 0 lacks image_id, category_id or segmentation"),
    "other JSON": ({"a": 1}, "is no COCO file"),
    "images": ({"images": 3, "annotations": [ENTRY, 4]}, "entry 1 lacks image_id"),
    "names": (
        {"images": [{"id": i, "file_name": "a.jpg"} for i in "ab"], "annotations": [ENTRY, {**ENTRY, "image_id": "b"}]},
        "names two images alike",
    ),
    "stranger": ([{**ENTRY, "image_id": "z"}], "has image z, which images lacks"),
}


@pytest.mark.parametrize("case", BAD_COCO)
def test_damaged_entries_are_named(case: str, tmp_path: Path) -> None:
    found, message = BAD_COCO[case]
    (tmp_path / "m.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match=message):
        maps(open_labels(tmp_path / "m.json", like=like(["a"])))


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not JSON"):
        open_labels(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,0,1\na,1,2\nb,1,2\na,1,2\n", "line 4: image a stands in line 2 too: keep one of the rows"),
        ("id_class,rle\na_0,1 4\na_1,5 2\na_1,7 2\n", "line 4: class 1 of image a stands there twice"),
        ("id_class,rle\na_0,1 4\nb_0,1 4\na_1,1 4\n", "the rows of image a are not together"),
    ],
)
def test_repeated_ids_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        maps(open_labels(tmp_path / "m.csv"))


def test_names_of_the_file_meet_the_rows_of_an_array_in_order(
    masks: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "m.rle.csv", masks, 4, "kaggle", ["x", "y", "z"])
    source = open_labels(path, like=from_array(masks, "labels", "truth"))
    np.testing.assert_array_equal(maps(source), masks)
    assert "its 3 images are those of truth in the order of the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "rle", "message"),
    [
        ("m.csv", "kaggle", "name it with .rle.csv"),
        ("m.rle.csv", "coco", "name it with .json"),
        ("m.csv", "x", "allowed"),
    ],
)
def test_a_form_and_a_name_that_contradict_are_refused(name: str, rle: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=message):
        open_writer(tmp_path / name, IDS, SIZE, 4, rle=rle)


@pytest.mark.parametrize(
    ("name", "rle"), [("a.csv", ""), ("a.rle.csv", "rows"), ("a.rle.csv", "kaggle"), ("a.json", "coco")]
)
def test_a_byte_order_mark_is_skipped(name: str, rle: str, masks: np.ndarray, tmp_path: Path) -> None:
    """Editors and spreadsheets of Windows write one in front of UTF-8."""
    path = write(tmp_path / name, masks, 4, rle, ["1", "2", "3"])
    plain = maps(open_labels(str(path), like=like(["1", "2", "3"])))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    np.testing.assert_array_equal(maps(open_labels(str(path), like=like(["1", "2", "3"]))), plain)

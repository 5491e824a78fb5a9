"""Stored ids, void values and colours become class numbers, against pandas' categories and tables by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import InputError, PlanError
from engine.metrics import VOID
from engine.sources.coding import LabelCoding, label_coding
from engine.sources.labels import as_labels, open_labels
from engine.sources.palettes import read_palette

NAMES = ("soil", "big rock", "sand")
COLOURS = ((10, 0, 0), (0, 20, 255), (1, 2, 3))


@given(
    st.lists(st.integers(-300, 300), min_size=2, max_size=9, unique=True),
    st.sampled_from(["int16", "int64", "float32"]),
    st.integers(0, 2**32 - 1),
)
def test_ids_become_the_places_that_pandas_gives_them(ids: list[int], kind: str, seed: int) -> None:
    void = next(value for value in range(301, 310) if value not in ids)
    maps = np.random.default_rng(seed).choice(np.array([*ids, void], kind), (2, 3, 4, 1))
    got = LabelCoding(void, tuple(ids)).decode(maps, "maps", ["a", "b"])
    codes = pandas.Categorical(maps.ravel(), categories=ids).codes.astype(int)
    np.testing.assert_array_equal(got.ravel(), np.where(codes < 0, VOID, codes))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.float32])
@pytest.mark.parametrize("void", [4, 100, -1, 255])
def test_a_void_value_is_read_from_any_type(void: int, kind: type, tmp_path: Path) -> None:
    if not np.can_cast(np.min_scalar_type(void), kind) and kind != np.float32:
        pytest.skip("the type has no such value")
    np.save(tmp_path / "y.npy", np.array([[[0, 1], [2, void]]]).astype(kind))
    batch = next(open_labels(tmp_path / "y.npy", LabelCoding(void)).batches(1))
    assert as_labels(batch, 3, "y").ravel().tolist() == [0, 1, 2, VOID]


def test_255_is_void_where_it_is_no_class() -> None:
    assert LabelCoding().told_void(5) == "255"
    assert LabelCoding().told_void(256) == ""
    assert LabelCoding(None, (0, 255)).told_void(2) == ""
    assert LabelCoding(7).told_void(5) == "7, 255"
    maps = np.array([0, 7, 11, 255]).reshape(1, 2, 2, 1)
    assert LabelCoding(None, (0, 7, 11)).decode(maps, "y", ["a"]).ravel().tolist() == [0, 1, 2, VOID]
    two = LabelCoding(None, (0, 255)).decode(maps // 255 * 255, "y", ["a"])
    assert two.ravel().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("void", "ids", "told"),
    [
        (None, "0,7,7", "twice"),
        (7, "0,7,11", "is a class"),
        (None, "0", "1 ids"),
        (None, "0,1.5", "give the id of each class"),
        (2**40, "", "lie within"),
    ],
)
def test_a_contradiction_is_refused(void: int | None, ids: str, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        label_coding(void, ids)


def test_a_coding_must_fit_the_classes() -> None:
    with pytest.raises(PlanError, match="--void 1 is class 1"):
        LabelCoding(1).for_classes(NAMES)
    with pytest.raises(PlanError, match="3 ids for 2 classes"):
        LabelCoding(None, (0, 7, 11)).for_classes(NAMES[:2])
    with pytest.raises(PlanError, match="with 256 classes"):
        LabelCoding(300).for_classes([str(index) for index in range(256)])
    assert LabelCoding(3).for_classes(NAMES).void == 3


LINES = ["{name},{r},{g},{b}", "{r},{g},{b},{name}", "{name};{r};{g};{b}", "{r} {g} {b}\t{name}", "{name} {r} {g} {b}"]


@pytest.mark.parametrize("line", [*LINES, "json"])
def test_a_palette_in_every_form(line: str, tmp_path: Path) -> None:
    path = tmp_path / ("p.json" if line == "json" else "p.csv")
    entries = [*zip(NAMES, COLOURS, strict=True), ("Void", (255, 255, 255))]
    if line == "json":
        path.write_text(json.dumps({name: list(colour) for name, colour in entries}))
    else:
        rows = [line.format(name=name, r=r, g=g, b=b) for name, (r, g, b) in entries]
        path.write_text("\n".join(["# colours", "", *(["name,r,g,b"] if line == LINES[0] else []), *rows, ""]))
    found = read_palette(str(path))
    assert (found.names, found.colours, found.void) == (NAMES, COLOURS, ((255, 255, 255),))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,1,2,3\nb,1,2,3\n", "a and b share the colour"),
        ("a,1,2,3\nA,1,2,4\n", "two classes share a name"),
        ("a,1,2,3\nb,1,2,256\n", "line 2"),
        ("a,1,2,3\n", "1 classes"),
        ("a,1,2,3\nb,one,two,three\n", "line 2"),
        ("\xff\xfe", "no text|1 classes|line 1|0 classes"),
    ],
)
def test_a_palette_that_is_none(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text, "latin-1")
    with pytest.raises(PlanError, match=told):
        read_palette(str(tmp_path / "p.csv"))


@pytest.fixture
def coloured(tmp_path: Path) -> tuple[Path, np.ndarray, LabelCoding]:
    """A folder of two masks in colours, one of them indexed; their class numbers; their palette."""
    labels = np.random.default_rng(5).integers(0, 4, (2, 6, 7)).astype(np.uint8)
    table = np.array([*COLOURS, (255, 255, 255)], np.uint8)
    (tmp_path / "truth").mkdir()
    Image.fromarray(table[labels[0]]).save(tmp_path / "truth" / "a.png")
    Image.fromarray(table[labels[1]]).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "truth" / "b.png")
    lines = [f"{name},{r},{g},{b}\n" for name, (r, g, b) in zip(NAMES, COLOURS, strict=True)]
    (tmp_path / "p.csv").write_text("".join([*lines, "void,255,255,255\n"]))
    return tmp_path / "truth", np.where(labels == 3, VOID, labels), label_coding(palette=str(tmp_path / "p.csv"))


def test_colours_become_classes(coloured: tuple[Path, np.ndarray, LabelCoding], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    folder, labels, coding = coloured
    got = next(open_labels(folder, coding).batches(2))
    np.testing.assert_array_equal(as_labels(got, 3, "truth").reshape(labels.shape), labels)
    for name, expected in zip("ab", labels, strict=True):
        # OpenCV gives colours, blue first, for both kinds of PNG.
        seen = cv2.imread(str(folder / f"{name}.png"))[..., ::-1]
        for index, colour in enumerate(COLOURS):
            np.testing.assert_array_equal((seen == colour).all(axis=2), expected == index)
    reordered = coding.for_classes([name.upper() for name in NAMES[::-1]])
    again = as_labels(next(open_labels(folder, reordered).batches(2)), 3, "truth").reshape(labels.shape)
    np.testing.assert_array_equal(again, np.where(labels == VOID, VOID, 2 - labels.astype(int)))
    table = np.array([*COLOURS, (255, 255, 255)], np.uint8)
    np.savez(tmp_path / "x.npz", masks=table[np.minimum(labels, 3)], images=table[np.minimum(labels, 3)] * 0)
    stored = as_labels(next(open_labels(tmp_path / "x.npz", coding).batches(2)), 3, "x").reshape(labels.shape)
    np.testing.assert_array_equal(stored, labels)


def test_an_unknown_colour_is_named(coloured: tuple[Path, np.ndarray, LabelCoding]) -> None:
    folder, _, coding = coloured
    with Image.open(folder / "a.png") as image:
        image.putpixel((2, 4), (9, 8, 7))
        image.save(folder / "a.png")
    with pytest.raises(InputError, match=r"truth: label map a holds the colour \(9, 8, 7\) in row 4, column 2"):
        next(open_labels(folder, coding).batches(2))


def test_a_palette_png_gives_its_indices(tmp_path: Path) -> None:
    """Pillow and rasterio give indices, OpenCV, imageio and SimpleITK colours; here indices are read."""
    rasterio, cv2 = pytest.importorskip("rasterio"), pytest.importorskip("cv2")
    imageio, itk = pytest.importorskip("imageio.v3"), pytest.importorskip("SimpleITK")
    labels = np.random.default_rng(5).integers(0, 3, (6, 7)).astype(np.uint8)
    image = Image.fromarray(labels, "P")
    image.putpalette([value for colour in COLOURS for value in colour])
    image.save(tmp_path / "a.png")
    got = open_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(next(got.batches(1)).pixels[0, ..., 0], labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), labels)
    with rasterio.open(tmp_path / "a.png") as dataset:
        np.testing.assert_array_equal(dataset.read(1), labels)
    colours = np.array(COLOURS, np.uint8)[labels]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], colours)
    np.testing.assert_array_equal(imageio.imread(tmp_path / "a.png"), colours)
    np.testing.assert_array_equal(itk.GetArrayFromImage(itk.ReadImage(str(tmp_path / "a.png"))), colours)


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", {}), ("a.png", {"format": "JPEG"}), ("a.tif", {"compression": "jpeg"})]
)
def test_jpeg_is_refused_whatever_it_is_called(name: str, options: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "truth" / name, **options)
    for spec in (tmp_path / "truth", tmp_path / "truth" / name):
        with pytest.raises(InputError, match=f"{name} is a JPEG"):
            next(open_labels(spec).batches(1))

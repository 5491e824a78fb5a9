"""Folders of pictures: which of them, in which order, under which ids, and made alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as draws
from PIL import Image

from engine.errors import InputError
from engine.sources.fingerprint import fingerprint
from engine.sources.labels import open_labels
from engine.sources.naming import natural
from engine.sources.open import open_source
from engine.sources.reading import Reading, grey
from engine.sources.scenes import open_scenes

SIZE = (4, 6)


def save(folder: Path, **pictures: np.ndarray) -> Path:
    """Write pictures; ``__`` in a name stands for a folder."""
    for name, pixels in pictures.items():
        path = folder / (name.replace("__", "/") + ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def flat(value: int, channels: int = 1, kind: type = np.uint8) -> np.ndarray:
    return np.full((*SIZE, channels) if channels > 1 else SIZE, value, kind)


def pixels_of(spec: Path | str, reading: Reading | None = None) -> np.ndarray:
    source = open_source(spec, reading=reading or Reading())
    return np.concatenate([batch.pixels for batch in source.batches(2)])


def test_numbers_in_names_count_as_numbers() -> None:
    names = [
        "img_2",
        "img_10",
        "img_010",
        "img_1",
        "10",
        "9",
        "b",
        "a10b2",
        "a10b10",
        "a9",
        "img_2/7",
        "img",
        "x/10",
        "x/9",
    ]
    expected = ["9", "10", "a9", "a10b2", "a10b10", "b", "img", "img_1", "img_2", "img_2/7", "img_010", "img_10"]
    assert sorted(names, key=natural) == [*expected, "x/9", "x/10"]


@given(draws.lists(draws.text(draws.sampled_from("a1029_/٣é")), unique=True), draws.randoms())
def test_the_order_depends_on_the_names_alone(names: list[str], random: object) -> None:
    mixed = list(names)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert sorted(mixed, key=natural) == sorted(names, key=natural)


@given(draws.lists(draws.integers(0, 10**30), unique=True))
def test_numbered_names_are_sorted_by_number(numbers: list[int]) -> None:
    assert sorted((f"img_{n}.png" for n in numbers), key=natural) == [f"img_{n}.png" for n in sorted(numbers)]


def test_folders_inside_are_walked(tmp_path: Path) -> None:
    save(tmp_path, a=flat(1), city__b=flat(2), city__old__img_10=flat(4), city__old__img_9=flat(3), town__a=flat(5))
    save(tmp_path / ".thumbnails", a=flat(9))
    save(tmp_path / "city" / ".cache", a=flat(9))
    (tmp_path / "city" / "notes.txt").write_text("left alone")
    source = open_source(tmp_path)
    assert list(source.ids) == ["a", "city/b", "city/old/img_9", "city/old/img_10", "town/a"]
    assert pixels_of(tmp_path)[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert source.at is not None
    assert source.at(2, 4)[:, 0, 0, 0].tolist() == [3, 4]
    assert list(open_scenes(tmp_path).ids) == list(source.ids)
    assert [scene.id for scene in open_scenes(tmp_path).each()] == list(source.ids)
    assert list(open_labels(tmp_path).ids) == list(source.ids)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links to folders")
def test_links_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    save(tmp_path / "data", a=flat(1))
    save(tmp_path / "far", b=flat(2))
    (tmp_path / "data" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "data")
    assert list(open_source(tmp_path / "data").ids) == ["a", "link/b"]


def test_two_pictures_of_one_id_are_named(tmp_path: Path) -> None:
    save(tmp_path, city__a=flat(1), town__a=flat(1))
    assert len(open_source(tmp_path)) == 2
    Image.fromarray(flat(1)).save(tmp_path / "city" / "a.bmp")
    with pytest.raises(InputError, match=r"holds city/a\.bmp and city/a\.png, two images of one name"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*_rgb.png", ["2_rgb", "10_rgb"]),
        ("**/*_rgb.png", ["2_rgb", "10_rgb", "city/3_rgb"]),
        ("*/*.png", ["city/3_mask", "city/3_rgb"]),
        ("city/[0-9]_m*", ["3_mask"]),
        ("?_*.png", ["2_mask", "2_rgb"]),
    ],
)
def test_patterns_pick_pictures(pattern: str, ids: Sequence[str], tmp_path: Path) -> None:
    places = ("10_rgb", "2_rgb", "2_mask", "city__3_rgb", "city__3_mask")
    save(tmp_path, **{name: flat(index) for index, name in enumerate(places)})
    spec = f"{tmp_path}/{pattern}"
    source = open_source(spec)
    assert list(source.ids) == list(ids)
    assert list(open_labels(spec).ids) == list(open_scenes(spec).ids) == list(ids)
    # Which files are read is what the fingerprint of a run covers, and nothing else.
    before = fingerprint(spec)
    save(tmp_path, zzz=flat(1))
    assert fingerprint(spec) == before
    stem = next(name for name in places if name.endswith(ids[-1].rpartition("/")[2]))
    save(tmp_path, **{stem: flat(77)})
    assert fingerprint(spec) != before


def test_a_name_with_a_bracket_is_no_pattern(tmp_path: Path) -> None:
    save(tmp_path / "set[1]", a=flat(1))
    assert list(open_source(tmp_path / "set[1]").ids) == ["a"]
    with pytest.raises(InputError, match=r"nope\*\.png holds no images"):
        open_source(tmp_path / "nope*.png")


def test_a_pattern_picks_parquet_files(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    for number in (2, 10, 1):
        tensors = arrow.FixedShapeTensorArray.from_numpy_ndarray(np.stack([flat(number)] * 2))
        parquet.write_table(arrow.table({"image": tensors}), tmp_path / f"part-{number}.parquet")
    assert pixels_of(f"{tmp_path}/part-*.parquet")[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 10, 10]
    assert pixels_of(tmp_path)[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 10, 10]


def test_grey_among_rgb(tmp_path: Path) -> None:
    first_rgb = save(tmp_path / "x", a=flat(9, 3), b=flat(7), c=flat(5, 3))
    first_grey = save(tmp_path / "y", a=flat(7), b=flat(9, 3))
    told = "--grey-as-rgb makes grey pictures RGB, .input. rgb_as_grey = true"
    for folder, name in ((first_rgb, "b.png is 4x6 with 1 channel"), (first_grey, "b.png is 4x6 with 3 channels")):
        with pytest.raises(InputError, match=f"{name}.*{told}"):
            pixels_of(folder)
    as_rgb = Reading(grey_as_rgb=True)
    np.testing.assert_array_equal(pixels_of(first_rgb, as_rgb), np.stack([flat(v, 3) for v in (9, 7, 5)]))
    np.testing.assert_array_equal(pixels_of(first_grey, as_rgb), np.stack([flat(v, 3) for v in (7, 9)]))
    assert pixels_of(save(tmp_path / "z", a=flat(7), b=flat(8)), as_rgb).shape == (2, *SIZE, 1)
    scenes = open_scenes(first_grey, reading=as_rgb)
    assert scenes.channels == 3
    assert [scene.rows(0, 1)[0, 0].tolist() for scene in scenes.each()] == [[7, 7, 7], [9, 9, 9]]


def test_rgb_among_grey(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    save(tmp_path, a=flat(7), b=colours)
    as_grey = Reading(rgb_as_grey=True)
    np.testing.assert_array_equal(pixels_of(tmp_path, as_grey), np.stack([flat(7)[..., None], grey(colours)]))
    scenes = open_scenes(tmp_path, reading=as_grey)
    assert scenes.channels == 1
    np.testing.assert_array_equal([scene.rows(0, 4) for scene in scenes.each()], pixels_of(tmp_path, as_grey))


def test_depths_are_never_mixed(tmp_path: Path) -> None:
    save(tmp_path, a=flat(7), b=flat(700, kind=np.uint16))
    with pytest.raises(InputError, match=r"b\.png holds uint16, a\.png holds uint8: all must have one depth"):
        pixels_of(tmp_path)
    # Ids of classes are the same numbers at any depth.
    labels = np.concatenate([batch.pixels for batch in open_labels(tmp_path).batches(1)])
    assert labels[:, 0, 0, 0].tolist() == [7, 700]


def test_what_is_unlike_can_be_left_out(tmp_path: Path) -> None:
    save(tmp_path, a__1=flat(7), a__2=flat(700, kind=np.uint16), a__3=flat(8))
    bad: dict[str, str] = {}
    source = open_source(tmp_path, bad=lambda name, error: bad.setdefault(name, str(error)) and None)
    pixels = np.concatenate([batch.pixels for batch in source.batches(2)])
    assert pixels[:, 0, 0, 0].tolist() == [7, 0, 8]
    assert list(bad) == ["a/2"]


def test_alpha_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, **{name: flat(9, 4) for name in "abcd"})
    assert pixels_of(tmp_path).shape == (4, *SIZE, 3)
    assert capsys.readouterr().err.count("has an alpha channel, which is left out of every image") == 1


def test_folders_behind_a_url_are_walked(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="URLs need the extra cloud")
    save(tmp_path, img_10=flat(3), img_9=flat(2), city__b=flat(1))
    save(tmp_path / ".cache", a=flat(9))
    source = open_source(f"file://{tmp_path}")
    assert list(source.ids) == ["city/b", "img_9", "img_10"]
    assert pixels_of(f"file://{tmp_path}")[:, 0, 0, 0].tolist() == [1, 2, 3]

"""Label maps are joined by id, in whatever order they come and whatever affix their names have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.sources.base import Source
from engine.sources.joining import joined, partners


def source(ids: list[str], values: list[int], named: bool = True, in_order: bool = False) -> Source:
    """Maps of 2x3 pixels, each full of one value."""
    maps = np.repeat(np.array(values, np.uint8), 6).reshape(-1, 2, 3, 1)

    def read(count: int) -> Iterator[np.ndarray]:
        for start in range(0, len(maps), count):
            yield maps[start : start + count]

    at = None if in_order else lambda start, stop: maps[start:stop]
    return Source("maps", ids, (2, 3), 1, read, named=named, at=at)


def values(labels: Source, size: int = 2) -> list[int]:
    return [int(pixels[0, 0, 0]) for batch in labels.batches(size) for pixels in batch.pixels]


AFFIXES = st.text("ab_-.", max_size=4)


@given(
    st.lists(st.text("xyz01", min_size=1, max_size=4), min_size=2, max_size=12, unique=True),
    AFFIXES,
    AFFIXES,
    st.booleans(),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_any_order_and_one_affix(
    ids: list[str], before: str, behind: str, in_order: bool, size: int, draw: object
) -> None:
    shuffled = list(range(len(ids)))
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    images = source(ids, list(range(len(ids))))
    labels = source([f"{before}{ids[index]}{behind}" for index in shuffled], shuffled, in_order=in_order)
    got = joined(images, labels, quiet=True)
    assert list(got.ids) == ids
    assert values(got, size) == list(range(len(ids)))
    back = joined(labels, images, quiet=True)
    assert values(back, size) == shuffled


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["image_1", "image_2", "image_10"], ["mask_2", "mask_10", "mask_1"]),
        (["a_1_leftImg8bit", "a_2_leftImg8bit"], ["a_2_gtFine_labelIds", "a_1_gtFine_labelIds"]),
        (["1", "2", "10"], ["10_mask", "1_mask", "2_mask"]),
        (["city/a", "city/b"], ["city/b_y", "city/a_y"]),
        (["only"], ["only_mask"]),
    ],
)
def test_affixes_of_real_data_sets(images: list[str], labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    got = joined(source(images, [0] * len(images)), source(labels, list(range(len(labels)))))
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"is the label map of {images[0]}" in told
    partner = [labels[index] for index in values(got)]
    for name, other in zip(images, partner, strict=True):
        core = name.replace("image_", "").replace("_leftImg8bit", "")
        assert core in other, (name, other)


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (["a", "b"], ["a", "c"], "no label map of b of maps; its ids are a, c"),
        (["scene1_a", "scene1_b"], ["scene2_a", "scene2_b"], "no label map of scene1_a"),
        (["a", "b"], ["a_x", "a_y", "b_x", "b_y"], "two label maps"),
        (["a", "b"], ["a", "a"], "twice"),
        (["only"], ["other"], "no label map of only"),
    ],
)
def test_names_that_have_nothing_in_common(images: list[str], labels: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        joined(source(images, [0] * len(images)), source(labels, [0] * len(labels)))


def test_names_against_rows_are_joined_by_place_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    images, rows = source(["img_2", "img_10", "img_11", "z"], [0] * 4), source(list("0123"), [5, 6, 7, 8], named=False)
    assert values(joined(images, rows)) == [5, 6, 7, 8]
    told = capsys.readouterr().err
    assert told == "maps has no names, so its rows are those of maps in this order: img_2, img_10, img_11, ..., z\n"
    assert values(joined(images, rows, limit=2, quiet=True)) == [5, 6]
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="holds 3 label maps, maps holds 4"):
        joined(images, source(list("012"), [0] * 3, named=False))
    # A submission has the numbers of rows as names.
    assert values(joined(images, source(list("0123"), [5, 6, 7, 8]))) == [5, 6, 7, 8]
    assert values(joined(source(list("0123"), [0] * 4), images)) == [0] * 4
    assert capsys.readouterr().err == 2 * told
    for others in (["0", "2", "1", "3"], ["0", "1", "2", "4"]):
        with pytest.raises(InputError, match="no label map of img_2"):
            joined(images, source(others, [0] * 4))


def test_rows_named_by_their_numbers_are_joined_by_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = source(["0", "1", "2"], [0] * 3, named=False)
    assert values(joined(rows, source(["2", "0", "1"], [7, 5, 6]))) == [5, 6, 7]
    assert capsys.readouterr().err == ""


def test_further_label_maps_are_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = source(["b", "d"], [0, 0]), source(list("abcd"), [0, 1, 2, 3])
    assert values(joined(images, labels)) == [1, 3]
    assert "2 of 4 label maps belong to no image" in capsys.readouterr().err
    assert partners(images, labels, 1) == ([1], [])


def test_parts_of_a_join_are_read_at_any_place() -> None:
    got = joined(source(list("abcde"), [0] * 5), source(list("edcba"), [4, 3, 2, 1, 0], in_order=True), quiet=True)
    assert got.at is not None
    assert got.at(3, 5)[:, 0, 0, 0].tolist() == [3, 4]
    assert got.at(0, 1)[:, 0, 0, 0].tolist() == [0]

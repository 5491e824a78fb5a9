"""Zarr metadata of a wrong kind at any place: one line, or the array as it is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.sources.open import open_source

zarr = pytest.importorskip("zarr", reason="zarr is not installed")

PIXELS = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6)
WRONG: tuple[Any, ...] = (None, -1, 0, "x", "", [], {}, [[]], [None], ["x"], {"x": 1}, 1.5, 10**30, True)


def places(held: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(held, dict | list):
        for key, inner in held.items() if isinstance(held, dict) else enumerate(held):
            yield from places(inner, (*path, key))


def changed(held: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(held))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize(("version", "name"), [(3, "zarr.json"), (2, ".zarray"), (2, ".zattrs"), (2, ".zgroup")])
def test_metadata_of_a_wrong_kind_is_one_line(version: int, name: str, tmp_path: Path) -> None:
    place = tmp_path / "a.zarr"
    if name == ".zgroup":
        zarr.open_group(place, mode="w", zarr_format=2).create_array("images", data=PIXELS)
    else:
        array = zarr.create_array(place, data=PIXELS, chunks=(2, 4, 6), zarr_format=version)
        array.attrs["note"] = {"made": [1, 2]}
    file = place / name
    held = json.loads(file.read_bytes())
    for text in (*(json.dumps(value) for value in WRONG), "{", "\ufeff{}", '"\\ud800"', "[" * 5000):
        check(place, file, text)
    for path in places(held):
        # A declared size that is another is no damage by itself: what the chunks hold decides.
        for value in WRONG:
            check(place, file, json.dumps(changed(held, path, value)))


def check(place: Path, file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            source = open_source(place)
            for batch in source.batches(3):
                assert batch.pixels.shape[1:3] == source.size
        except InputError as error:
            assert "\n" not in str(error), text

"""Labels become votes, whatever whole numbers they are; a label that is no class is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import ModelError
from engine.models.adapt.labels import votes

KINDS = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64")


@given(st.integers(2, 256), st.sampled_from(KINDS), st.data())
def test_a_vote_is_one_for_its_class_and_zero_elsewhere(classes: int, kind: str, data: st.DataObject) -> None:
    most = min(classes - 1, np.iinfo(kind).max)
    drawn = data.draw(st.lists(st.integers(0, most), min_size=1, max_size=30))
    labels = np.array([drawn, drawn[::-1]], kind)
    out = np.full((2, classes, len(drawn)), np.nan, np.float32)
    votes(out, labels, "net")
    np.testing.assert_array_equal(out, np.eye(classes, dtype=np.float32)[labels.astype(int)].transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("kind", "label"),
    [("int64", 3), ("int64", -1), ("uint8", 255), ("int8", -128), ("int64", 2**40), ("uint64", 2**63), ("int32", 3)],
)
def test_a_label_that_is_no_class_is_named(kind: str, label: int) -> None:
    labels = np.array([[0, 1, 2, label]], kind)
    with pytest.raises(ModelError, match=rf"net outputs label {label}; its classes are 0 to 2"):
        votes(np.empty((1, 3, 4), np.float32), labels, "net")

"""COCO's compressed counts, against Python's own and against pycocotools."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from engine.kernels.rle import read_counts, write_counts
from engine.kernels.text import find_runs
from tests.helpers import reference
from tests.helpers.properties import examples

PROPERTY = examples(80, interpreted=8)
# Long runs too: numbers of several characters, and differences below 0.
MASKS = st.tuples(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2)),
    st.integers(1, 40),
).map(lambda drawn: np.repeat(drawn[0], drawn[1], axis=0))


def written(labels: np.ndarray, value: int) -> bytes:
    turned = labels.T.reshape(-1).copy()
    starts = np.empty(turned.size + 1, np.int64)
    text = np.empty(7 * (turned.size + 2), np.uint8)
    return text[: write_counts(text, turned, starts, find_runs(starts, turned), np.uint8(value))].tobytes()


@PROPERTY
@given(MASKS, st.integers(0, 2))
def test_counts_equal_those_of_pycocotools_and_pythons(labels: np.ndarray, value: int) -> None:
    theirs = coco.encode(np.asfortranarray(labels == value, np.uint8))["counts"]
    assert written(labels, value) == theirs == reference.coco_counts(labels == value).encode()


@PROPERTY
@given(MASKS)
def test_what_pycocotools_writes_is_read(labels: np.ndarray) -> None:
    text = np.frombuffer(coco.encode(np.asfortranarray(labels == 1, np.uint8))["counts"], np.uint8)
    counts = np.empty(len(text), np.int64)
    counts = counts[: read_counts(counts, text)]
    mask = np.repeat(np.arange(len(counts)) % 2, counts).reshape(labels.shape[::-1]).T
    np.testing.assert_array_equal(mask, labels == 1)


def test_what_is_no_text_of_counts_is_recognised() -> None:
    counts = np.empty(20, np.int64)
    for text in (b"P", b"/", b"\xff", b"PPPPPPPPPP0", b"O"):
        assert read_counts(counts, np.frombuffer(text, np.uint8)) == -1

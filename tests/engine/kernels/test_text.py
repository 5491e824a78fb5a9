"""Labels and run lengths as text, against Python's own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.kernels.text import find_runs, write_rows, write_runs
from tests.helpers import reference
from tests.helpers.properties import examples

# With the JIT off (for coverage) the loops are plain Python, a thousand times slower.
PROPERTY = examples(60, interpreted=4)


@PROPERTY
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 70)), elements=st.integers(0, 255)),
    st.sampled_from([5, 10, 11, 256]),
    st.lists(st.binary(max_size=5), min_size=4, max_size=4),
)
def test_rows_equal_pythons(labels, top, names):
    labels = (labels.astype(int) % top).astype(np.uint8)
    names = names[: len(labels)]
    text = np.empty(4 * labels.size + sum(map(len, names)) + len(names), np.uint8)
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    length = write_rows(text, np.frombuffer(b"".join(names), np.uint8), ends, labels)
    assert text[:length].tobytes() == reference.csv_rows(names, labels)


@PROPERTY
@given(arrays(np.uint8, st.integers(1, 300), elements=st.integers(0, 3)), st.integers(0, 3))
def test_runs_equal_pythons(labels, value):
    starts = np.empty(labels.size + 1, np.int64)
    text = np.empty(8 * labels.size + 3, np.uint8)
    length = write_runs(text, 3, labels, starts, find_runs(starts, labels), np.uint8(value))
    assert text[3:length].tobytes().decode() == reference.run_lengths(labels, value)

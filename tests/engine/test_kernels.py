"""The loops under the fusion: exp, counting, finiteness, text."""

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.kernels.counting import count_confusion, first_not_finite
from engine.kernels.exponential import exp_below_adding, exp_in_place
from engine.kernels.text import find_runs, write_rows, write_runs
from tests import reference

# With the JIT off (for coverage) the loops are plain Python, a thousand times slower.
PROPERTY = settings(max_examples=4 if numba.config.DISABLE_JIT else 60, deadline=None)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 20.0, 80.0]))
def test_exp_is_exact_to_float32(seed, spread):
    rng = np.random.default_rng(seed)
    peak = rng.normal(0, 10, 500).astype(np.float32)
    source = (peak - np.abs(rng.normal(0, spread, 500))).astype(np.float32)
    result, total = np.empty(500, np.float32), np.ones(500, np.float32)
    exp_below_adding(result, total, source, peak)
    np.testing.assert_array_equal(total, np.float32(1) + result)
    want = np.exp(source.astype(np.float64) - peak)
    near = want > 1e-30
    # The difference, log2(e) and their product are each rounded to float32; that comes on top of the polynomial's own.
    allowed = 4e-7 + 3 * 2.0**-24 * np.abs(source.astype(np.float64) - peak)
    assert (np.abs(result[near] / want[near] - 1) < allowed[near]).all()
    assert (result[~near] < 2e-30).all()
    assert (result >= 0).all()


@PROPERTY
@given(arrays(np.float64, 50, elements=st.floats(-700, 0)))
def test_the_wide_exp_is_exact_to_twelve_digits(values):
    result = values.copy()
    exp_in_place(result)
    np.testing.assert_allclose(result, np.exp(values), rtol=1e-12)


@PROPERTY
@given(st.integers(2, 256), st.integers(1, 3), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_confusion_equals_its_twin(classes, batch, pixels, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (batch, pixels), dtype=np.uint8)
    predicted = rng.integers(0, classes, (batch, pixels), dtype=np.uint8)
    got = np.zeros((batch, classes, classes), np.int64)
    count_confusion(truth, predicted, got)
    for b in range(batch):
        np.testing.assert_array_equal(got[b], reference.confusion(truth[b], predicted[b], classes))


@PROPERTY
@given(
    arrays(np.float32, (3, 17), elements=st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True))
)
def test_finiteness_equals_numpy(values):
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    assert first_not_finite(values.view(np.int32)) == (bad[0] if len(bad) else -1)


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

"""Counting and finiteness, against NumPy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.kernels.counting import count_confusion, first_not_finite
from tests.helpers import reference
from tests.helpers.properties import examples

# With the JIT off (for coverage) the loops are plain Python, a thousand times slower.
PROPERTY = examples(60, interpreted=4)


@PROPERTY
@given(st.integers(2, 256), st.integers(1, 3), st.integers(0, 200), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_confusion_equals_its_twin(classes, batch, pixels, void, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (batch, pixels), dtype=np.uint8)
    predicted = rng.integers(0, classes, (batch, pixels), dtype=np.uint8)
    truth[rng.random(truth.shape) < void] = 255
    predicted[rng.random(truth.shape) < void / 2] = 255
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

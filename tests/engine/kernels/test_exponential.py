"""The exponentials under the fusion, against NumPy's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.kernels.exponential import exp_below_adding, exp_in_place
from tests.helpers.properties import examples

# With the JIT off (for coverage) the loops are plain Python, a thousand times slower.
PROPERTY = examples(60, interpreted=4)


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

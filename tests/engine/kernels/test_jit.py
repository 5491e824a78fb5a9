"""Parts of kernels: compiled with their callers, and callable from Python like any kernel."""

import numpy as np

from engine.kernels.jit import kernel, part


@part
def double(row):
    """Double every element."""
    for i in range(row.size):
        row[i] *= 2


@kernel
def double_twice(row):
    """Multiply every element by four."""
    double(row)
    double(row)


def test_a_part_is_called_by_kernels_and_by_python():
    row = np.arange(5, dtype=np.int32)
    double_twice(row)
    assert row.tolist() == [0, 4, 8, 12, 16]
    double(row)
    assert row.tolist() == [0, 8, 16, 24, 32]
    other = np.ones(3)
    double(other)
    assert other.tolist() == [2, 2, 2]

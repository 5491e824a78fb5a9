"""The options of every compiled kernel, in one place.

Kernels are serial and release the GIL: parallelism is one thread pool over batches (numba's own threading layers abort
the process when two threads enter them). ``contract`` lets LLVM fuse multiply and add; nothing that would change the
meaning of NaN, infinity or the order of a sum is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

# Elements per block where all of them are in a cache anyway.
BLOCK = 1024


def kernel(function: Function) -> Function:
    """Compile ``function`` in nopython mode on first call and store the machine code on disk.

    A folder that cannot be written (a read-only install without a home) must not prevent the engine from starting: the
    kernels are then compiled again in each process.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        compiled = numba.njit(**options)(function)
    return cast(Function, compiled)


def compiled_before(function: Callable[..., object]) -> bool:
    """Return whether machine code of a kernel is stored on disk, so that its first call does not compile."""
    path = getattr(getattr(function, "stats", None), "cache_path", None)
    if path is None:
        return numba.config.DISABLE_JIT == 1
    name = function.__name__
    return any(Path(path).glob(f"*.{name}-*.nbi"))

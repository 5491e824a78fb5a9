"""The options of every compiled kernel, in one place.

Kernels are serial and release the GIL: parallelism is one thread pool over batches (numba's own threading layers abort
the process when two threads enter them). ``contract`` lets LLVM fuse multiply and add; nothing that would change the
meaning of NaN, infinity or the order of a sum is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.registry import CPUDispatcher

Function = TypeVar("Function", bound=Callable[..., object])

# Elements per block where all of them are in a cache anyway.
BLOCK = 1024
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def kernel(function: Function) -> Function:
    """Compile ``function`` in nopython mode on first call and store the machine code on disk.

    A folder that cannot be written (a read-only install without a home) must not prevent the engine from starting: the
    kernels are then compiled again in each process.
    """
    try:
        compiled = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:
        compiled = numba.njit(**OPTIONS)(function)
    return cast(Function, compiled)


def part(function: Function) -> Function:
    """Compile ``function`` as a part of the kernels that call it, as nearly all loops are.

    The code that takes arguments from Python and the file on disk cost a quarter of the time that compiling the
    strategies takes, and these kernels use neither. A call from Python works as that of a :func:`kernel`.
    """
    return function if numba.config.DISABLE_JIT else cast(Function, _Part(function))


class _Part(CPUDispatcher):
    """A function without the code that takes arguments from Python: without it, numba would crash on such a call."""

    def __init__(self, function: Callable[..., object]) -> None:
        options = OPTIONS | {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        super().__init__(function, targetoptions=options)

    def __call__(self, *arguments: object) -> object:
        return self._alone(*arguments)

    @cached_property
    def _alone(self) -> Callable[..., object]:
        return kernel(cast("Callable[..., object]", self.py_func))


def compiled_before(function: Callable[..., object]) -> bool:
    """Return whether machine code of a kernel is stored on disk, so that its first call does not compile."""
    path = getattr(getattr(function, "stats", None), "cache_path", None)
    if path is None:
        return numba.config.DISABLE_JIT == 1
    name = function.__name__
    return any(Path(path).glob(f"*.{name}-*.nbi"))

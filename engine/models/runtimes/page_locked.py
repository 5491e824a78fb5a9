"""Host memory that a GPU copies from and to by itself: page-locked, where the NVIDIA driver locks it."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.models.runtimes.providers import DRIVER

# Of cuMemHostRegister: valid in every context.
PORTABLE = 1


def host_array(shape: tuple[int, ...], dtype: DTypeLike, locked: bool) -> NDArray[Any]:
    """Return an array of zeros in pages of its own.

    Args:
        shape: of the array.
        dtype: of its elements.
        locked: whether to lock its pages; where that fails, copies are slower and nothing else changes.
    """
    kind = np.dtype(dtype)
    size = max(1, math.prod(shape) * kind.itemsize)
    array = np.frombuffer(mmap.mmap(-1, size), kind, math.prod(shape))
    driver = _driver() if locked else None
    if driver is not None and _lock(driver, array.ctypes.data, size):
        # Of the array, which views keep alive: the pages' own finaliser would run after they are gone.
        weakref.finalize(array, driver.cuMemHostUnregister, ctypes.c_void_p(array.ctypes.data))
    return array.reshape(shape)


@cache
def _driver() -> Any:
    """Return the driver's library, initialised; None where there is none."""
    try:
        driver = ctypes.CDLL(DRIVER)
        return driver if driver.cuInit(0) == 0 else None
    except (OSError, AttributeError):
        return None


def _lock(driver: Any, address: int, size: int) -> bool:
    """Lock pages in the context that ONNX Runtime uses; return whether that worked."""
    context, device = ctypes.c_void_p(), ctypes.c_int()
    try:
        if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDevicePrimaryCtxRetain(
            ctypes.byref(context), device
        ):
            return False
        if driver.cuCtxSetCurrent(context):
            return False
        lock = driver.cuMemHostRegister_v2
    except AttributeError:
        return False
    return bool(lock(ctypes.c_void_p(address), ctypes.c_size_t(size), PORTABLE) == 0)

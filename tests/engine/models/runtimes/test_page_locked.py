"""Page-locked memory: asked from the driver, given back, and plain where there is no driver or it refuses."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest

from engine.models.runtimes import page_locked
from engine.models.runtimes.page_locked import host_array


class Driver:
    """Stands in for the library of the NVIDIA driver; notes what is locked."""

    def __init__(self, refuses: str = "") -> None:
        self.locked: set[int] = set()
        self.refuses = refuses

    def __getattr__(self, name: str):
        if name not in ("cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"):
            raise AttributeError(name)
        return lambda *given: int(name == self.refuses)

    def cuMemHostRegister_v2(self, address, size, flags):
        if self.refuses == "cuMemHostRegister_v2":
            return 712
        assert flags == page_locked.PORTABLE
        assert size.value >= 1
        self.locked.add(address.value)
        return 0

    def cuMemHostUnregister(self, address):
        ctypes.string_at(address.value, 1)  # still there
        self.locked.remove(address.value)
        return 0


def test_pages_are_locked_while_the_array_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(page_locked, "_driver", lambda: driver)
    array = host_array((3, 5), np.uint8, locked=True)
    assert array.shape == (3, 5)
    assert not array.any()
    array[:] = 7
    assert driver.locked == {array.ctypes.data}
    part = array[1:]
    del array
    gc.collect()
    assert driver.locked  # a view still needs them
    del part
    gc.collect()
    assert driver.locked == set()


@pytest.mark.parametrize(
    "refuses", ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuMemHostRegister_v2"]
)
def test_memory_is_plain_where_the_driver_refuses(refuses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(refuses)
    monkeypatch.setattr(page_locked, "_driver", lambda: driver)
    array = host_array((2, 2), np.int64, locked=True)
    array += 1
    assert driver.locked == set()
    assert array.sum() == 4


def test_without_a_driver_or_for_the_cpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_locked, "DRIVER", "libnone.so.1")
    page_locked._driver.cache_clear()
    assert host_array((0, 4), np.float32, locked=True).shape == (0, 4)
    page_locked._driver.cache_clear()
    monkeypatch.setattr(page_locked, "_driver", lambda: pytest.fail("asked"))
    assert host_array((4,), np.float32, locked=False).shape == (4,)

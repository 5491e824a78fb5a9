"""The batch size of a device: where it starts, what memory allows, when it is measured."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ModelError
from engine.inference import batch_size
from engine.models.runtimes import GRAPH_ON_CPU
from engine.sources.base import Batch


class Sized:
    """A device that notes the sizes it is opened at, and has memory for so many images."""

    provider, lanes = "cuda", 3

    def __init__(self, memory: int = 10_000, only: int = 0) -> None:
        self.memory, self.only, self.opened = memory, only, []

    def open(self, size: int) -> None:
        self.batch_size = self.only or size
        self.opened.append(size)

    def close(self) -> None:
        self.opened.append(0)


@pytest.mark.parametrize(
    ("device", "images", "size", "fixed", "opened"),
    [
        (Sized(), 100_000, 256, False, [256, 512, 1024, 512]),  # 1,024 gains nothing
        (Sized(), 10_022, 256, False, [256]),  # over before others are measured
        (Sized(), 100_000, 64, True, [64]),
        (Sized(memory=100), 100_000, 256, False, [256, 0, 128, 0, 64, 128, 0, 64]),
        (Sized(only=3), 100_000, 256, False, [256]),
    ],
)
def test_the_batch_size_fits_the_memory_and_is_measured_in_long_runs(device, images, size, fixed, opened, monkeypatch):
    def turn(device, sample, rounds):
        if device.batch_size > device.memory:
            raise ModelError("too little memory")
        return {64: 50.0, 256: 100.0, 512: 110.0, 1024: 111.0}.get(device.batch_size, 1.0)

    monkeypatch.setattr(batch_size, "_turn", turn)
    batch_size.settle_size(device, Batch(0, ["0"], np.zeros((1, 8, 16, 1), np.uint8)), images, size, fixed)
    assert device.opened == opened


def test_a_size_that_does_not_fit_and_must_is_an_error(monkeypatch):
    def turn(device, sample, rounds):
        raise ModelError("too little memory")

    monkeypatch.setattr(batch_size, "_turn", turn)
    sample = Batch(0, ["0"], np.zeros((1, 8, 16, 1), np.uint8))
    for device, fixed in ((Sized(), True), (Sized(), False)):
        with pytest.raises(ModelError, match="memory"):
            batch_size.settle_size(device, sample, 100, 4, fixed)
        assert device.opened == ([4, 0] if fixed else [4, 0, 2, 0, 1, 0])


def test_the_first_size_suits_the_device_and_feeds_every_lane():
    tile, scene = (Batch(0, ["0"], np.zeros((1, *sides, 1), np.uint8)) for sides in ((64, 128), (2048, 4096)))
    assert batch_size.first_size("cuda", tile, 10_022, 3) == 256
    assert batch_size.first_size("cuda", tile, 100, 3) == 34
    assert batch_size.first_size("cuda", scene, 100, 3) == 1
    assert batch_size.first_size(GRAPH_ON_CPU, tile, 0, 2) == 16

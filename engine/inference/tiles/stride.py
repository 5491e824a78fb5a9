"""Which tiles the nets take: those of a fixed size one alone, others multiples of what they shrink the image by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.errors import ModelError, PlanError
from engine.inference.ensemble import Ensemble
from engine.inference.tiles.grid import Tiling
from engine.models.net import Net
from engine.models.views import check_views
from engine.utils.sides import Size, nearest_sizes, told_size

# Nets halve the image a number of times; none in use shrinks it by more.
STRIDES = (1, 2, 4, 8, 16, 32, 64)


def with_stride(ensemble: Ensemble, tiling: Tiling, channels: int) -> Tiling:
    """Return the tiling with the stride that the nets need.

    A net whose contract states a stride has that one. Any other net whose sizes are free is run on blank images: on a
    tile, and on tiles that are larger by 1, 2, 4 and so on; the first of these that it takes is its stride.

    Args:
        ensemble: the nets.
        tiling: what was asked for.
        channels: channels of the scenes.

    Raises:
        PlanError: a net does not take tiles of that size; the message says which it takes.
    """
    stride = 1
    for net in (net for member in ensemble.members for net in member.nets):
        fixed = net.contract.size
        if fixed is None:
            stride = math.lcm(stride, _stride(net, tiling.tile, channels))
        elif fixed != tiling.tile:
            raise PlanError(
                f"--tile {tiling.told}: {net.path.name} takes {told_size(fixed)} alone: use --tile {told_size(fixed)}"
            )
    for net in (net for member in ensemble.members for net in member.nets):
        check_views(net, ensemble.views, tiling.tile)
    return replace(tiling, stride=stride)


def _stride(net: Net, tile: tuple[int, int], channels: int) -> int:
    stated = net.contract.stride
    if stated > 1:
        if any(side % stated for side in tile):
            raise _not_taken(net, tile, nearest_sizes(tile, stated))
        return stated
    refusal = _refusal(net, tile, channels)
    if refusal is not None:
        nearest = _nearest(net, tile, channels)
        raise _not_taken(net, tile, nearest) if nearest else refusal
    for stride in STRIDES:
        if _refusal(net, (tile[0] + stride, tile[1] + stride), channels) is None:
            return stride
    return 1


def _nearest(net: Net, tile: tuple[int, int], channels: int) -> list[tuple[int, int]]:
    """Return the sizes next below and next above that a net takes; empty where none is found."""
    for stride in STRIDES[1:]:
        taken = [size for size in nearest_sizes(tile, stride) if _refusal(net, size, channels) is None]
        if taken:
            return taken
    return []


def _not_taken(net: Net, tile: Size, nearest: Sequence[Size]) -> PlanError:
    told = " or ".join(dict.fromkeys(map(told_size, nearest)))
    return PlanError(f"--tile {told_size(tile)}: {net.path.name} cannot take it; it takes {told}")


def _refusal(net: Net, size: tuple[int, int], channels: int) -> ModelError | None:
    """Return why a net does not take images of (height, width), or None where it does."""
    blank = np.zeros((1, *size, channels), np.uint8)
    try:
        net.run(net.prepare(blank), np.empty((1, net.maps, size[0] * size[1]), np.float32), size)
    except ModelError as error:
        return error
    return None

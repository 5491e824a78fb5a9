"""Sizes in ONNX: sides mirrored up, planes resized, images cut into windows, whatever the size at run time.

The nodes repeat the engine's arithmetic (:mod:`engine.models.adapt.size`, :mod:`engine.kernels.resize`). The operator
Resize computes positions in float32, which moves labels where sides are long or their ratio is no power of two, and the
operator Pad cannot mirror further than an image is long.
"""

from __future__ import annotations

import numpy as np

from engine.graph.compose import Composer
from engine.models.views import View

Sides = tuple[str, str]
TRANSPOSED = [0, 1, 3, 2]


def sides_of(graph: Composer, planes: str) -> Sides:
    """Add (height, width) of planes (batch, maps, height, width), scalars int64."""
    return graph.side(planes, 2), graph.side(planes, 3)


def next_multiple(graph: Composer, sides: Sides, steps: tuple[int, int]) -> Sides:
    """Add the least sides, not below the given ones, that ``steps`` divide."""
    height, width = (
        graph.add(
            "Mul",
            graph.add("Div", graph.add("Add", side, _whole(graph, step - 1)), _whole(graph, step)),
            _whole(graph, step),
        )
        for side, step in zip(sides, steps, strict=True)
    )
    return height, width


def mirrored(graph: Composer, planes: str, to: Sides) -> str:
    """Add planes mirrored at the lower and the right edge up to the sides ``to``."""
    one = _whole(graph, 1)
    for axis, target in zip((2, 3), to, strict=True):
        last = graph.add("Sub", graph.side(planes, axis), one)
        # Of a single pixel every position is 0: the remainder of 1.
        period = graph.add("Max", graph.add("Mul", last, _whole(graph, 2)), one)
        folded = graph.add("Mod", _range(graph, target), period)
        positions = graph.add("Min", folded, graph.add("Sub", period, folded))
        planes = graph.add("Gather", planes, positions, axis=axis)
    return planes


def cropped(graph: Composer, planes: str, to: Sides) -> str:
    """Add the upper left part of planes."""
    starts, axes = graph.constant([0, 0], np.int64), graph.constant([2, 3], np.int64)
    return graph.add("Slice", planes, starts, graph.shape(*to), axes)


def bilinear(graph: Composer, planes: str, whole: Sides, kept: Sides) -> str:
    """Add float32 planes resized to ``whole``, of which the upper left part ``kept`` is computed."""
    one, half = _whole(graph, 1), graph.constant(0.5, np.float64)
    zero = graph.constant(0.0, np.float64)
    for axis, target, count in ((3, whole[1], kept[1]), (2, whole[0], kept[0])):
        source = graph.side(planes, axis)
        last = graph.add("Sub", source, one)
        ratio = graph.add("Div", graph.cast(source, np.float64), graph.cast(target, np.float64))
        centre = graph.add("Add", graph.cast(_range(graph, count), np.float64), half)
        place = graph.add("Max", graph.add("Sub", graph.add("Mul", centre, ratio), half), zero)
        first = graph.add("Min", graph.cast(place, np.int64), last)
        weight = graph.add("Sub", place, graph.cast(first, np.float64))
        weight = graph.cast(graph.add("Where", graph.add("Less", first, last), weight, zero), np.float32)
        if axis == 2:
            weight = graph.add("Unsqueeze", weight, graph.constant([1], np.int64))
        second = graph.add("Min", graph.add("Add", first, one), last)
        near = graph.add("Gather", planes, first, axis=axis)
        way = graph.add("Sub", graph.add("Gather", planes, second, axis=axis), near)
        planes = graph.add("Add", near, graph.add("Mul", weight, way))
    return planes


def nearest(graph: Composer, planes: str, whole: Sides, kept: Sides) -> str:
    """Add planes resized to the nearest pixel, as :func:`bilinear`."""
    half = graph.constant(0.5, np.float64)
    for axis, target, count in ((2, whole[0], kept[0]), (3, whole[1], kept[1])):
        source = graph.cast(graph.side(planes, axis), np.float64)
        ratio = graph.add("Div", source, graph.cast(target, np.float64))
        centre = graph.add("Add", graph.cast(_range(graph, count), np.float64), half)
        positions = graph.cast(graph.add("Mul", centre, ratio), np.int64)
        planes = graph.add("Gather", planes, positions, axis=axis)
    return planes


def windows(graph: Composer, images: str, channels: int, size: tuple[int, int]) -> tuple[str, Sides]:
    """Add the windows of images whose sides ``size`` divides; return them and how many there are (down, across)."""
    down, across = (
        graph.add("Div", side, _whole(graph, step)) for side, step in zip(sides_of(graph, images), size, strict=True)
    )
    cut = graph.add("Reshape", images, graph.shape(-1, channels, down, size[0], across, size[1]))
    cut = graph.add("Transpose", cut, perm=[0, 2, 4, 1, 3, 5])
    return graph.add("Reshape", cut, graph.constant([-1, channels, *size], np.int64)), (down, across)


def joined(graph: Composer, maps: str, count: int, grid: Sides) -> str:
    """Add the maps (batch times windows, count, height, width) of windows put together again."""
    down, across = grid
    height, width = sides_of(graph, maps)
    apart = graph.add("Reshape", maps, graph.shape(-1, down, across, count, height, width))
    turned = graph.add("Transpose", apart, perm=[0, 3, 1, 4, 2, 5])
    sides = (graph.add("Mul", down, height), graph.add("Mul", across, width))
    return graph.add("Reshape", turned, graph.shape(-1, count, *sides))


def _whole(graph: Composer, value: int) -> str:
    return graph.constant(value, np.int64)


def _range(graph: Composer, count: str) -> str:
    return graph.add("Range", _whole(graph, 0), count, _whole(graph, 1))


def turned(graph: Composer, planes: str, view: View) -> str:
    """Add planes as a view of the group D4 shows them."""
    return _reversed(graph, graph.add("Transpose", planes, perm=TRANSPOSED) if view.transpose else planes, view)


def turned_back(graph: Composer, planes: str, view: View) -> str:
    """Add the planes of a view of the group D4 brought back to the image."""
    back = _reversed(graph, planes, view)
    return graph.add("Transpose", back, perm=TRANSPOSED) if view.transpose else back


def _reversed(graph: Composer, planes: str, view: View) -> str:
    axes = [axis for axis, backwards in ((2, view.vertical), (3, view.horizontal)) if backwards]
    if not axes:
        return planes
    ends = np.iinfo(np.int64).min + 1
    count = len(axes)
    cut = ([-1] * count, [ends] * count, axes, [-1] * count)
    return graph.add("Slice", planes, *(graph.constant(values, np.int64) for values in cut))

"""What the engine does with raw images before a net sees them, said in ONNX (:mod:`engine.models.prepare`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.graph import geometry
from engine.graph.compose import Composer
from engine.graph.geometry import Sides
from engine.models.contract import ModelContract
from engine.models.net import Net
from engine.models.prepare import input_size

Size = tuple[int, int]


@dataclass(frozen=True)
class Fed:
    """The input of a net.

    Attributes:
        tensor: what the net reads.
        whole: (height, width) that its maps stand for: of its input, or of the image where that was resized.
        grid: how many windows (down, across) each image was cut into; None where it was not.
        cut: whether the maps stand for more than the image.
        stretched: whether the image was resized.
    """

    tensor: str
    whole: Sides
    grid: Sides | None = None
    cut: bool = False
    stretched: bool = False


class Inputs:
    """Prepared images, computed once for all members that share a preparation."""

    def __init__(self, graph: Composer, images: str, kind: str, channels: int, size: Size | None) -> None:
        """Start from the raw images of a graph.

        Args:
            graph: what to add to.
            images: their tensor.
            kind: its element type.
            channels: channels of an image.
            size: (height, width) of all images; None for any.
        """
        self._graph, self._images, self._kind = graph, images, kind
        self._channels, self._size = channels, size
        self.sides = geometry.sides_of(graph, images)
        self._held: dict[tuple[object, ...], Fed] = {}

    def of(self, net: Net) -> Fed:
        """Return what a net reads."""
        if net.input_key not in self._held:
            self._held[net.input_key] = self._prepare(net)
        return self._held[net.input_key]

    def _prepare(self, net: Net) -> Fed:
        graph, held = self._graph, net.contract
        tensor = self._arranged(held)
        stretched = held.fit == "resize" and held.size is not None and held.size != self._size
        grid: Sides | None = None
        whole, cut = self.sides, not stretched and self._must_pad(held)
        if cut:
            steps = held.size or (held.stride, held.stride)
            whole = geometry.next_multiple(graph, self.sides, steps)
            tensor = geometry.mirrored(graph, tensor, whole)
        if net.kind != "uint8":
            tensor = self._scaled(tensor, held)
        elif stretched:
            tensor = graph.cast(tensor, np.float32)
        if stretched and held.size is not None:
            fixed = (graph.constant(held.size[0], np.int64), graph.constant(held.size[1], np.int64))
            tensor = geometry.bilinear(graph, tensor, fixed, fixed)
            tensor = graph.add("Round", tensor) if net.kind == "uint8" else tensor
        if cut and held.size is not None:
            tensor, grid = geometry.windows(graph, tensor, held.channels, held.size)
        if held.input_layout == "NHWC":
            tensor = graph.add("Transpose", tensor, perm=[0, 2, 3, 1])
        if net.kind != ("float32" if net.kind != "uint8" or stretched else self._kind):
            tensor = graph.cast(tensor, net.kind)
        return Fed(tensor, whole, grid, cut, stretched)

    def _must_pad(self, held: ModelContract) -> bool:
        if self._size is not None:
            return input_size(held, self._size) != self._size
        return held.fit == "pad" if held.size is not None else held.stride > 1

    def _arranged(self, held: ModelContract) -> str:
        order = [band - 1 for band in held.bands] or list(range(self._channels))
        order = order[::-1] if held.channel_order == "bgr" else order
        order = order * held.channels if len(order) == 1 and held.grey_as_rgb else order
        if order == list(range(self._channels)):
            return self._images
        return self._graph.add("Gather", self._images, self._graph.constant(order, np.int64), axis=1)

    def _scaled(self, tensor: str, held: ModelContract) -> str:
        graph = self._graph
        if self._kind != "float32":
            tensor = graph.cast(tensor, np.float32)
        if held.scale != 1.0:
            tensor = graph.add("Mul", tensor, graph.constant(held.scale))
        if any(held.mean):
            tensor = graph.add("Sub", tensor, graph.row(held.mean))
        if held.std != (1.0,):
            tensor = graph.add("Div", tensor, graph.row(held.std))
        return tensor

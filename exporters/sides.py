"""Keras nets rebuilt for images of other sides, and the stride that those sides need."""

from __future__ import annotations

import math
from typing import Any

from engine.errors import ModelError
from engine.graph.trial import random_tiles
from engine.models.contract import MAX_STRIDE, ModelContract
from engine.utils.sides import Size, told_size
from exporters.parity import keras_reason, run_keras, scaled

Sides = tuple[int | None, int | None]
_SHAPES = ("batch_shape", "build_input_shape")


def with_sides(net: Any, sides: Sides) -> Any:
    """Return the same net with the same weights for images of other sides.

    Args:
        net: functional or sequential net of stock layers.
        sides: (height, width) in pixels; None for any.

    Raises:
        ModelError: a layer has weights or a shape for one size alone.
    """
    try:
        rebuilt = type(net).from_config(_resided(net.get_config(), sides))
        rebuilt.set_weights(net.get_weights())
    except Exception as error:  # whatever a layer raises on shapes it was not made for
        told = told_size((sides[0], sides[1])) if sides[0] and sides[1] else "any size"
        raise ModelError(f"the net cannot be built for {told} ({keras_reason(error)})") from None
    return rebuilt


def find_stride(net: Any, base: Size, contract: ModelContract) -> int:
    """Return the smallest stride: images whose sides are larger than the trained ones by it are taken as well.

    Where every multiple of a stride is taken, it divides the trained sides; all such numbers are tried, from 1 on.

    Args:
        net: the Keras net, built for any sides.
        base: (height, width) it was trained at.
        contract: channels and scaling.

    Raises:
        ModelError: the net takes one size alone.
    """
    common = math.gcd(*base)
    refusal = ""
    for stride in (number for number in range(1, MAX_STRIDE + 1) if common % number == 0):
        size = (base[0] + stride, base[1] + stride)
        try:
            run_keras(net, scaled(random_tiles(size, contract.channels, tiles=1), contract))
        except ModelError as error:
            refusal = str(error)
        else:
            return stride
    raise ModelError(f"it takes {told_size(base)} alone: {_bound(net)}{refusal}; export it without --any-size")


def proof_sizes(base: Size, stride: int) -> list[Size]:
    """Return the sizes a file for any size is compared at: the trained one, twice it, another aspect, the least."""
    height, width = base
    aspect = (height + stride, width - stride if width > stride else width + 2 * stride)
    return list(dict.fromkeys((base, (2 * height, 2 * width), aspect, (stride, stride))))


def _bound(net: Any) -> str:
    """Name the layers whose shape holds the sides of the trained size, where there are any."""
    layers = net._flatten_layers(include_self=False, recursive=True)
    names = [layer.name for layer in layers if type(layer).__name__ in ("Reshape", "Flatten", "Embedding")]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"layers {', '.join(names[:3])}{more} are bound to it; " if names else ""


def _resided(node: Any, sides: Sides) -> Any:
    """Return a config with the sides of every input replaced; what layers built themselves for is left out."""
    if isinstance(node, dict):
        kept = {key: _resided(item, sides) for key, item in node.items() if key != "build_config"}
        for key in _SHAPES:
            shape = kept.get(key)
            if isinstance(shape, list | tuple) and len(shape) == 4:
                kept[key] = (shape[0], *sides, shape[3])
        return kept
    return type(node)(_resided(item, sides) for item in node) if isinstance(node, list | tuple) else node

"""What a packed graph takes: type, channels and size of its images, out of what the members take."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from engine.errors import InputError
from engine.graph.whole import Form
from engine.inference.ensemble import Ensemble
from engine.models.net import Net
from exporters.parity import DEFAULT_SIZE


def form_of(ensemble: Ensemble, grey_as_rgb: bool, tiles: npt.NDArray[Any] | None, uint8: bool = False) -> Form:
    """Return what a graph of these members takes.

    Args:
        ensemble: the members, opened.
        grey_as_rgb: whether images are grey, whatever the members take.
        tiles: raw tiles (tile, height, width, channel) that the members were opened for; None for none.
        uint8: whether images are uint8, whatever the members take.

    Raises:
        InputError: members that take different channels or sizes.
    """
    nets = ensemble.nets
    channels = tiles.shape[3] if tiles is not None else _channels(nets, grey_as_rgb)
    sizes = {net.contract.size: net for net in nets if net.contract.size is not None and not net.contract.fit}
    if len(sizes) > 1:
        told = ", ".join(f"{net.path.name} {size[0]}x{size[1]}" for size, net in sizes.items() if size)
        raise InputError(f"the members take different sizes ({told}): say how with fit in the plan")
    size = next(iter(sizes), None)
    trial = size or (tiles.shape[1:3] if tiles is not None else DEFAULT_SIZE)
    kind = "uint8" if uint8 or any(net.kind == "uint8" for net in nets) else "float32"
    return Form(kind, channels, size, (trial[0], trial[1]))


def _channels(nets: list[Net], grey_as_rgb: bool) -> int:
    """Return the channels that all nets take; of nets that pick bands, as many as the last band needs."""
    plain = [net for net in nets if not net.contract.bands]
    counts = sorted({net.contract.channels for net in plain})
    all_grey = counts == [1, 3] and all(net.contract.grey_as_rgb for net in plain if net.contract.channels == 3)
    if all_grey or (grey_as_rgb and counts and counts[-1] == 3):
        counts = [1]
    if len(counts) > 1:
        told = ", ".join(f"{net.path.name} {net.contract.channels}" for net in plain)
        raise InputError(f"the members take different channels ({told}): say --grey-as-rgb to feed grey images to all")
    picking = {max(net.contract.bands): net for net in nets if net.contract.bands}
    most = max(picking, default=0)
    if not counts:
        return most
    if most > counts[0]:
        raise InputError(
            f"{picking[most].path.name} takes band {most}, {plain[0].path.name} images of {counts[0]} channels: state "
            "its bands in the plan too"
        )
    return counts[0]

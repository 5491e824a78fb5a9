"""What the engine does to a net's input and output so that it runs as it is: a few words each, for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from engine.models.contract import ModelContract
from engine.models.foreign import Examined
from engine.models.ports import FLOATS, Ports


def adaptations(found: Examined, ports: Ports, contract: ModelContract) -> Iterator[str]:
    """Yield what is adapted; none of it changes what the net itself would say of a pixel.

    Args:
        found: what is known of the file.
        ports: its inputs and outputs.
        contract: its contract.
    """
    group = found.image.shape[0]
    if isinstance(group, int):
        yield "images run one by one" if group == 1 else f"images run in groups of {group}, the last one filled up"
    if found.image.kind != "float32":
        yield f"input is {found.image.kind}"
    if len(ports.outputs) > 1 and contract.kind != "packed":
        yield f"output {found.output.name} is read of {', '.join(port.name for port in ports.outputs)}"
    if contract.constants:
        yield f"constant inputs: {', '.join(contract.constants)}"
    if contract.bands:
        yield f"bands {', '.join(map(str, contract.bands))} are taken"
    if contract.channel_order == "bgr":
        yield "channels are turned from RGB to BGR"
    if contract.resolution is not None:
        yield f"maps are read at {contract.resolution:g} m per pixel (--tile)"
    if contract.size is None and contract.stride > 1:
        yield f"sides are mirrored up to multiples of {contract.stride} and cut back"
    if contract.size is not None and contract.fit:
        size = f"{contract.size[0]}x{contract.size[1]}"
        resized = f"images are resized to {size} and maps back"
        yield resized if contract.fit == "resize" else f"images are mirrored up to multiples of {size}, run as windows"
    if found.maps is not None and found.probed is not None and found.maps != found.probed:
        ratio = Fraction(found.maps[0], found.probed[0]).limit_denominator(64)
        yield f"maps of {ratio} of the input's sides are resized ({contract.maps_resize})"
    if found.output.kind in FLOATS and found.output.kind != "float32":
        yield f"output is {found.output.kind}"
    if contract.kind == "binary":
        threshold = contract.foreground_threshold
        yield f"one map: {contract.classes[0]} or {contract.classes[1]}, decided at a probability of {threshold:g}"
    if contract.kind == "multilabel":
        decided = ", ".join(f"{value:g}" for value in contract.thresholds or (0.5,))
        yield f"one mask per class, decided at a probability of {decided}"
    if contract.kind == "labels":
        yield f"labels ({found.output.kind}): it votes"

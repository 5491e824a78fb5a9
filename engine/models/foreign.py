"""Settles the contract of a foreign ONNX file: what its shapes show, what one image shows, what the user states.

Nothing is guessed: where the evidence allows two readings, the error names the option that settles it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError
from engine.models.contract import MAX_CLASSES, Layout, ModelContract, checked_fields

Dimension = int | str | None
CHANNEL_COUNTS = (1, 3)


@dataclass(frozen=True)
class Ports:
    """Shapes of the one input and the chosen output as the graph declares them; a text or None is a free dimension."""

    input_shape: tuple[Dimension, ...]
    output_shape: tuple[Dimension, ...]
    output_name: str

    def __post_init__(self) -> None:
        """Refuse ranks that are no images.

        Raises:
            ContractError: the input or the output is not of rank 4.
        """
        for name, shape in (("input", self.input_shape), ("output", self.output_shape)):
            if len(shape) != 4:
                raise ContractError(
                    f"its {name} has rank {len(shape)}; (batch, channels or classes, height, width) or "
                    "the same with the channels last is needed"
                )

    def channels_height_width(self, layout: Layout) -> tuple[Dimension, Dimension, Dimension]:
        """Return the input's (channels, height, width) under a layout."""
        _, a, b, c = self.input_shape
        return (a, b, c) if layout == "NCHW" else (c, a, b)

    def check(self, contract: ModelContract) -> None:
        """Refuse a contract that the graph's own shapes contradict.

        Raises:
            ContractError: naming the dimension, what is promised and what the graph declares.
        """
        channels, height, width = self.channels_height_width(contract.input_layout)
        _, a, _, c = self.output_shape
        maps = a if contract.output_layout == "NCHW" else c
        size = contract.size or (None, None)
        promises = (
            ("channels", contract.channels, channels),
            ("height", size[0], height),
            ("width", size[1], width),
            ("output maps", contract.outputs, maps),
        )
        for name, promised, declared in promises:
            if isinstance(declared, int) and promised is not None and promised != declared:
                raise ContractError(
                    f"its contract promises {promised} {name}, its graph has {declared}: export it again"
                )


def complete_contract(
    ports: Ports,
    stated: Mapping[str, Any],
    sample: NDArray[Any] | None,
    probe: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> ModelContract:
    """Return the contract of a file that carries none.

    Args:
        ports: the graph's shapes.
        stated: contract fields the user states; they win over evidence and must not contradict it.
        sample: one raw image (height, width, channels); None leaves less evidence.
        probe: runs the net on a prepared batch of one image and returns its output.

    Raises:
        ContractError: something stays open; the message names the option that settles it.
    """
    given = checked_fields(dict(stated))
    if "scale" not in given and not {"mean", "std"} & set(given):
        raise ContractError(
            "it carries no contract and does not say how pixels are scaled: "
            "state --scale 1 (raw 0..255) or --scale 0.00392157 (0..1), with --mean and --std if it wants them"
        )
    layout: Layout = given.get("input_layout") or _input_layout(ports)
    declared_channels, height, width = ports.channels_height_width(layout)
    channels = given.get("channels") or (declared_channels if isinstance(declared_channels, int) else None)
    if channels is None:
        channels = sample.shape[2] if sample is not None else 1
    size = given.get("size") or ((height, width) if isinstance(height, int) and isinstance(width, int) else None)
    given.update(input_layout=layout, channels=channels, size=size)
    # What is stated is checked before the net runs on it; the names of the classes may follow from the output.
    ModelContract(**{"classes": tuple(map(str, range(MAX_CLASSES))), **given})
    output = _probed(given, sample, probe)
    image_size = (sample.shape[0], sample.shape[1]) if sample is not None else size
    maps, given["output_layout"] = _output_layout(ports, output, image_size, given)
    given["activation"] = given.get("activation") or _activation(output, given["output_layout"])
    if maps == 1 and given.get("kind") != "specialist":
        raise ContractError('it puts out one map: state kind = "specialist", class_id and classes in a plan file')
    if "classes" not in given:
        given["classes"] = tuple(f"class {index}" for index in range(maps))
    contract = ModelContract(**given)
    if contract.outputs != maps:
        raise ContractError(f"{len(contract.classes)} classes are stated, it puts out {maps} maps: state as many")
    ports.check(contract)
    return contract


def _input_layout(ports: Ports) -> Layout:
    first, last = ports.input_shape[1], ports.input_shape[3]
    planar, interleaved = first in CHANNEL_COUNTS, last in CHANNEL_COUNTS
    if planar == interleaved:
        raise ContractError(
            f"its input is {_shown(ports.input_shape)}: state --input-layout NCHW or --input-layout NHWC"
        )
    return "NCHW" if planar else "NHWC"


def _probed(
    given: dict[str, Any], sample: NDArray[Any] | None, probe: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32] | None:
    if sample is None:
        return None
    size = given["size"]
    if size is not None and tuple(size) != sample.shape[:2]:
        raise ContractError(
            f"it takes images of {size[0]}x{size[1]}, these are {sample.shape[0]}x{sample.shape[1]}: "
            "resize them or export the model for their size"
        )
    image = sample.astype(np.float32)[None]
    if image.shape[3] == 1 and given["channels"] == 3:
        image = np.repeat(image, 3, axis=3)
    if image.shape[3] != given["channels"]:
        raise ContractError(f"it takes images of {given['channels']} channels, the images have {image.shape[3]}")
    scaled = (image * given.get("scale", 1.0) - np.asarray(given.get("mean", (0.0,)), np.float32)) / np.asarray(
        given.get("std", (1.0,)), np.float32
    )
    scaled = scaled.astype(np.float32)
    output = probe(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)) if given["input_layout"] == "NCHW" else scaled)
    if output.ndim != 4:
        raise ContractError(f"it puts out shape {output.shape}; rank 4 with a map a class is needed")
    return output


def _output_layout(
    ports: Ports, output: NDArray[np.float32] | None, size: tuple[int, int] | None, given: dict[str, Any]
) -> tuple[int, Layout]:
    """Return the number of maps and the layout, from the probed output or, without one, the declared shape."""
    shape = output.shape if output is not None else ports.output_shape
    _, a, b, c = shape
    planar = size is not None and (b, c) == size
    interleaved = size is not None and (a, b) == size
    layout: Layout | None = given.get("output_layout")
    if layout is None and planar != interleaved:
        layout = "NCHW" if planar else "NHWC"
    if layout is None and planar:
        raise ContractError(f"its output is {_shown(shape)}: state --output-layout NCHW or --output-layout NHWC")
    if layout is None and (output is None or size is None):
        raise ContractError(
            f"its output is {_shown(shape)}: state --output-layout, or give --input so that an image can show it"
        )
    if layout is None or (output is not None and not (planar if layout == "NCHW" else interleaved)):
        raise ContractError(
            f"its output is {_shown(shape)} for an image of {size}: it must have the image's height and width"
        )
    maps = a if layout == "NCHW" else c
    if not isinstance(maps, int):
        raise ContractError(f"its output is {_shown(shape)}: give --input so that an image can show the classes")
    return maps, layout


def _activation(output: NDArray[np.float32] | None, layout: str) -> str:
    """Tell logits from probabilities where one image can show it."""
    question = "it does not say what it puts out: state --activation logits or --activation probabilities"
    if output is None:
        raise ContractError(question)
    if output.min() < 0 or output.max() > 1:
        return "logits"
    sums = output.sum(axis=1 if layout == "NCHW" else 3)
    if output.shape[1 if layout == "NCHW" else 3] > 1 and np.allclose(sums, 1, atol=1e-3):
        return "probabilities"
    raise ContractError(question)


def _shown(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"

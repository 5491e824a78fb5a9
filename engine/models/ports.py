"""What a graph declares: its inputs and outputs, which of them are the image and the maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError, option
from engine.models.contract import LABELS, Layout, ModelContract

Dimension = int | str | None
# Element types of ONNX Runtime by the names of NumPy.
KINDS = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}
IMAGE_KINDS = ("float32", "float16", "float64", "uint8")
FLOATS = ("float32", "float16", "float64")
# Of several outputs that could be the maps, the first of these names wins: auxiliary heads have others.
PREFERRED = ("out", "logits", "output")


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        name: as the graph calls it.
        kind: NumPy's name of its element type; ONNX Runtime's own where NumPy has none.
        shape: as declared; a text or None is an open dimension.
    """

    name: str
    kind: str
    shape: tuple[Dimension, ...]

    @property
    def told(self) -> str:
        """Name, type and shape, for messages."""
        return f"{self.name} {self.kind} {shown(self.shape)}"


@dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a graph.

    Attributes:
        inputs: all inputs.
        outputs: all outputs.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @classmethod
    def of(cls, session: Any) -> Ports:
        """Return the ports of an ``onnxruntime.InferenceSession``."""
        return cls(*(tuple(map(_port, given)) for given in (session.get_inputs(), session.get_outputs())))

    def image(self, constants: Sequence[str] = ()) -> Port:
        """Return the input that takes the image.

        Raises:
            ContractError: there is none, several could be it, or a further input has no constant value.
        """
        if not self.inputs:
            raise ContractError("it takes no input; a member takes one batch of images: export it so")
        images = [port for port in self.inputs if len(port.shape) == 4 and port.kind in IMAGE_KINDS]
        images = [port for port in images if port.name not in constants]
        if len(self.inputs) == 1 and not images:
            port = self.inputs[0]
            if len(port.shape) != 4:
                raise ContractError(
                    f"its input has rank {len(port.shape)}; (batch, channels, height, width) or the same with the "
                    "channels last is needed"
                )
            raise ContractError(f"it takes {port.kind}; {', '.join(IMAGE_KINDS)} are possible: export it with one")
        if len(images) != 1:
            raise ContractError(
                f"it takes {len(self.inputs)} inputs, {', '.join(port.told for port in self.inputs)}: a member takes "
                "one image; export it so, or state the others as constants in its TOML file"
            )
        open_inputs = [port for port in self.inputs if port is not images[0] and port.name not in constants]
        if open_inputs:
            raise ContractError(
                f"its input {open_inputs[0].told} is no image: state its value in its TOML file, as in "
                f"constants = {{ {open_inputs[0].name} = 0.5 }}, or export it without"
            )
        return images[0]

    def filled(self, constants: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Return the values of further inputs as arrays of their declared type and shape; open dimensions are 1.

        Raises:
            ContractError: no such input, or a value that does not fill it.
        """
        named = {port.name: port for port in self.inputs}
        filled = {}
        for name, value in constants.items():
            if name not in named:
                raise ContractError(f"constants: it has no input {name!r}; there are {', '.join(named)}")
            port = named[name]
            shape = tuple(size if isinstance(size, int) else 1 for size in port.shape)
            try:
                held = _cast(np.asarray(value), port.kind)
                held = held.reshape(shape) if held.ndim and held.size == np.prod(shape) else held
                filled[name] = np.broadcast_to(held, shape).copy()
            except (TypeError, ValueError, OverflowError):
                raise ContractError(f"constants: {name} = {value} does not fill the input {port.told}") from None
        return filled

    def candidates(self, output_name: str = "") -> list[Port]:
        """Return the outputs that could be the maps; the one that is named or that stands out by its name alone.

        Raises:
            ContractError: no output of that name, or none that could be maps or labels.
        """
        named = {port.name: port for port in self.outputs}
        if output_name:
            if output_name not in named:
                raise ContractError(f"it has no output {output_name!r}; there are: {', '.join(named)}")
            return [named[output_name]]
        fitting = [port for port in self.outputs if _could_be_maps(port)]
        if not fitting:
            listed = ", ".join(port.told for port in self.outputs)
            raise ContractError(
                f"it outputs {listed}; maps of rank 4, or labels of rank 3, are needed: export it without what follows"
            )
        for name in PREFERRED:
            if name in named and named[name] in fitting:
                return [named[name]]
        return fitting

    def ambiguous(self, fitting: Sequence[Port]) -> ContractError:
        """Return the question which output is meant."""
        listed = ", ".join(port.told for port in fitting)
        return ContractError(
            f"it has several outputs, {listed}: pick one with {option('output_name', fitting[0].name)}"
        )


def channels_height_width(shape: Sequence[Dimension], layout: Layout) -> tuple[Dimension, Dimension, Dimension]:
    """Return the (channels, height, width) of an input of rank 4 under a layout."""
    _, a, b, c = shape
    return (a, b, c) if layout == "NCHW" else (c, a, b)


def check_promises(image: Port, output: Port, contract: ModelContract) -> None:
    """Refuse a contract that the graph's own shapes contradict.

    Raises:
        ContractError: naming the dimension, what is promised and what the graph declares.
    """
    channels, height, width = channels_height_width(image.shape, contract.input_layout)
    size = contract.size or (None, None)
    promises: list[tuple[str, int | None, Dimension]] = [
        ("channels", contract.channels, channels),
        ("height", size[0], height),
        ("width", size[1], width),
    ]
    if len(output.shape) == 4 and output.name != LABELS:
        maps = output.shape[1] if contract.output_layout == "NCHW" else output.shape[3]
        promises.append(("output maps", contract.outputs, maps))
    for name, promised, declared in promises:
        if isinstance(declared, int) and promised is not None and promised != declared:
            raise ContractError(f"its contract promises {promised} {name}, its graph has {declared}: export it again")


def shown(shape: Sequence[Any]) -> str:
    """Return a shape as it stands in messages; open dimensions by their names."""
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def _cast(values: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return numbers as another type; ValueError where that type does not hold them."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(kind)
    if not (np.isfinite(cast) if kind in FLOATS else cast == values).all():
        raise ValueError
    return cast


def _port(raw: Any) -> Port:
    shape = tuple(size if isinstance(size, int | str) else None for size in raw.shape)
    return Port(raw.name, KINDS.get(raw.type, raw.type), shape)


def _could_be_maps(port: Port) -> bool:
    if port.kind in FLOATS:
        return len(port.shape) in (3, 4)
    whole = port.kind in KINDS.values() and port.kind != "bool"
    return whole and (len(port.shape) == 3 or (len(port.shape) == 4 and 1 in (port.shape[1], port.shape[3])))

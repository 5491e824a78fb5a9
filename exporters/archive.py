"""Reads a ``.keras`` archive: its contract, and its net, converted to float32 and checked for what the engine needs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ContractError, ModelError
from engine.models.contract import KERAS_MEMBER, ModelContract
from engine.utils.boundary import refusing
from exporters.backend import load_keras

_CONFIG = "config.json"
_MAX_CONTRACT_BYTES = 1 << 20


@dataclass(frozen=True)
class Shape:
    """Input and output of a net: height and width in pixels (None: any), input channels, output maps."""

    height: int | None
    width: int | None
    channels: int
    outputs: int

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width), or None if the net takes more than one size."""
        return None if self.height is None or self.width is None else (self.height, self.width)


def read_contract(path: Path) -> ModelContract | None:
    """Return the contract in a ``.keras`` archive, or None if it has none.

    Raises:
        ModelError: the file is missing or not a Keras archive.
        ContractError: the contract is invalid.
    """
    with _opened(path) as archive:
        if KERAS_MEMBER not in archive.namelist():
            return None
        if archive.getinfo(KERAS_MEMBER).file_size > _MAX_CONTRACT_BYTES:
            raise ContractError(f"{path}: its member {KERAS_MEMBER} is above 1 MiB; a contract is a few lines of JSON")
        raw = _member(path, archive, KERAS_MEMBER)
    try:
        return ModelContract.from_json(raw.decode())
    except (ContractError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: {error}") from None


def load_net(path: Path) -> Any:
    """Load the Keras net of an archive, without its optimiser, computing in float32.

    A net trained in mixed precision keeps its float32 weights and computes in float32 from here on, which is at least
    as exact, and faster on a CPU than half precision.

    Raises:
        ModelError: not a Keras archive, layer classes unknown to Keras, code in a Lambda layer, quantised.
    """
    keras = load_keras()
    with _opened(path) as archive:
        config = _member(path, archive, _CONFIG)
        _check_whole(path, archive)
    try:
        net = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the foreign config makes it raise: one line says which.
        raise ModelError(_load_complaint(path, config, error)) from None
    for layer in net._flatten_layers(include_self=True, recursive=True):
        if getattr(layer, "quantization_mode", None) is not None:
            raise ModelError(f"{path}: layer {layer.name!r} is quantised; export the float net and quantise the ONNX")
        layer.dtype_policy = "float32"
    return net


def net_shape(path: Path, net: Any) -> Shape:
    """Check that a net maps one batch of images to one batch of equally sized maps, and return its shape.

    Raises:
        ModelError: more than one input or output, a wrong rank, a fixed batch, a dynamic channel axis, or maps of
            another size than the images.
    """
    taken = _only(path, "input", getattr(net, "inputs", None))
    given = _only(path, "output", getattr(net, "outputs", None))
    if taken.shape[0] is not None:
        raise ModelError(
            f"{path}: its batch size is fixed at {taken.shape[0]}; it must be dynamic: build the net without batch_size"
        )
    if not str(taken.dtype).startswith(("float", "bfloat")):
        raise ModelError(
            f"{path}: its input is {taken.dtype}; float images are required: cast inside the trainer's data"
        )
    if taken.shape[3] is None or given.shape[3] is None:
        raise ModelError(f"{path}: its channels are dynamic (input {taken.shape}, output {given.shape}); fix both")
    for got, wanted in zip(given.shape[1:3], taken.shape[1:3], strict=True):
        if None not in (got, wanted) and got != wanted:
            raise ModelError(f"{path}: maps of {given.shape[1:3]} for images of {taken.shape[1:3]}; both must be equal")
    return Shape(taken.shape[1], taken.shape[2], int(taken.shape[3]), int(given.shape[3]))


def ending_activation(net: Any) -> str:
    """Return ``softmax`` or ``sigmoid`` if the net's last layer applies it, otherwise an empty text."""
    try:
        layer = net.outputs[0]._keras_history.operation
    except AttributeError:
        return ""
    if hasattr(layer, "layers"):
        return ending_activation(layer)
    name = type(layer).__name__ if type(layer).__name__ in ("Softmax", "Sigmoid") else ""
    name = name or getattr(getattr(layer, "activation", None), "__name__", "")
    return name.lower() if name.lower() in ("softmax", "sigmoid") else ""


def _opened(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give a .keras archive")
    with refusing(lambda why: f"{path}: not a Keras archive; save the net with model.save('NAME.keras')", ModelError):
        archive = zipfile.ZipFile(path)
    if _CONFIG not in archive.namelist():
        archive.close()
        raise ModelError(f"{path}: a zip file without {_CONFIG}; save the net with model.save('NAME.keras')")
    return archive


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    with refusing(lambda why: f"{path}: its member {name} is damaged ({why}); copy or save the file again", ModelError):
        return archive.read(name)


def _check_whole(path: Path, archive: zipfile.ZipFile) -> None:
    """Compare every member with its checksum, as not every Python does where HDF5 reads parts of one."""
    with refusing(lambda why: f"{path}: it is damaged ({why}); copy or save the file again", ModelError):
        damaged = archive.testzip()
    if damaged is not None:
        raise ModelError(f"{path}: its member {damaged} is damaged (another checksum); copy or save the file again")


def _only(path: Path, side: str, tensors: Any) -> Any:
    if not tensors:
        raise ModelError(f"{path}: its {side}s are unknown; save a functional or a built sequential net")
    if len(tensors) != 1:
        raise ModelError(f"{path}: {len(tensors)} {side}s; exactly one is allowed: save the net with its main {side}")
    if len(tensors[0].shape) != 4:
        raise ModelError(
            f"{path}: its {side} has shape {tensors[0].shape}; (batch, height, width, channel) is required"
        )
    return tensors[0]


def _load_complaint(path: Path, config: bytes, error: Exception) -> str:
    try:
        parsed = json.loads(config)
    except ValueError:
        return f"{path}: its {_CONFIG} is not JSON; save the net again"
    objects = list(_objects(parsed))
    if any(item.get("class_name") == "Lambda" for item in objects):
        return f"{path}: it contains a Lambda layer, whose code is never run on loading; replace it with stock layers"
    custom = sorted({str(item["class_name"]) for item in objects if _is_custom(item)})
    if custom:
        return f"{path}: unknown custom objects {', '.join(custom)}; rebuild the net from stock Keras layers"
    return f"{path}: Keras cannot load it ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]})"


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "class_name" in node and "config" in node:
            yield node
        # The training settings are never loaded, so their losses and metrics are no obstacle.
        for key, item in node.items():
            if key != "compile_config":
                yield from _objects(item)
    elif isinstance(node, list):
        for item in node:
            yield from _objects(item)


def _is_custom(item: dict[str, Any]) -> bool:
    module = item.get("module")
    if module in ("builtins", None):
        return bool(item.get("registered_name")) and item["class_name"] not in ("function", "__tuple__", "__numpy__")
    return str(module).split(".")[0] != "keras"

"""Keras against ONNX on the same tiles: the largest difference of the outputs and the agreement of the labels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputError, ModelError
from engine.graph.trial import random_tiles
from engine.models.contract import ModelContract
from engine.utils.boundary import refusing
from engine.utils.console import first_line
from engine.utils.sides import Size, nearest_sizes
from exporters.archive import Shape

Array = npt.NDArray[np.float32]

REAL_TILES = 64
DEFAULT_SIZE = (64, 128)
# Batches of different sizes also verify that the batch axis is dynamic.
BATCHES = (1, 3, 7)
_KERAS = "Exception encountered when calling"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_KEYS = ("test_set", "images", "training_set")


@dataclass(frozen=True)
class Tolerance:
    """How far an ONNX file may deviate from its Keras net.

    Attributes:
        difference: largest absolute difference allowed between two outputs, for outputs up to 1 in size; larger
            outputs allow proportionally more, as float32 resolves them proportionally less.
        agreement: smallest share of pixels that must get the same label.
    """

    difference: float = 1e-4
    agreement: float = 0.9999


@dataclass(frozen=True)
class Parity:
    """The result of a comparison.

    Attributes:
        max_difference: largest absolute difference of an output value.
        agreement: share of pixels with the same label, 0 to 1.
        tiles: tiles compared, real and random ones.
        peak: largest absolute output of the Keras net.
    """

    max_difference: float
    agreement: float
    tiles: int
    peak: float

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether the figures are within a tolerance; NaN never is."""
        return self.relative <= tolerance.difference and self.agreement >= tolerance.agreement

    @property
    def relative(self) -> float:
        """Largest difference over the size of the outputs where that is above 1; infinite where it is NaN."""
        relative = self.max_difference / max(1.0, self.peak)
        return math.inf if math.isnan(relative) else relative

    def __str__(self) -> str:
        return f"difference {self.max_difference:.2e}, agreement {self.agreement:.6f}, {self.tiles} tiles"


def load_tiles(path: Path, limit: int = REAL_TILES) -> npt.NDArray[Any]:
    """Read up to ``limit`` tiles, evenly spread over the set, from an ``.npz`` file.

    Args:
        path: file with one of the keys ``test_set``, ``images`` (tiles alone) or ``training_set`` (tiles and masks,
            of which ``[:, 0]`` are the tiles).
        limit: how many tiles to take at most.

    Returns:
        Raw tiles (tile, height, width, channel), in the file's dtype.

    Raises:
        InputError: no such file, not an ``.npz`` file, none of the keys, or an array of another rank.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an .npz file with one of the keys {', '.join(_KEYS)}")
    with refusing(lambda why: f"{path}: not a readable .npz file ({why})"):
        key, tiles = _first_key(path)
    if tiles is None:
        raise InputError(f"{path}: none of the keys {', '.join(_KEYS)}; save the tiles under one of them")
    if key == "training_set" and tiles.ndim >= 4:
        tiles = tiles[:, 0]
    if tiles.ndim == 3:
        tiles = tiles[..., None]
    if tiles.ndim != 4 or 0 in tiles.shape or tiles.dtype.kind not in "uif":
        raise InputError(
            f"{path}: {key} has shape {tiles.shape} of {tiles.dtype}; numbers (tile, height, width) are required"
        )
    chosen = np.linspace(0, len(tiles) - 1, min(limit, len(tiles))).round().astype(int)
    return np.asarray(tiles[chosen])


def _first_key(path: Path) -> tuple[str, npt.NDArray[Any] | None]:
    data = np.load(path, allow_pickle=False)
    if isinstance(data, np.ndarray):
        raise ValueError("it contains one bare array")
    with data:
        for key in _KEYS:
            if key in data.files:
                return key, data[key]
    return "", None


def default_size(contract: ModelContract) -> Size:
    """Return the size to compare a file at: its own, or for any size about 64x128, which the stride divides."""
    return contract.size or nearest_sizes(DEFAULT_SIZE, contract.stride)[1]


def trial_images(contract: ModelContract, shape: Shape, real: npt.NDArray[Any] | None) -> Array:
    """Return the images for both sides, scaled as the contract says: real tiles first, then random ones.

    Raises:
        InputError: the real tiles do not fit the net.
    """
    size = contract.size or shape.size or (DEFAULT_SIZE if real is None else real.shape[1:3])
    if real is not None and real.shape[1:] != (*size, contract.channels):
        raise InputError(f"the tiles are {real.shape[1:]}, the net takes {(*size, contract.channels)}: give such tiles")
    raw = random_tiles((size[0], size[1]), contract.channels)
    parts = [raw.astype(np.float32)] if real is None else [real.astype(np.float32), raw.astype(np.float32)]
    return scaled(np.concatenate(parts), contract)


def scaled(raw: npt.NDArray[Any], contract: ModelContract) -> Array:
    """Return raw tiles (tile, height, width, channel) scaled as a contract says."""
    mean, std = (np.asarray(values, dtype=np.float32) for values in (contract.mean, contract.std))
    images = raw.astype(np.float32) * np.float32(contract.scale)
    return np.ascontiguousarray((images - mean) / std, dtype=np.float32)


def run_keras(net: Any, images: Array) -> Array:
    """Run a Keras net on the CPU over images (tile, height, width, channel) and return NCHW outputs.

    Raises:
        ModelError: the net outputs NaN or infinity, or cannot run on these images.
    """
    import tensorflow as tf

    try:
        with tf.device("/CPU:0"):
            parts = [np.asarray(net(batch, training=False), dtype=np.float32) for batch in _batches(images)]
    except Exception as error:  # whatever a layer raises, for instance on sides that a pooling cannot halve
        raise ModelError(f"the net cannot run on images {images.shape[1:]} ({keras_reason(error)})") from None
    outputs = np.concatenate(parts).transpose(0, 3, 1, 2)
    if outputs.shape[2:] != images.shape[1:3]:
        raise ModelError(f"maps of {outputs.shape[2:]} for images of {images.shape[1:3]}; both must be equal")
    if not np.isfinite(outputs).all():
        raise ModelError("the Keras net outputs NaN or infinity on the test images; check the training run")
    return np.ascontiguousarray(outputs)


def run_onnx(model: bytes, images: Array) -> Array:
    """Run an NCHW ONNX model with one thread on the CPU over images (tile, height, width, channel).

    Raises:
        ModelError: ONNX Runtime refuses the model or fails on the images.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        parts = [session.run(None, {name: batch})[0] for batch in _batches(planar)]
    except Exception as error:  # the runtime's errors share no public base class
        raise ModelError(f"ONNX Runtime refuses the graph ({first_line(error, kind=True)})") from None
    return np.concatenate(parts)


def measure(reference: Array, outputs: npt.NDArray[Any], contract: ModelContract) -> Parity:
    """Compare NCHW outputs (tile, map, height, width) with those of the Keras net.

    A one-map net predicts label 1 where its output is above 0 (log-odds) or 0.5 (probability).

    Raises:
        ModelError: another shape or another type than float32.
    """
    if outputs.shape != reference.shape or outputs.dtype != np.float32:
        raise ModelError(
            f"the graph outputs {outputs.shape} of {outputs.dtype}, the Keras net {reference.shape} of float32"
        )
    difference = np.abs(reference - outputs).max()
    if reference.shape[1] == 1:
        limit = 0.5 if contract.activation == "probabilities" else 0.0
        same = (reference > limit) == (outputs > limit)
    else:
        same = reference.argmax(axis=1) == outputs.argmax(axis=1)
    return Parity(float(difference), float(same.mean()), len(reference), float(np.abs(reference).max()))


def worst(parts: Sequence[Parity]) -> Parity:
    """Return comparisons at several sizes as one: the difference that matters most, the least agreement."""
    furthest = max(parts, key=lambda part: part.relative)
    return replace(furthest, agreement=min(part.agreement for part in parts), tiles=sum(part.tiles for part in parts))


def check_activation(reference: Array, contract: ModelContract) -> None:
    """Refuse a contract that declares probabilities for outoutputsside 0..1.

    Raises:
        ModelError: the outputs leave that range.
    """
    low, high = float(reference.min()), float(reference.max())
    if contract.activation == "probabilities" and (low < -1e-5 or high > 1 + 1e-5):
        raise ModelError(
            f"the contract says probabilities, but the outputs range from {low:.3g} to {high:.3g}: use logits"
        )


def _batches(images: Array) -> Iterator[Array]:
    start = 0
    lengths = cycle(BATCHES)
    while start < len(images):
        length = next(lengths)
        yield images[start : start + length]
        start += length


def keras_reason(error: Exception) -> str:
    """Return kind and reason of an error of Keras, which names the layer first and gives the reason one line below."""
    plain = _ESCAPES.sub("", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[:1] and lines[0].startswith(_KERAS) else 1])
    return f"{type(error).__name__}: {text[:300] or 'no message'}"

"""The packed graph against the engine, pixel by pixel, on the same tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.fusion.strategies.vote import voting_units
from engine.inference.ensemble import Ensemble
from engine.sources.base import from_array
from engine.utils.console import first_line

BATCH = 4
# Scores this close, relative to the larger of 1 and their magnitude, are equal within float32 rounding.
_ROUNDING = 4e-6


@dataclass(frozen=True)
class SelfCheck:
    """The result of a comparison.

    Attributes:
        tiles: tiles compared.
        pixels: pixels compared.
        ties: pixels with another label because two classes score the same within float32 rounding.
    """

    tiles: int
    pixels: int
    ties: int


def compare(ensemble: Ensemble, model: bytes, trials: Sequence[npt.NDArray[Any]]) -> SelfCheck:
    """Run engine and packed graph on raw tiles.

    Args:
        ensemble: the ensemble of the graph.
        model: the serialized graph.
        trials: arrays of raw tiles (tile, height, width, channel).

    Raises:
        ModelError: a pixel got another label without a tie, or ONNX Runtime refuses the graph.
    """
    session = open_session(model)
    tiles = pixels = ties = 0
    for images in trials:
        for batch in from_array(images, name="the tiles").batches(BATCH):
            logits, _ = ensemble.logits(batch, ensemble.variant.decoding.suppress)
            expected, _ = ensemble.decode(logits, ensemble.variant, images.shape[1:3])
            raw = np.ascontiguousarray(batch.pixels.transpose(0, 3, 1, 2), dtype=np.float32)
            got = _run(session, raw).reshape(expected.shape)
            differing = np.argwhere(got != expected)
            real = sum(
                not _tied(logits[:, image, :, pixel], ensemble, expected[image, pixel], got[image, pixel])
                for image, pixel in differing
            )
            if real:
                raise ModelError(f"the packed graph gives {real} of {got.size} pixels another label than the engine")
            tiles, pixels, ties = tiles + len(got), pixels + got.size, ties + len(differing)
    return SelfCheck(tiles, pixels, ties)


def open_session(model: bytes | str) -> Any:
    """Open a model with one thread on the CPU.

    Raises:
        ModelError: ONNX Runtime refuses it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no public base class
        raise ModelError(f"ONNX Runtime refuses the graph ({first_line(error, kind=True)})") from None


def _run(session: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    try:
        return np.asarray(session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: images})[0])
    except Exception as error:  # as above
        raise ModelError(f"ONNX Runtime fails on the packed graph ({first_line(error, kind=True)})") from None


def _tied(logits: npt.NDArray[np.float32], ensemble: Ensemble, a: int, b: int) -> bool:
    """Return whether two labels of one pixel score the same, up to float32 rounding.

    Args:
        logits: (members, classes) of the pixel, in the engine's order of members.
        ensemble: strategy, weights and decoding.
        a: one label.
        b: the other.
    """
    decoding, strategy = ensemble.variant.decoding, ensemble.variant.strategy
    if b in decoding.suppress:
        return False
    ranked = sorted(range(len(ensemble.members)), key=lambda index: ensemble.members[index].checksum)
    weights = ensemble.weights[ranked]
    exact = logits.astype(np.float64)
    shifted = np.exp(exact - exact.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    rule = decoding.rule(exact.shape[1], log_domain=strategy == "mean-logit")
    if strategy == "vote":
        voted = rule.allowed if decoding.vote_stage == "members" else np.ones_like(rule.allowed)
        choices = np.where(voted, exact, -np.inf).argmax(axis=1)
        votes = np.zeros(exact.shape[1])
        for choice, row in zip(choices, _units(weights), strict=True):
            votes[choice] += row[choice]
        scores = votes + rule.bias * _units(weights).sum(axis=0)
        if abs(scores[a] - scores[b]) > 0.5:
            return False
        exact = probabilities
    parts = exact if strategy == "mean-logit" else probabilities
    scores = (parts * weights).sum(axis=0) * rule.gain
    if strategy != "vote":
        scores += rule.bias
    return bool(abs(scores[a] - scores[b]) <= _ROUNDING * max(1.0, float(np.abs(parts[:, [a, b]]).max())))


def _units(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.stack([voting_units(column) for column in weights.T], axis=1)

"""The packed graph against the engine, pixel by pixel, on the same tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError, NotFiniteError
from engine.fusion.evidence import Evidence, Shown
from engine.fusion.fuse import fuse
from engine.inference.ensemble import Ensemble
from engine.models.adapt.batch import in_groups
from engine.models.adapt.labels import NOT_FINITE
from engine.models.contract import LABELS
from engine.sources.base import Batch
from engine.utils.console import first_line
from exporters.tiles import tiles_source

BATCH = 4
# Logits this close, relative to the larger of 1 and their magnitude, are equal within float32 rounding: the graph's
# optimisations round otherwise than the member's own file; 2e-5 to 4e-5 were seen of torchvision's lraspp.
_ROUNDING = 4e-5
# Probabilities and doubt of engine and graph agree to this: logits of nets may differ in the last digits.
_SHOWN = 2e-3
# But for so many: which of two equally sure members counts, or on which side of a threshold a pixel is.
_APART = 1e-3
# How often the logits of a pixel are moved by less than that, to see whether its label is decided by rounding.
_TRIALS = 256


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


def compare(
    ensemble: Ensemble, model: bytes, trials: Sequence[npt.NDArray[Any]], evidence: Evidence | None = None
) -> SelfCheck:
    """Run engine and packed graph on raw tiles.

    Args:
        ensemble: the ensemble of the graph.
        model: the serialized graph.
        trials: arrays of raw tiles (tile, height, width, channel).
        evidence: what the graph gives beside labels; None for nothing.

    Raises:
        ModelError: a pixel got another label without a tie, other scores or doubt, or the graph is refused.
    """
    session = open_session(model)
    tiles = pixels = ties = 0
    for images in trials:
        for whole in tiles_source(images).batches(BATCH):
            batch, logits = _predictable(ensemble, session, whole)
            if not batch.ids:
                continue
            found = ensemble.explain(logits, ensemble.variant, images.shape[1:3], evidence)
            expected = found.labels
            got = _run(session, batch.pixels).reshape(expected.shape)
            differing = np.argwhere(got != expected)
            real = sum(
                not _tied(logits[:, image, :, pixel], ensemble, expected[image, pixel], got[image, pixel])
                for image, pixel in differing
            )
            if real:
                raise ModelError(f"the packed graph gives {real} of {got.size} pixels another label than the engine")
            _check_shown(session, batch.pixels, found.shown, got == expected)
            tiles, pixels, ties = tiles + len(got), pixels + got.size, ties + len(differing)
    if not tiles:
        raise ModelError("a member computes NaN or infinity for every tile: give real tiles with --tiles")
    return SelfCheck(tiles, pixels, ties)


def _check_shown(session: Any, pixels: npt.NDArray[Any], shown: Shown, same: npt.NDArray[np.bool_]) -> None:
    """Compare scores and doubt where the labels are the same.

    Raises:
        ModelError: the graph gives others than the engine.
    """
    for name, expected in (("scores", shown.scores), ("doubt", shown.doubt)):
        if expected is None:
            continue
        got = _run(session, pixels, name).reshape(expected.shape)
        kept = same[:, None] if expected.ndim == 3 else same
        apart = float(np.where(kept, ~(np.abs(got - expected) <= _SHOWN), False).mean())
        if apart > _APART:
            raise ModelError(f"the packed graph gives {apart:.2%} of the {name} otherwise than the engine")


def _predictable(ensemble: Ensemble, session: Any, batch: Batch) -> tuple[Batch, npt.NDArray[np.float32]]:
    """Return the images that no member fails on and their logits, once the graph was seen to mark the others.

    Raises:
        ModelError: the graph gives labels for an image that a member computes NaN or infinity for.
    """
    while batch.ids:
        try:
            return batch, ensemble.logits(batch, ensemble.variant.decoding.suppress)[0]
        except NotFiniteError as error:
            if (_run(session, batch.pixels)[error.positions] != NOT_FINITE).any():
                raise ModelError(f"the packed graph gives labels where {error.member} computes NaN") from None
            good = [at for at in range(len(batch.ids)) if at not in error.positions]
            batch = Batch(batch.start, [batch.ids[at] for at in good], batch.pixels[good])
    return batch, np.empty(0, np.float32)


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


def _run(session: Any, pixels: npt.NDArray[Any], output: str = LABELS) -> npt.NDArray[Any]:
    """Return an output for raw images (batch, height, width, channels); a graph of a fixed batch is run in groups."""
    given = session.get_inputs()[0]
    kind = np.uint8 if given.type == "tensor(uint8)" else np.float32
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=kind)

    def once(images: npt.NDArray[Any], _: object) -> npt.NDArray[Any]:
        return np.asarray(session.run([output], {given.name: images})[0])

    group = given.shape[0]
    try:
        return in_groups(once, planes, group) if isinstance(group, int) else once(planes, None)
    except Exception as error:  # as above
        raise ModelError(f"ONNX Runtime fails on the packed graph ({first_line(error, kind=True)})") from None


def _tied(logits: npt.NDArray[np.float32], ensemble: Ensemble, a: int, b: int) -> bool:
    """Return whether rounding decides between two labels of one pixel: moved by as much, its logits give both.

    Args:
        logits: (members, classes) of the pixel, in the engine's order of members.
        ensemble: strategy, weights and decoding.
        a: one label.
        b: the other.
    """
    decoding = ensemble.variant.decoding
    if b in decoding.suppress and decoding.threshold is None:
        return False
    members, classes = logits.shape
    moved = np.random.default_rng(0).uniform(-_ROUNDING, _ROUNDING, (members, 1, classes, _TRIALS))
    # Both to the last bit and by as much as softmax and sums may differ.
    moved[..., 1::2] *= np.random.default_rng(1).choice((0.01, 0.1), _TRIALS // 2)
    exact = logits.astype(np.float64)[:, None, :, None]
    trials = (exact + moved * np.maximum(1.0, np.abs(exact))).astype(np.float32)
    weights = ensemble.weights[ensemble.fusion_order]
    found = fuse(np.ascontiguousarray(trials), ensemble.variant.strategy, weights, decoding).labels
    return bool((found == b).any() and (found == a).any())

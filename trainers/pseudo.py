"""Pseudo-labels: confident predictions of an exported ensemble, as training tiles (D.-H. Lee, ICML 2013 workshop)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.inference.ensemble import BATCH_SIZE, Ensemble
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import Plan, read_plan
from engine.runs.plan_member import PlannedMember
from engine.sources.base import Batch
from engine.sources.open import open_source
from engine.utils.console import say
from trainers.files import refuse_existing, replacing


@dataclass(frozen=True)
class PseudoLabels:
    """What was labelled.

    Attributes:
        images: images processed.
        kept: images with enough confident pixels.
        confident: share of confident pixels among those of the kept images.
        shares: share of each class among the confident pixels.
    """

    images: int
    kept: int
    confident: float
    shares: dict[str, float]


def pseudo_label(
    images: str,
    out: Path,
    models: Sequence[str] = (),
    plan: Path | None = None,
    confidence: float = 0.9,
    min_share: float = 0.05,
    overwrite: bool = False,
) -> PseudoLabels:
    """Write confident predictions of an ensemble as ``images``, ``labels``, ``index`` and ``class_names``.

    Args:
        images: the images, as in the engine's ``--input``.
        out: the npz file to write.
        models: ONNX files, folders or globs.
        plan: an ``ensemble.toml`` instead; its weights, flips and suppressed classes apply.
        confidence: least mean probability of a pixel's best class, from 0 to 1.
        min_share: least share of confident pixels in an image that is kept.
        overwrite: replace ``out`` if it exists.

    Raises:
        EngineError: options, models or images do not fit, or no image is kept; nothing has been written then.
    """
    for name, value in (("confidence", confidence), ("min-share", min_share)):
        if not 0 <= value <= 1:
            raise PlanError(f"{name}: {value:g} was given; allowed are 0 to 1")
    if (plan is None) == (not models):
        raise PlanError("give the ensemble with --models or with --plan, one of the two")
    refuse_existing([out], overwrite)
    chosen = read_plan(plan) if plan is not None else Plan(tuple(PlannedMember(spec) for spec in models))
    source = open_source(images)
    ensemble = open_ensemble(chosen, Options(), source)
    ignored = _ignored(ensemble)
    banned = sorted({ignored, *ensemble.variant.decoding.suppress})
    pixels, labels, index = [], [], []
    for batch in source.batches(BATCH_SIZE):
        found = confident_labels(ensemble, batch, confidence, ignored, banned)
        enough = (found != ignored).mean(axis=(1, 2)) >= max(min_share, 1e-9)
        pixels.append(_bytes(batch.pixels[enough], images))
        labels.append(found[enough])
        index.append(batch.start + np.flatnonzero(enough))
    result = _summary(len(source), np.concatenate(labels), ensemble.classes, ignored)
    if result.kept == 0:
        raise InputError(f"{images}: no image has {min_share:.1%} of pixels above {confidence:g}; lower --confidence")
    _write(out, np.concatenate(pixels), np.concatenate(labels), np.concatenate(index), ensemble.classes)
    return result


def confident_labels(
    ensemble: Ensemble, batch: Batch, confidence: float, ignored: int, banned: Sequence[int]
) -> NDArray[np.uint8]:
    """Return labels uint8 (B, H, W): the best allowed class if its mean probability suffices, else the ignored one.

    The probability of a class is the weighted mean of the members' softmax over all classes, including suppressed ones:
    where the ensemble predicts a suppressed class no other is confident.
    """
    logits, _ = ensemble.logits(batch)
    weights = ensemble.weights[ensemble.fusion_order]
    mean = np.zeros(logits.shape[1:], np.float64)
    for member, weight in zip(logits, weights, strict=True):
        terms = np.exp(member - member.max(axis=1, keepdims=True), dtype=np.float64)
        mean += weight[None, :, None] * terms / terms.sum(axis=1, keepdims=True)
    mean[:, list(banned)] = -1.0
    best = mean.argmax(axis=1)
    sure = np.take_along_axis(mean, best[:, None], axis=1)[:, 0] >= confidence
    return np.where(sure, best, ignored).astype(np.uint8).reshape(-1, *batch.size)


def _ignored(ensemble: Ensemble) -> int:
    if ensemble.is_packed:
        raise PlanError(
            f"{ensemble.members[0].name}: a packed ensemble outputs labels without probabilities; give its members"
        )
    if ensemble.ignored_class is None:
        raise PlanError(
            "the models declare no ignored class, so unconfident pixels have no label; train them with --ignored-class"
        )
    if len(ensemble.members) == 1:
        say("note: a single member is overconfident; several make better pseudo-labels")
    return ensemble.ignored_class


def _bytes(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 255):
        raise InputError(f"{name}: image values from {pixels.min():g} to {pixels.max():g}; allowed are 0 to 255")
    return np.rint(pixels).astype(np.uint8)


def _summary(images: int, labels: NDArray[np.uint8], classes: Sequence[str], ignored: int) -> PseudoLabels:
    counts = np.bincount(labels.ravel(), minlength=len(classes)).astype(np.float64)
    confident = counts.sum() - counts[ignored]
    shares = {name: float(counts[k] / max(confident, 1)) for k, name in enumerate(classes) if k != ignored}
    return PseudoLabels(images, len(labels), float(confident / max(labels.size, 1)), shares)


def _write(
    out: Path, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], index: NDArray[np.int64], classes: Sequence[str]
) -> None:
    images = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    with replacing(out) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, images=images, labels=labels, index=index, class_names=np.array(classes))

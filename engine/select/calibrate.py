"""Temperature and bias of members, temperature and prior of the fused scores: fitted without each fold, tried on it.

Each step is kept only where the log loss of pixels of folds it was not fitted on falls, and the metric does not. All of
it runs on a sample of the pixels that the metric counts, spread evenly; the metric is over all pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.fusion.calibration import Calibration, Quality, fit, summed
from engine.fusion.evidence import Evidence
from engine.fusion.fuse import fuse
from engine.select.biases import LEAST_GAIN
from engine.select.crossfit import Fitted, Level
from engine.select.pool import Choice, Pool, Stored
from engine.select.ragged import located, pixel_counts
from engine.select.whole_images import score

# Least fall of the log loss, in nats.
LEAST_FALL = 1e-4
CALIBRATED, EVERY = "+ calibration", "all members: temperature and bias"
# A posterior that is estimated from whole images cannot be had of a sample of pixels.
WHOLE_IMAGES = ("staple",)


@dataclass(frozen=True)
class Step:
    """What one step of the calibration did.

    Attributes:
        name: of the step.
        kept: whether it helped.
        before: quality of the fused probabilities without it, of every fold by choices made without the fold.
        after: the same with it.
    """

    name: str
    kept: bool
    before: Quality
    after: Quality


@dataclass(frozen=True)
class Calibrated:
    """A selection with calibrated probabilities.

    Attributes:
        fitted: the levels, with one more where something helped.
        steps: what was tried.
        before: quality of each fold's fused probabilities at first, sums per fold.
        after: the same at the end.
    """

    fitted: Fitted
    steps: tuple[Step, ...]
    before: Quality
    after: Quality


@dataclass(frozen=True)
class _Pixels:
    """The sample.

    Attributes:
        logits: float32 (members, pixels, classes), by :attr:`Choice.views`.
        truth: int64 (pixels,), place of the true class among the allowed ones.
        folds: int64 (pixels,).
        allowed: int64, the classes that may be predicted.
    """

    logits: Mapping[str, NDArray[np.float32]]
    truth: NDArray[np.int64]
    folds: NDArray[np.int64]
    allowed: NDArray[np.int64]


_Change = Callable[[_Pixels, Choice, NDArray[np.bool_]], Choice | None]


def calibrate(pool: Pool, fitted: Fitted, folds: NDArray[np.int64], convention: str, pixels: int) -> Calibrated | None:
    """Calibrate the chosen level; None where its scores cannot be measured pixel by pixel, or nothing is counted.

    Args:
        pool: members and truth.
        fitted: the levels, one of them chosen.
        folds: int64 (images,).
        convention: the metric, which must not fall.
        pixels: how many pixels to fit on.
    """
    level = fitted.best
    if level.choice.strategy in WHOLE_IMAGES:
        return None
    held = _drawn(pool, folds, pixels, {choice.views for choice in (level.choice, *level.fold_choices)})
    if not len(held.truth):
        return None
    count = int(folds.max()) + 1
    choices = [level.choice, *level.fold_choices]
    first = current = _qualities(held, choices[1:])
    steps: list[Step] = []
    used = sorted({member for choice in choices for member in choice.members})
    tries: list[tuple[str, _Change]] = [(EVERY, partial(_members, used))]
    if len(used) > 1:
        tries += [(f"member {pool.members[member].name}", partial(_members, [member])) for member in used]
    tries += [("fused: temperature", _temperature), ("fused: temperature and prior", _prior)]
    cross = level.cross
    for name, change in tries:
        if name.startswith("member ") and steps[0].kept:
            continue  # one by one only where all together do not help
        tried = [change(held, choices[0], np.ones(len(held.truth), np.bool_))]
        tried += [change(held, choices[1 + fold], held.folds != fold) for fold in range(count)]
        changed = [new for new in tried if new is not None]
        if len(changed) < len(tried):
            continue
        found = _qualities(held, changed[1:])
        fell = float(summed_of(current).log_loss - summed_of(found).log_loss)
        kept = fell >= LEAST_FALL
        if kept:
            moved = _crossed(pool, changed[1:], folds)
            kept = score(pool, moved, convention) >= score(pool, cross, convention) - LEAST_GAIN
        steps.append(Step(name, kept, summed_of(current), summed_of(found)))
        if kept:
            choices, current, cross = changed, found, moved
    result = fitted
    if any(step.kept for step in steps):
        same = pool.confusions(choices[0])
        more = Level(CALIBRATED, choices[0], tuple(choices[1:]), cross, same)
        result = replace(fitted, levels=(*fitted.levels, more), chosen=len(fitted.levels))
    return Calibrated(result, tuple(steps), Quality(first), Quality(current))


def summed_of(sums: NDArray[np.float64]) -> Quality:
    """Return the quality over all folds of (folds, values) sums."""
    return summed([Quality(row) for row in sums])


def _drawn(pool: Pool, folds: NDArray[np.int64], pixels: int, views: Collection[str]) -> _Pixels:
    allowed = np.array([c for c in range(len(pool.classes)) if c not in pool.suppress])
    labels = pool.truth.ravel()
    counted = np.isin(labels, allowed)
    if pool.ignored_class is not None:
        counted &= labels != pool.ignored_class
    places = np.flatnonzero(counted)
    spread = np.linspace(0, max(len(places) - 1, 0), min(pixels, len(places))).astype(np.int64)
    kept = places[np.unique(spread)]
    image, pixel = located(kept, pixel_counts(pool.truth))
    logits = {name: _gathered(pool, pool.viewed[name] if name else pool.logs, image, pixel) for name in views}
    truth = np.searchsorted(allowed, labels[kept])
    return _Pixels(logits, truth, folds[image], allowed)


def _gathered(
    pool: Pool, stored: Sequence[Stored], image: NDArray[np.int64], pixel: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return float32 (members, pixels, classes) of some pixels of images."""
    logits = np.empty((len(pool.members), len(image), len(pool.classes)), np.float32)
    for member, logs in enumerate(stored):
        for one in np.unique(image):
            own = image == one
            logits[member, own] = np.asarray(logs[one])[:, pixel[own]].T
        logits[member] = pool.floored(member, logits[member].T.copy()).T
    return logits


def _fused(held: _Pixels, choice: Choice, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the probabilities of some pixels among the allowed classes, float64 (pixels, allowed)."""
    if not chosen.any():
        return np.zeros((0, len(held.allowed)))
    picked = np.ascontiguousarray(held.logits[choice.views][choice.members][:, chosen].transpose(0, 2, 1))[:, None]
    for place, member in enumerate(choice.members):
        if choice.calibrations:
            choice.calibrations[member].apply(picked[place])
    decoding = replace(choice.decoding, min_region=0, cleanup=(), decode="argmax")
    shown = fuse(np.ascontiguousarray(picked), choice.strategy, choice.weights, decoding, Evidence("float32")).shown
    assert shown.scores is not None
    shares = shown.scores[0].T[:, held.allowed].astype(np.float64)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-30))


def _qualities(held: _Pixels, fold_choices: Sequence[Choice]) -> NDArray[np.float64]:
    """Return float64 (folds, values): sums over each fold's pixels, by the choice made without it."""
    rows = []
    for fold, choice in enumerate(fold_choices):
        own = held.folds == fold
        rows.append(Quality.of(_fused(held, choice, own), held.truth[own]).sums)
    return np.stack(rows)


def _crossed(pool: Pool, fold_choices: Sequence[Choice], folds: NDArray[np.int64]) -> NDArray[np.int64]:
    classes = len(pool.classes)
    cross = np.empty((len(folds), classes, classes), np.int64)
    for fold, choice in enumerate(fold_choices):
        own = np.flatnonzero(folds == fold)
        cross[own] = pool.confusions(choice, own)
    return cross


def _members(members: Sequence[int], held: _Pixels, choice: Choice, seen: NDArray[np.bool_]) -> Choice | None:
    """Fit some members of a choice on the pixels seen."""
    logits = held.logits[choice.views]
    found = list(choice.calibrations or [Calibration()] * len(logits))
    for member in set(members) & set(choice.members):
        own = fit(logits[member][seen][:, held.allowed], held.truth[seen])
        bias = np.zeros(logits.shape[2])
        bias[held.allowed] = own.bias
        found[member] = Calibration(round(own.temperature, 6), tuple(np.round(bias, 6).tolist()))
    return replace(choice, calibrations=tuple(found))


def _temperature(held: _Pixels, choice: Choice, seen: NDArray[np.bool_]) -> Choice | None:
    logs = np.log(np.maximum(_fused(held, choice, seen), 1e-12))
    found = fit(logs, held.truth[seen], with_bias=False)
    return replace(choice, decoding=replace(choice.decoding, temperature=round(found.temperature, 6)))


def _prior(held: _Pixels, choice: Choice, seen: NDArray[np.bool_]) -> Choice | None:
    """Fit a bias of the fused logarithms too: a prior; not beside a bias or threshold, which it would move."""
    decoding = choice.decoding
    if decoding.bias or decoding.prior or decoding.threshold is not None:
        return None
    plain = replace(choice, decoding=replace(decoding, temperature=1.0))
    found = fit(np.log(np.maximum(_fused(held, plain, seen), 1e-12)), held.truth[seen])
    prior = np.ones(held.logits[choice.views].shape[2])
    prior[held.allowed] = np.round(np.exp(np.clip(found.bias, -10, 10)), 6)
    return replace(
        choice,
        decoding=replace(
            decoding, temperature=round(found.temperature, 6), prior=tuple(np.maximum(prior, 1e-6).tolist())
        ),
    )

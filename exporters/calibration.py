"""Calibration of specialists: a bias and a temperature per class, so that their log-odds are comparable.

Every specialist is trained alone, so its log-odds have their own scale. Platt scaling of one-against-rest scores
(J. Platt, Probabilistic Outputs for Support Vector Machines, 1999), with one softmax over the classes in place of
single sigmoids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import InputError

# Temperatures stay within 1/50 and 50: beyond, a specialist is always or never chosen.
_SLOPES = (0.02, 50.0)
_MOST_PIXELS = 200_000
# Keeps slopes at 1 and shifts at 0 where pixels give no information; also picks one of the equivalent shifts.
_RIDGE = 1e-4
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Calibrated log-odds are (log-odds + bias) / temperature.

    Attributes:
        bias: one value per class.
        temperature: one value per class, above 0.
        before: mean cross-entropy of the labelled pixels without it, in nats.
        after: the same with it.
        pixels: labelled pixels it was fitted on.
    """

    bias: tuple[float, ...]
    temperature: tuple[float, ...]
    before: float
    after: float
    pixels: int


def fit_calibration(
    log_odds: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8], ignored_class: int | None, seed: int = 0
) -> Calibration:
    """Minimise the softmax cross-entropy of calibrated log-odds over labelled pixels.

    The ignored class has no labelled pixel: its specialist is fitted afterwards, on all pixels, with the others fixed.
    In slope 1/temperature and shift bias/temperature the loss is convex, so the minimum found is global.

    Args:
        log_odds: float32 (tile, class, height, width).
        labels: uint8 (tile, height, width).
        ignored_class: class whose pixels are not labelled; None if all are.
        seed: decides which pixels are taken where there are more than 200,000.

    Raises:
        InputError: a class has no labelled pixel.
    """
    classes = log_odds.shape[1]
    flat, truth = log_odds.transpose(0, 2, 3, 1).reshape(-1, classes), labels.ravel()
    scored = np.array([class_id for class_id in range(classes) if class_id != ignored_class])
    absent = sorted(set(scored.tolist()) - set(np.unique(truth).tolist()))
    if absent:
        raise InputError(f"no pixel of class {', '.join(map(str, absent))} in the tiles: calibrate on tiles with each")
    draw = np.random.default_rng(seed)
    labelled = _some(np.flatnonzero(truth != (-1 if ignored_class is None else ignored_class)), draw)
    odds = flat[labelled][:, scored].astype(np.float64)
    wanted = np.searchsorted(scored, truth[labelled])
    slopes, shifts = np.ones(classes), np.zeros(classes)
    slopes[scored], shifts[scored] = _fit(odds, wanted, np.ones(len(scored)), np.zeros(len(scored)), slice(None))
    before, after = (
        _loss(odds, wanted, a, c)[0]
        for a, c in ((np.ones(len(scored)), np.zeros(len(scored))), (slopes[scored], shifts[scored]))
    )
    if ignored_class is not None and (truth == ignored_class).any():
        every = _some(np.arange(len(truth)), draw)
        odds = flat[every].astype(np.float64)
        slopes, shifts = _fit(
            odds, truth[every].astype(np.int64), slopes, shifts, slice(ignored_class, ignored_class + 1)
        )
    temperatures = 1.0 / slopes
    bias = shifts * temperatures
    return Calibration(tuple(bias.tolist()), tuple(temperatures.tolist()), before, after, len(labelled))


def _some(indices: npt.NDArray[np.int64], draw: np.random.Generator) -> npt.NDArray[np.int64]:
    return indices if len(indices) <= _MOST_PIXELS else draw.choice(indices, _MOST_PIXELS, replace=False)


def _fit(odds: Array, wanted: npt.NDArray[np.int64], slopes: Array, shifts: Array, free: slice) -> tuple[Array, Array]:
    """Return slopes and shifts with the free ones at the minimum and the others unchanged."""
    from scipy.optimize import minimize

    slopes, shifts = slopes.copy(), shifts.copy()
    count = len(slopes[free])

    def objective(values: Array) -> tuple[float, Array]:
        slopes[free], shifts[free] = values[:count], values[count:]
        loss, by_slope, by_shift = _loss(odds, wanted, slopes, shifts)
        apart = values - np.repeat([1.0, 0.0], count)
        gradient = np.concatenate([by_slope[free], by_shift[free]]) + 2 * _RIDGE * apart
        return loss + _RIDGE * float(apart @ apart), gradient

    start = np.concatenate([slopes[free], shifts[free]])
    bounds = [_SLOPES] * count + [(None, None)] * count
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    slopes[free], shifts[free] = found.x[:count], found.x[count:]
    return slopes, shifts


def _loss(odds: Array, wanted: npt.NDArray[np.int64], slopes: Array, shifts: Array) -> tuple[float, Array, Array]:
    """Return the mean cross-entropy and its derivatives by slopes and shifts."""
    logits = odds * slopes + shifts
    logits -= logits.max(axis=1, keepdims=True)
    terms = np.exp(logits)
    total = terms.sum(axis=1)
    rows = np.arange(len(odds))
    loss = float((np.log(total) - logits[rows, wanted]).mean())
    excess = terms / total[:, None]
    excess[rows, wanted] -= 1.0
    return loss, (excess * odds).mean(axis=0), excess.mean(axis=0)

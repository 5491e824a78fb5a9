"""Temperature and bias that make probabilities mean what they say, fitted to the log loss.

C. Guo, G. Pleiss, Y. Sun, K. Weinberger: On Calibration of Modern Neural Networks, ICML 2017 (temperature and vector
scaling). Of logits z the calibrated ones are (z + bias) / temperature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError

LEAST, MOST = 0.05, 20.0
MOST_STEPS, SETTLED = 50, 1e-10
# Pulls biases to 0, so that a class that the truth lacks does not get an infinite one.
RIDGE = 1e-4
BINS = 15


@dataclass(frozen=True)
class Calibration:
    """How logits are changed.

    Attributes:
        temperature: divisor of logits, after the bias.
        bias: one per class; empty for none.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no calibration.

        Raises:
            PlanError: a temperature outside :data:`LEAST` to :data:`MOST`, or a bias that is not finite.
        """
        if not LEAST <= self.temperature <= MOST:
            raise PlanError(f"temperature {self.temperature:g}; {LEAST:g} to {MOST:g} is allowed")
        if not all(math.isfinite(value) and abs(value) <= 1e6 for value in self.bias):
            raise PlanError(f"bias {list(self.bias)}: every value must be finite, at most 1e6 in size")

    def __bool__(self) -> bool:
        """Return whether it changes anything."""
        return self.temperature != 1 or any(self.bias)

    def check(self, classes: int, name: str) -> None:
        """Refuse a bias of another number of classes.

        Raises:
            PlanError: naming the member.
        """
        if self.bias and len(self.bias) != classes:
            raise PlanError(f"{name}: {len(self.bias)} values of bias for {classes} classes: give one per class")

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Change float32 (..., classes, pixels) logits in place."""
        if self.bias:
            logits += np.asarray(self.bias, np.float32)[:, None]
        if self.temperature != 1:
            logits *= np.float32(1 / self.temperature)


def fit(logits: NDArray[np.floating], truth: NDArray[np.integer], with_bias: bool = True) -> Calibration:
    """Return the calibration with the least log loss, by Newton's method.

    In 1 / temperature and bias / temperature the loss is convex.

    Args:
        logits: (pixels, classes).
        truth: (pixels,) class of each pixel, a column of ``logits``.
        with_bias: whether to fit a bias too.

    Returns:
        The calibration; none where there is no pixel.
    """
    pixels, classes = logits.shape
    if not pixels:
        return Calibration()
    z = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    values = np.concatenate([[1.0], np.zeros(classes if with_bias else 0)])
    loss = _loss(z, truth, values)
    for _ in range(MOST_STEPS):
        gradient, curvature = _derivatives(z, truth, values)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(values)), gradient)
        share = 1.0
        while share > 1e-6:
            tried = values - share * step
            new = _loss(z, truth, tried) if 1 / MOST <= tried[0] <= 1 / LEAST else math.inf
            if new < loss:
                break
            share /= 2
        if share <= 1e-6 or loss - new < SETTLED:
            break
        values, loss = tried, new
    temperature = float(1 / values[0])
    bias = values[1:] / values[0]
    return Calibration(temperature, tuple((bias - bias.mean()).tolist()) if with_bias else ())


def _shares(z: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = values[0] * z + (values[1:] if len(values) > 1 else 0.0)
    terms = np.exp(moved - moved.max(axis=1, keepdims=True))
    return np.asarray(terms / terms.sum(axis=1, keepdims=True))


def _loss(z: NDArray[np.float64], truth: NDArray[np.integer], values: NDArray[np.float64]) -> float:
    moved = values[0] * z + (values[1:] if len(values) > 1 else 0.0)
    peak = moved.max(axis=1, keepdims=True)
    total = np.log(np.exp(moved - peak).sum(axis=1)) + peak[:, 0]
    own = np.take_along_axis(moved, truth[:, None].astype(np.int64), axis=1)[:, 0]
    return float((total - own).mean() + RIDGE / 2 * (values[1:] ** 2).sum())


def _derivatives(
    z: NDArray[np.float64], truth: NDArray[np.integer], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gradient and Hessian of the loss in (1 / temperature, bias / temperature)."""
    p, count, classes = _shares(z, values), *z.shape
    mean = (p * z).sum(axis=1)
    own = np.take_along_axis(z, truth[:, None].astype(np.int64), axis=1)[:, 0]
    size = len(values)
    gradient, curvature = np.empty(size), np.zeros((size, size))
    gradient[0] = (mean - own).mean()
    curvature[0, 0] = ((p * z * z).sum(axis=1) - mean**2).mean()
    if size > 1:
        gradient[1:] = (p.sum(axis=0) - np.bincount(truth, minlength=classes)) / count + RIDGE * values[1:]
        cross = (p * (z - mean[:, None])).mean(axis=0)
        curvature[0, 1:] = curvature[1:, 0] = cross
        curvature[1:, 1:] = np.diag(p.mean(axis=0) + RIDGE) - p.T @ p / count
    return gradient, curvature


@dataclass(frozen=True)
class Quality:
    """How good probabilities are, of sums over pixels that can be added up and resampled.

    Attributes:
        sums: float64 (..., 2 + 3 * BINS): log loss, Brier score, and per bin of confidence pixels, confidence, correct.
    """

    sums: NDArray[np.float64]

    @classmethod
    def of(cls, shares: NDArray[np.floating], truth: NDArray[np.integer]) -> Quality:
        """Measure (pixels, classes) probabilities against the (pixels,) true columns."""
        p = shares.astype(np.float64)
        own = np.take_along_axis(p, truth[:, None].astype(np.int64), axis=1)[:, 0]
        brier = (p**2).sum(axis=1) - 2 * own + 1
        sure, right = p.max(axis=1), p.argmax(axis=1) == truth
        place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
        bins = [np.bincount(place, weights, minlength=BINS) for weights in (np.ones(len(p)), sure, right)]
        return cls(np.concatenate([[-np.log(np.maximum(own, 1e-38)).sum(), brier.sum()], *bins]))

    @property
    def pixels(self) -> NDArray[np.float64]:
        """Return the number of pixels."""
        return np.asarray(self.sums[..., 2 : 2 + BINS].sum(axis=-1))

    @property
    def log_loss(self) -> NDArray[np.float64]:
        """Return the mean log loss in nats; NaN without pixels."""
        return _quotient(self.sums[..., 0], self.pixels)

    @property
    def brier(self) -> NDArray[np.float64]:
        """Return the mean Brier score (G. Brier 1950; 0 to 2); NaN without pixels."""
        return _quotient(self.sums[..., 1], self.pixels)

    @property
    def error(self) -> NDArray[np.float64]:
        """Return the expected calibration error (M. Naeini et al. 2015); NaN without pixels."""
        sure = self.sums[..., 2 + BINS : 2 + 2 * BINS]
        right = self.sums[..., 2 + 2 * BINS :]
        return _quotient(np.abs(sure - right).sum(axis=-1), self.pixels)


def _quotient(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)


def summed(parts: Sequence[Quality]) -> Quality:
    """Return the quality over the pixels of all parts."""
    return Quality(np.sum([part.sums for part in parts], axis=0))

"""Fusion of the members' logits into labels: validates, allocates, dispatches to a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.decode import Decoding
from engine.errors import InputError, ModelError, PlanError

# The sum of one column of voting units: leaves room in int32 for a class bias, in int64 for the tie-break.
MOST_UNITS = 2**30


@dataclass(frozen=True)
class Fused:
    """Labels of a batch.

    Attributes:
        labels: uint8 (batch, pixels).
        ties: int64 (batch,): pixels whose vote was tied; zeros for strategies without votes.
    """

    labels: NDArray[np.uint8]
    ties: NDArray[np.int64]


def fuse(
    logits: NDArray[np.float32],
    strategy: str = "mean-logit",
    weights: ArrayLike | None = None,
    decoding: Decoding | None = None,
) -> Fused:
    """Fuse and decode the logits of all members for a batch.

    Args:
        logits: float32 (members, batch, classes, pixels), C-contiguous and finite.
        strategy: a name out of :data:`STRATEGIES`.
        weights: (members,) or (members, classes), not negative, of any scale; None for equal weights.
        decoding: bias and suppression; None for neither.

    Raises:
        InputError: the array has another type, rank or memory order, or no member, class or pixel.
        PlanError: unknown strategy, impossible weights or decoding.
    """
    if logits.dtype != np.float32 or logits.ndim != 4 or not logits.flags.c_contiguous:
        raise InputError(
            f"logits are {logits.dtype} of shape {logits.shape}; "
            "C-contiguous float32 (members, batch, classes, pixels) are needed"
        )
    members, batch, classes, pixels = logits.shape
    if not (members and pixels and 2 <= classes <= 256):
        raise InputError(f"logits of shape {logits.shape}: at least one member and pixel and 2 to 256 classes")
    labels = np.empty((batch, pixels), np.uint8)
    ties = np.zeros(batch, np.int64)
    checked = normalised_weights(weights, members, classes)
    named_strategy(strategy)(logits, checked, decoding or Decoding(), labels, ties)
    return Fused(labels, ties)


def normalised_weights(weights: ArrayLike | None, members: int, classes: int) -> NDArray[np.float64]:
    """Return float64 (members, classes) with columns that sum to 1.

    Raises:
        PlanError: a wrong number of weights, a negative one, NaN or infinity, or nothing but zeros.
    """
    if weights is None:
        return np.full((members, classes), 1.0 / members)
    given = np.asarray(weights, np.float64)
    if given.shape not in ((members,), (members, classes)):
        count = given.shape[0] if given.ndim == 1 else given.shape
        raise PlanError(f"{count} weights for {members} members: give one weight a member, in the members' order")
    if not np.isfinite(given).all() or (given < 0).any():
        raise PlanError(f"weights {given.tolist()}: each must be a finite number, 0 or above")
    table = np.repeat(given[:, None], classes, axis=1) if given.ndim == 1 else given
    total = table.sum(axis=0)
    if (total <= 0).any():
        raise PlanError("the weights are all 0: at least one member needs a weight above 0")
    return np.asarray(table / total)


def voting_units(weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers in the ratio of the weights, so that sums of votes are exact and ties are true ties.

    Decimal weights as people write them (0.1, 0.2, 0.3) give exact units; weights too fine for that are rounded to
    multiples of their sum / 2**30.
    """
    fractions = [Fraction(repr(float(weight))) for weight in weights]
    scale = lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    shared = gcd(*whole)
    whole = [value // shared for value in whole]
    total = sum(whole)
    if total > MOST_UNITS:
        whole = [value * MOST_UNITS // total for value in whole]
    return np.asarray(whole, np.int64)


def check_finite(logits: NDArray[np.float32], member: str, ids: Sequence[str]) -> None:
    """Refuse logits that hold NaN or infinity.

    Args:
        logits: float32 (batch, ...), C-contiguous.
        member: name of the member, for the message.
        ids: (batch,) names of the images, for the message.

    Raises:
        ModelError: naming the member and the first such image.
    """
    from engine.kernels.counting import first_not_finite

    bad = first_not_finite(logits.reshape(len(logits), -1).view(np.int32))
    if bad >= 0:
        raise ModelError(
            f"member {member} computes NaN or infinity for image {ids[bad]}: leave the member out or mend the image"
        )


def _mean_logit(
    logits: NDArray[np.float32], weights: NDArray[np.float64], decoding: Decoding, labels: Any, ties: Any
) -> None:
    from engine.kernels.mean_logit import mean_logit

    classes = logits.shape[2]
    mean_logit(logits, weights.astype(np.float32), decoding.bias_row(classes), decoding.allowed(classes), labels)


def _mean_prob(
    logits: NDArray[np.float32], weights: NDArray[np.float64], decoding: Decoding, labels: Any, ties: Any
) -> None:
    from engine.kernels.mean_prob import mean_prob

    classes = logits.shape[2]
    mean_prob(logits, weights.astype(np.float32), decoding.bias_row(classes), decoding.allowed(classes), labels)


def _vote(
    logits: NDArray[np.float32], weights: NDArray[np.float64], decoding: Decoding, labels: Any, ties: Any
) -> None:
    from engine.kernels.vote import vote

    classes = logits.shape[2]
    units = np.stack([voting_units(column) for column in weights.T], axis=1)
    # Spread to the full range, so that a bias finer than one vote is not rounded away; the ratios stay exact.
    units *= MOST_UNITS // units.sum(axis=0)
    bias = np.rint(decoding.bias_row(classes).astype(np.float64) * units.sum(axis=0))
    bias = np.clip(bias, 1 - MOST_UNITS, MOST_UNITS - 1).astype(np.int32)
    allowed = decoding.allowed(classes)
    voted = allowed if decoding.vote_stage == "members" else np.ones(classes, np.bool_)
    vote(logits, units.astype(np.int32), bias, voted, allowed, labels, ties)


# Each value takes (logits, weights (members, classes), decoding, labels out, ties out).
STRATEGIES: dict[str, Callable[..., None]] = {"mean-logit": _mean_logit, "mean-prob": _mean_prob, "vote": _vote}


def named_strategy(name: str) -> Callable[..., None]:
    """Return the strategy of that name.

    Raises:
        PlanError: there is none; the message lists the names.
    """
    if name not in STRATEGIES:
        raise PlanError(f"unknown strategy {name!r}; allowed are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]

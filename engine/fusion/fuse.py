"""Fusion of the members' logits into labels: validates, allocates, dispatches to a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import InputError, NotFiniteError, PlanError
from engine.fusion.cleanup import least_probable, thresholds_of
from engine.fusion.decoding import Decoding
from engine.fusion.evidence import Evidence, Shown, kept_scores, show
from engine.fusion.rankseg import DECODES, rankseg
from engine.fusion.strategies import named_strategy
from engine.fusion.strategies.task import Task
from engine.kernels.counting import first_not_finite

NOTHING = Shown()


@dataclass(frozen=True)
class Fused:
    """Labels of a batch.

    Attributes:
        labels: uint8 (batch, pixels).
        ties: int64 (batch,): pixels whose vote was tied; zeros for strategies without votes.
        shown: the evidence for the labels that was asked for.
    """

    labels: NDArray[np.uint8]
    ties: NDArray[np.int64]
    shown: Shown = NOTHING


def fuse(
    logits: NDArray[np.float32],
    strategy: str = "mean-logit",
    weights: ArrayLike | None = None,
    decoding: Decoding | None = None,
    evidence: Evidence | None = None,
) -> Fused:
    """Fuse and decode the logits of all members for a batch.

    Args:
        logits: float32 (members, batch, classes, pixels), C-contiguous and finite.
        strategy: a name from :data:`engine.fusion.strategies.STRATEGIES`.
        weights: (members,) or (members, classes), not negative, of any scale; None for equal weights.
        decoding: bias and suppression; None for neither.
        evidence: what to show for the labels; None for nothing.

    Raises:
        InputError: the array has a wrong type, rank or memory order, or no member, class or pixel.
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
    decoding = decoding or Decoding()
    ranked = decoding.decode != DECODES[0]
    if not (evidence or ranked or decoding.has_thresholds):
        named_strategy(strategy)(Task(logits, checked, decoding, labels, ties))
        return Fused(labels, ties)
    evidence = evidence or Evidence()
    needed = replace(evidence, scores="float32") if ranked or decoding.has_thresholds else evidence
    task = Task(logits, checked, decoding, labels, ties, kept_scores(logits.shape, needed))
    named_strategy(strategy)(task)
    shown = show(task, strategy, evidence) if evidence else NOTHING
    if needed is not evidence:
        # No label depends on the temperature of written probabilities.
        plain = replace(task, decoding=replace(decoding, temperature=1.0))
        found = show(plain, strategy, replace(needed, doubt="", unknown=None)).scores
        assert found is not None
        if ranked:
            labels = rankseg(found, decoding.decode)
        else:
            labels = least_probable(found, labels, thresholds_of(decoding.cleanup, classes))
    return Fused(labels, ties, shown)


def normalised_weights(
    weights: ArrayLike | None, members: int, classes: int, known: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return float64 (members, classes) with columns that sum to 1.

    Args:
        weights: (members,) or (members, classes), of any scale; None for equal ones.
        members: number of members.
        classes: number of classes.
        known: bool (members, classes), False where a member lacks a class and so has no weight; None: all have all.

    Raises:
        PlanError: a wrong number of weights, a negative one, NaN or infinity, or only zeros.
    """
    if known is not None and not known.all():
        table = np.ones((members, classes)) if weights is None else normalised_weights(weights, members, classes)
        table = np.where(known, table, 0)
        if (table.sum(axis=0) <= 0).any():
            lost = ", ".join(map(str, np.flatnonzero(table.sum(axis=0) <= 0)))
            raise PlanError(f"no member with a weight above 0 knows class {lost}: map a class of one onto it")
        return normalised_weights(table, members, classes)
    if weights is None:
        return np.full((members, classes), 1.0 / members)
    given = np.asarray(weights, np.float64)
    if given.shape not in ((members,), (members, classes)):
        count = given.shape[0] if given.ndim == 1 else given.shape
        raise PlanError(f"{count} weights for {members} members: give one weight per member, in the members' order")
    if not np.isfinite(given).all() or (given < 0).any():
        raise PlanError(f"weights {given.tolist()}: each must be a finite number, 0 or above")
    if given.max(initial=0) > 0:
        # Any scale is allowed: huge weights must not add up to infinity.
        given = given / given.max()
    table = np.repeat(given[:, None], classes, axis=1) if given.ndim == 1 else given
    total = table.sum(axis=0)
    if (total <= 0).any():
        raise PlanError("the weights are all 0: at least one member needs a weight above 0")
    return np.asarray(table / total)


def check_finite(logits: NDArray[np.float32], member: str, ids: Sequence[str]) -> None:
    """Refuse logits that contain NaN or infinity.

    Args:
        logits: float32 (batch, ...), C-contiguous.
        member: name of the member, for the message.
        ids: (batch,) names of the images, for the message.

    Raises:
        NotFiniteError: naming the member and the images.
    """
    first = first_not_finite(logits.reshape(len(logits), -1).view(np.int32))
    if first >= 0:
        bad = [at for at in range(first, len(logits)) if not np.isfinite(logits[at]).all()]
        raise NotFiniteError(member, bad, [ids[at] for at in bad])

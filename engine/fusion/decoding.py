"""From scores to labels: bias, prior correction, suppression, clean-up of small regions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.fusion.calibration import Calibration
from engine.fusion.cleanup import ClassCleanup, thresholds_of
from engine.fusion.rankseg import DECODES

VOTE_STAGES = ("members", "fused")
# No probability reaches it: unconditional suppression.
ALWAYS = 2.0
# Sums of larger biases and priors would exceed float32; NaN fails this check too.
MOST = 1e30


class Rule(NamedTuple):
    """A decoding in the form the kernels use.

    Attributes:
        bias: float32 (classes,), added to the scores.
        gain: float32 (classes,), multiplied with the scores before the bias is added.
        allowed: bool (classes,), the classes that are not suppressed; at least one.
        threshold: a suppressed class is kept where its probability reaches this; 2 for never.
    """

    bias: NDArray[np.float32]
    gain: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    threshold: np.float32


@dataclass(frozen=True)
class Decoding:
    """How scores become labels: prior and bias, suppression, argmax (lowest id on an exact tie), clean-up.

    Attributes:
        suppress: classes that do not appear in the result; the best remaining class replaces them.
        threshold: None suppresses unconditionally; otherwise a suppressed class is kept where its fused probability is
            at least this.
        bias: added to the fused score of each class; empty for none.
        prior: ratio of target to training frequency of each class; multiplies probabilities and shares, is added to
            logits as its logarithm (Saerens et al. 2002); empty for none.
        vote_stage: for the strategies ``vote`` and ``staple``: ``members`` (each member votes among the allowed
            classes) or ``fused`` (vote among all classes first, then replace suppressed ones; always so with a
            threshold).
        min_region: regions of fewer pixels are relabelled to the surrounding class; 0 for no clean-up.
        temperature: divides the logarithms of the fused probabilities that are written and doubt is measured of; no
            label depends on it.
        decode: how probabilities become labels: ``argmax``, or for the image as a whole (:mod:`engine.fusion.rankseg`).
        cleanup: what single classes must fulfil, each class once (:mod:`engine.fusion.cleanup`).
    """

    suppress: frozenset[int] = frozenset()
    threshold: float | None = None
    bias: tuple[float, ...] = ()
    prior: tuple[float, ...] = ()
    vote_stage: str = "members"
    min_region: int = 0
    decode: str = DECODES[0]
    temperature: float = 1.0
    cleanup: tuple[ClassCleanup, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is impossible for any set of classes.

        Raises:
            PlanError: unknown stage or decode, threshold outside 0..1, a negative region.
        """
        if self.vote_stage not in VOTE_STAGES:
            raise PlanError(f"vote stage {self.vote_stage!r}; allowed are {' and '.join(VOTE_STAGES)}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise PlanError(f"suppression threshold {self.threshold}; a probability from 0 to 1 is needed")
        Calibration(self.temperature)
        if self.decode not in DECODES:
            raise PlanError(f"decode {self.decode[:40]!r}; allowed are {', '.join(DECODES)}")
        if self.min_region < 0:
            raise PlanError(f"min region {self.min_region}; a number of pixels, 0 or above, is needed")

        named = [item.class_id for item in self.cleanup]
        if len(set(named)) < len(named):
            raise PlanError(f"clean-up of classes {named}: give each class once")
        if self.has_thresholds and self.decode != DECODES[0]:
            raise PlanError(
                f"decode {self.decode} decides whole images, a threshold per class pixels: give one of them"
            )

    @property
    def has_thresholds(self) -> bool:
        """Return whether a class needs a least probability."""
        return any(item.threshold > 0 for item in self.cleanup)

    @property
    def cleans_regions(self) -> bool:
        """Return whether regions of finished masks change."""
        return self.min_region > 1 or any(item.of_regions for item in self.cleanup)

    def rule(self, classes: int, log_domain: bool) -> Rule:
        """Return the decoding for a number of classes.

        Args:
            classes: number of classes.
            log_domain: whether the scores are logits, so that a prior is added as its logarithm.

        Raises:
            PlanError: a class that does not exist, nothing left to predict, a bias or prior of wrong length or value.
        """
        check_classes(self.suppress, classes)
        thresholds_of(self.cleanup, classes)
        if len(self.suppress) >= classes:
            raise PlanError(f"all {classes} classes are suppressed: leave at least one to predict")
        allowed = np.ones(classes, np.bool_)
        allowed[list(self.suppress)] = False
        bias = _one_a_class(self.bias, classes, "bias", 0.0)
        gain = _one_a_class(self.prior, classes, "prior", 1.0)
        if (gain <= 0).any():
            raise PlanError(f"prior {list(self.prior)}: every ratio must be above 0")
        if log_domain:
            bias, gain = bias + np.log(gain), np.ones(classes)
        threshold = ALWAYS if self.threshold is None else self.threshold
        return Rule(bias.astype(np.float32), gain.astype(np.float32), allowed, np.float32(threshold))


def check_classes(wanted: Iterable[int], classes: int) -> None:
    """Refuse class ids that do not exist.

    Raises:
        PlanError: naming the first id outside 0..classes-1.
    """
    for class_id in wanted:
        if not 0 <= class_id < classes:
            raise PlanError(f"cannot suppress class {class_id}: there are {classes} classes, 0 to {classes - 1}")


def _one_a_class(values: tuple[float, ...], classes: int, name: str, default: float) -> NDArray[np.float64]:
    if not values:
        return np.full(classes, default)
    if len(values) != classes:
        raise PlanError(f"{len(values)} values of class {name} for {classes} classes: give one per class")
    if not all(abs(value) <= MOST for value in values):
        raise PlanError(f"class {name} {list(values)}: every value must be finite, at most {MOST:g} in size")
    return np.asarray(values, np.float64)

"""Early exit: members run fastest first, and an image is done as soon as none of its pixels can change.

**Why it is exact.** Let a pixel's score of class c after some members be s_c, and R_c the weight of the remaining
members. Each of them adds to s_c between 0 and its weight: a vote adds its weight or nothing, a probability is within
0..1. So the final score is within [s_c, s_c + R_c], and, as gain and bias rise with the score, the final decoded
score within [g_c s_c + b_c, g_c (s_c + R_c) + b_c]. If the leader's lower end is above every other allowed class's
upper end, no remaining member can change the label. Ties never qualify (the inequality is strict), and averages need a
margin larger than any rounding to float32. This holds for ``vote`` and ``mean-prob``; logits are not bounded, so it
does not hold for ``mean-logit``.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.fusion.decoding import Decoding
from engine.fusion.strategies.vote import voting_units
from engine.inference.forward import Forward
from engine.sources.base import Batch

BOUNDED = ("vote", "mean-prob")
# Twice the largest error of a float32 mean of probabilities (see engine.kernels.exponential), generously rounded up.
MARGIN = 1e-5


@dataclass(frozen=True)
class EarlyExit:
    """When an image is done early.

    Attributes:
        agreement: share of the pixels that must be settled; 1 is exact, less is approximate.
    """

    agreement: float = 1.0

    def check(self, strategy: str, decoding: Decoding) -> None:
        """Refuse settings that early exit does not support.

        Raises:
            PlanError: a strategy whose scores are not bounded, a threshold of suppression, an impossible share.
        """
        if strategy not in BOUNDED:
            raise PlanError(f"early exit needs bounded scores, {strategy} has none: use {' or '.join(BOUNDED)}")
        if decoding.decode != "argmax":
            raise PlanError(f"early exit and decode {decoding.decode}: that needs the probabilities of all; drop one")
        if decoding.threshold is not None:
            raise PlanError("early exit and a suppression threshold: a threshold needs final probabilities; drop one")
        if decoding.has_thresholds:
            raise PlanError("early exit and a threshold per class: that needs final probabilities; drop one")
        if not 0 < self.agreement <= 1:
            raise PlanError(f"early-exit agreement {self.agreement}; a share above 0 and at most 1 is needed")


class RunningScores:
    """Scores of a batch while its members run.

    Attributes:
        labels: uint8 (batch, pixels), the leader of each pixel so far.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        strategy: str,
        weights: NDArray[np.float64],
        decoding: Decoding,
    ) -> None:
        """Start with zero scores.

        Args:
            shape: (batch, classes, pixels).
            strategy: ``vote`` or ``mean-prob``.
            weights: float64 (members, classes), columns summing to 1.
            decoding: bias, prior, suppression.
        """
        rule = decoding.rule(shape[1], log_domain=False)
        self.allowed = rule.allowed
        self.voted = rule.allowed if decoding.vote_stage == "members" else np.ones(shape[1], np.bool_)
        self.gain = rule.gain.astype(np.float64)[:, None]
        self.bias = rule.bias.astype(np.float64)[:, None]
        self.is_vote = strategy == "vote"
        if self.is_vote:
            # The same units as the strategy, so that leads are equal; exact in float64.
            units = np.stack([voting_units(column) for column in weights.T], axis=1).astype(np.float64)
            weights = units / units.sum(axis=0)
        self.weights = weights
        self.left = weights.sum(axis=0)
        self.scores = np.zeros(shape)
        self.labels = np.zeros((shape[0], shape[2]), np.uint8)

    def add(self, slot: int, logits: NDArray[np.float32], images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Add one member's logits.

        Args:
            slot: the member.
            logits: float32 (batch, classes, pixels) of these images.
            images: int64, their indices in the batch.

        Returns:
            float64 (images,): the share of each image's pixels that no remaining member can change.
        """
        weight = self.weights[slot][:, None]
        self.left = self.left - self.weights[slot]
        if self.is_vote:
            winner = np.where(self.voted[:, None], logits, -np.inf).argmax(axis=1)
            self.scores[images] += weight * (winner[:, None] == np.arange(logits.shape[1])[:, None])
        else:
            terms = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
            self.scores[images] += weight * (terms / terms.sum(axis=1, keepdims=True))
        allowed = self.allowed[:, None]
        low = np.where(allowed, self.scores[images] * self.gain + self.bias, -np.inf)
        high = np.where(allowed, (self.scores[images] + self.left[:, None]) * self.gain + self.bias, -np.inf)
        leader = low.argmax(axis=1)
        self.labels[images] = leader
        lead = np.take_along_axis(low, leader[:, None], axis=1)[:, 0]
        np.put_along_axis(high, leader[:, None], -np.inf, axis=1)
        return np.asarray((lead > high.max(axis=1) + MARGIN).mean(axis=1))


def run_early(
    ensemble: Forward, batch: Batch, early: EarlyExit, order: list[int]
) -> tuple[NDArray[np.uint8], list[int], list[float]]:
    """Predict a batch, stopping for images whose labels are settled.

    Args:
        ensemble: the members.
        batch: the images.
        early: when an image is done early.
        order: indices of the members, fastest first.

    Returns:
        uint8 (batch, pixels) labels before clean-up; number of images each member ran on; seconds of each member.

    Raises:
        ModelError: a member fails or computes NaN or infinity.
    """
    count = len(batch.ids)
    shape = (count, len(ensemble.classes), batch.size[0] * batch.size[1])
    decoding = ensemble.variant.decoding
    standing = RunningScores(shape, ensemble.variant.strategy, ensemble.weights, decoding)
    logits = np.empty((len(order), *shape), np.float32)
    staying = np.arange(count)
    runs, seconds = [0] * len(order), [0.0] * len(order)
    for step, index in enumerate(order):
        began = perf_counter()
        part = Batch(batch.start, [batch.ids[i] for i in staying], batch.pixels[staying])
        mine = ensemble.member_logits(index, part, decoding.suppress)
        logits[index, staying] = mine
        seconds[index], runs[index] = perf_counter() - began, len(staying)
        if step + 1 < len(order):
            settled = standing.add(index, mine, staying)
            staying = staying[settled < early.agreement]
            if not len(staying):
                return standing.labels, runs, seconds
    # Images that ran on every member are fused by the strategy itself: bit-identical to a run without early exit.
    whole = np.ascontiguousarray(logits[ensemble.fusion_order][:, staying])
    standing.labels[staying] = ensemble.decode(whole, ensemble.variant, batch.size, clean=False)[0]
    return standing.labels, runs, seconds


def cheapest_first(ensemble: Forward, batch: Batch) -> list[int]:
    """Return the members' indices by measured time on a batch, the fastest first; the first run of each warms it up."""
    costs = []
    for index in range(len(ensemble.members)):
        ensemble.member_logits(index, batch)
        began = perf_counter()
        ensemble.member_logits(index, batch)
        costs.append(perf_counter() - began)
    return sorted(range(len(costs)), key=costs.__getitem__)

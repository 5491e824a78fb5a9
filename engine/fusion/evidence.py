"""What leaves the engine beside labels: the probabilities that they are the argmax of, and a map of doubt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError, option
from engine.fusion.doubt import DOUBTS, Unknown
from engine.fusion.strategies.task import Task
from engine.kernels import evidence as kernels
from engine.kernels.blocks import PART, block_of, scratch

FROM_SCORES = {"entropy": kernels.ENTROPY, "margin": kernels.MARGIN}
SCORE_TYPES = ("float16", "float32")
DOUBT_TYPES = ("uint8", "float16", "float32")
# uint8 maps hold 0 to this; 255 is left for pixels without data.
MOST_DOUBT = 254
# The strategy whose scores are logits.
LOGITS = "mean-logit"


@dataclass(frozen=True)
class Evidence:
    """What is asked for.

    Attributes:
        scores: dtype of the probabilities, of :data:`SCORE_TYPES`; empty for none.
        doubt: a name from :data:`DOUBTS`; empty for none.
        doubt_type: dtype of the map of doubt, of :data:`DOUBT_TYPES`; uint8 holds 254 times the value, rounded.
        unknown: which pixels are too doubtful for a label; None for none.
    """

    scores: str = ""
    doubt: str = ""
    doubt_type: str = "uint8"
    unknown: Unknown | None = None

    def __post_init__(self) -> None:
        """Refuse what there is not.

        Raises:
            PlanError: an unknown dtype or map; the message lists those that exist.
        """
        if self.scores and self.scores not in SCORE_TYPES:
            raise PlanError(f"{option('scores_type')} {self.scores[:40]}; allowed are {' and '.join(SCORE_TYPES)}")
        if self.doubt and self.doubt not in DOUBTS:
            raise PlanError(f"{option('doubt_map')} {self.doubt[:40]}; allowed are {', '.join(DOUBTS)}")
        if self.doubt_type not in DOUBT_TYPES:
            raise PlanError(f"{option('doubt_type')} {self.doubt_type[:40]}; allowed are {', '.join(DOUBT_TYPES)}")

    def __bool__(self) -> bool:
        """Return whether anything is asked for."""
        return bool(self.scores or self.doubt or self.unknown)

    @property
    def record(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        doubt = {"doubt": self.doubt, "doubt_type": self.doubt_type} if self.doubt else {}
        return ({"scores": self.scores} if self.scores else {}) | doubt

    @property
    def measures(self) -> list[str]:
        """Return the measures of doubt that are needed, that of the map first."""
        named = [self.doubt, self.unknown.doubt if self.unknown is not None else ""]
        return list(dict.fromkeys(name for name in named if name))


@dataclass(frozen=True)
class Shown:
    """The evidence for the labels of a batch.

    Attributes:
        scores: (batch, classes, pixels) probabilities, of the dtype asked for; None if they are not.
        doubt: (batch, pixels), of the dtype asked for; None if it is not.
        unknown: bool (batch, pixels), which pixels are too doubtful for a label; None if none can be.
    """

    scores: NDArray[Any] | None = None
    doubt: NDArray[Any] | None = None
    unknown: NDArray[np.bool_] | None = None


def kept_scores(shape: Sequence[int], evidence: Evidence) -> NDArray[np.float32]:
    """Return memory for the decoded scores of a batch, float32 (batch, classes, pixels), all NaN; none if not needed.

    Args:
        shape: (members, batch, classes, pixels).
        evidence: what is asked for.
    """
    if not (evidence.scores or set(evidence.measures) & FROM_SCORES.keys()):
        return np.empty((1, 0, 0), np.float32)
    kept: NDArray[np.float32] = scratch(*shape[1:])
    kept[:, 0] = np.nan
    return kept


def show(task: Task, strategy: str, evidence: Evidence) -> Shown:
    """Return what is asked for, once a strategy has decided the labels.

    Scores after prior, bias and suppression become probabilities: those of ``mean-logit`` by softmax, those of every
    other strategy by division by their sum, where negative ones (of a bias) count as 0; a temperature divides their
    logarithms. A suppressed class has exactly 0. Where rounding or a tie would give the argmax to another class, the
    label's probability is the next greater number of its dtype.

    Args:
        task: the batch, its labels and the scores that the strategy kept.
        strategy: its name.
        evidence: what is asked for.

    Raises:
        PlanError: the strategy gives labels alone.
    """
    unknown = evidence.unknown
    if len(evidence.measures) > 1:
        assert unknown is not None
        other = show(task, strategy, Evidence(unknown=unknown))
        return replace(show(task, strategy, replace(evidence, unknown=None)), unknown=other.unknown)
    measured = "".join(evidence.measures)
    doubt = np.zeros(task.labels.shape, np.float32) if measured else np.empty((0, 0), np.float32)
    rule = task.rule(strategy == LOGITS)
    possible = np.flatnonzero(rule.allowed | (rule.threshold <= 1))
    unit = np.float32(1 / math.log(len(possible)) if len(possible) > 1 else 0)
    scores: NDArray[Any] | None = None
    if task.kept.shape[1]:
        if np.isnan(task.kept[:, 0, :1]).any():
            raise PlanError(
                f"strategy {strategy} keeps no scores: leave out {option('scores')}, {option('doubt')} and "
                f"{option('unknown')}, or choose another strategy"
            )
        batch, classes, pixels = task.kept.shape
        is_half = evidence.scores == "float16"
        words = np.uint16 if is_half else np.int32
        out = np.empty((batch, classes, pixels) if evidence.scores else (batch, 0, 0), words)
        part = min(PART, pixels)
        work, whole = scratch(classes + 3, part), scratch(classes + 3, part, dtype=np.int32)
        measure = FROM_SCORES.get(measured, kernels.NOTHING)
        log_domain = strategy == LOGITS
        sharp = np.float32(1 / task.decoding.temperature)
        kernels.finish(task.kept, task.labels, log_domain, sharp, work, whole, out, is_half, doubt, measure, unit)
        scores = out.view(evidence.scores) if evidence.scores else None
    if measured and measured not in FROM_SCORES:
        _of_members(task, measured, possible, unit, doubt)
    return Shown(
        scores,
        as_stored(doubt, evidence.doubt_type) if evidence.doubt else None,
        None if unknown is None else np.minimum(doubt, np.float32(1)) > np.float32(unknown.threshold),
    )


def _of_members(
    task: Task, measure: str, possible: NDArray[np.int64], unit: np.float32, doubt: NDArray[np.float32]
) -> None:
    classes, pixels = task.logits.shape[2:]
    if measure == "votes":
        block = block_of(classes, pixels)
        best, choice = scratch(block), scratch(block, dtype=np.int32)
        kernels.vote_doubt(task.logits, task.single_weights, possible, task.labels, best, choice, doubt)
        return
    weights = task.weights.mean(axis=1).astype(np.float32)
    work = scratch(2 * len(possible) + 3, min(PART, pixels))
    kernels.mutual_information(task.logits, weights, possible, work, unit, doubt)


def as_stored(doubt: NDArray[np.float32], kind: str) -> NDArray[Any]:
    """Return doubt, float32 in 0..1, in the dtype that it is stored in."""
    if kind == "uint8":
        return np.rint(np.minimum(doubt, np.float32(1)) * np.float32(MOST_DOUBT)).astype(np.uint8)
    return np.minimum(doubt, np.float32(1)).astype(kind)

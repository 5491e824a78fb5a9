"""Class biases, one class at a time: every value of a class's bias is scored in one pass over the pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.fusion.decoding import Decoding
from engine.fusion.fuse import normalised_weights
from engine.fusion.strategies import named_strategy
from engine.fusion.strategies.task import Task
from engine.kernels.lines import count_line, rank_two
from engine.kernels.selecting import pack
from engine.select.deadline import NEVER, Deadline
from engine.select.pool import Choice
from engine.select.sample import Sample

# A smaller gain is noise and not worth another setting.
LEAST_GAIN = 1e-4
# The range of a bias, and (step, number of steps each way) of a coarse and a fine search; for logits, and for scores
# within 0..1.
MOST_LOG, LOG_LINES = 10.0, ((0.5, 20), (0.125, 8))
MOST_SHARE, SHARE_LINES = 0.9, ((0.05, 18), (0.0125, 8))
MOST_ROUNDS = 40
# The integer that represents a fused score of 1 where the strategy is not a sum of integers; logits are below 2^7.
UNIT = 1 << 22
MOST_SCORE = float(1 << 7)


@dataclass
class Lines:
    """Fused scores of a sample, and what biases make of them.

    Attributes:
        sample: the pixels.
        base: int32 (allowed classes * pixels,), the fused scores in the blocks of :mod:`engine.kernels.selecting`.
        unit: the integer that represents a score of 1.
        fold: the fold left out, or None.
        tried: biases scored so far.
    """

    sample: Sample
    base: NDArray[np.int32]
    unit: float
    fold: int | None = None
    tried: int = 0

    def scores(self, bias: NDArray[np.float64], step: float, reach: int) -> NDArray[np.float64]:
        """Return the score for every step of each class's bias.

        Args:
            bias: float64 (classes,), the present bias.
            step: from one value to the next.
            reach: number of steps down and up.

        Returns:
            float64 (allowed classes, 2 * reach + 1); the middle column is the present bias.
        """
        sample, starts = self.sample, self.sample.starts
        shifts, ranked = self._ranked(bias)
        now = self._counted(ranked[1])
        whole = float(max(1, round(step * self.unit)))
        found = []
        for place, shift in enumerate(shifts):
            moved = np.zeros((len(starts) - 1, 2 * reach + 2, len(shifts)), np.int32)
            moved[:, -1] = now
            moved[:, -1, place] = 0
            count_line(self.base, shift, np.int32(place), starts, ranked, -reach * whole, whole, moved)
            taken = moved.cumsum(axis=1, dtype=np.int32)
            left = taken[:, -1:] - taken[:, :-1]
            left[:, :, place] = taken[:, :-1].sum(axis=2)
            found.append(sample.scores(np.ascontiguousarray(left.transpose(1, 0, 2)), self.fold))
        self.tried += len(shifts) * (2 * reach + 1)
        return np.stack(found)

    def score(self, bias: NDArray[np.float64]) -> float:
        """Return the score of one bias (classes,)."""
        self.tried += 1
        return float(self.sample.scores(self._counted(self._ranked(bias)[1][1])[None], self.fold)[0])

    def _counted(self, label: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return int64 (segments, allowed classes): how often each label occurs."""
        starts, classes = self.sample.starts, len(self.sample.allowed)
        segment = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        return np.bincount(segment * classes + label, minlength=(len(starts) - 1) * classes).reshape(-1, classes)

    def _ranked(self, bias: NDArray[np.float64]) -> tuple[NDArray[np.int32], tuple[NDArray[np.int32], ...]]:
        """Return the bias in integers, and the two best classes of each pixel as :func:`rank_two` finds them."""
        starts = self.sample.starts
        shifts = np.rint(bias[self.sample.allowed] * self.unit).astype(np.int32)
        best, label, second, runner = np.empty((4, int(starts[-1])), np.int32)
        rank_two(self.base, shifts, starts, best, label, second, runner)
        return shifts, (best, label, second, runner)


def fused_lines(sample: Sample, choice: Choice, fold: int | None = None) -> Lines:
    """Fuse the sample by any strategy, without the bias of the choice."""
    logits = np.ascontiguousarray(sample.logits[choice.members][:, None])
    members, _, classes, pixels = logits.shape
    weights = normalised_weights(choice.weights, members, classes)
    kept = np.empty((1, classes, pixels), np.float32)
    decoding = Decoding(choice.decoding.suppress, vote_stage=choice.decoding.vote_stage)
    labels, ties = np.empty((1, pixels), np.uint8), np.zeros(1, np.int64)
    named_strategy(choice.strategy)(Task(logits, weights, decoding, labels, ties, kept))
    table = np.rint(np.clip(kept[0, sample.allowed], -MOST_SCORE, MOST_SCORE) * UNIT).astype(np.int32)
    base = np.empty(table.size, np.int32)
    pack(table, base, 0, sample.starts)
    return Lines(sample, base, float(UNIT), fold)


def tune_bias(choice: Choice, lines: Lines, deadline: Deadline = NEVER) -> Choice:
    """Search class biases by ascent along the classes.

    Each round finds the best value of each class's bias, the others fixed. All classes that gain are moved at once if
    that is no worse than the best move alone, else the better half of them, and so on.

    Args:
        choice: the start; its bias is replaced.
        lines: its fused scores.
        deadline: once over, the best bias so far is returned.

    Returns:
        The choice with a bias and its score; without one where none helps.
    """
    logs = choice.strategy == "mean-logit"
    most, searched = (MOST_LOG, LOG_LINES) if logs else (MOST_SHARE, SHARE_LINES)
    bias, score = np.zeros(lines.sample.classes), float("nan")
    for step, reach in searched:
        for _ in range(MOST_ROUNDS):
            scores = lines.scores(bias, step, reach)
            score = float(scores[0, reach])
            values = bias[lines.sample.allowed][:, None] + step * np.arange(-reach, reach + 1)
            scores[np.abs(values) > most + 1e-9] = -1.0
            moved = None if deadline.over else _moved(bias, score, scores, values, lines)
            if moved is None:
                break
            bias, score = moved
    if not bias.any():
        return replace(choice, decoding=replace(choice.decoding, bias=()), score=score)
    return replace(choice, decoding=replace(choice.decoding, bias=tuple(bias.tolist())), score=score)


def _moved(
    bias: NDArray[np.float64],
    score: float,
    scores: NDArray[np.float64],
    values: NDArray[np.float64],
    lines: Lines,
) -> tuple[NDArray[np.float64], float] | None:
    """Return the bias after one round, and its score; None if no class gains.

    Args:
        bias: float64 (classes,), the present bias.
        score: its score.
        scores: float64 (allowed classes, values), see :meth:`Lines.scores`.
        values: float64 (allowed classes, values), the biases that they belong to.
        lines: scores biases.
    """
    middle = scores.shape[1] // 2
    # Of equally good values the nearest.
    order = np.argsort(np.abs(np.arange(scores.shape[1]) - middle), kind="stable")
    at = order[scores[:, order].argmax(axis=1)]
    gains = scores[np.arange(len(scores)), at] - score
    ranked = np.argsort(-gains, kind="stable")
    count = int((gains >= LEAST_GAIN).sum())
    if not count:
        return None
    best = score + float(gains[ranked[0]])
    while count > 1:
        picked = ranked[:count]
        other = _with(bias, lines.sample.allowed[picked], values[picked, at[picked]])
        reached = lines.score(other)
        if reached >= best:
            return other, reached
        count //= 2
    first = ranked[:1]
    return _with(bias, lines.sample.allowed[first], values[first, at[first]]), best


def _with(bias: NDArray[np.float64], classes: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    changed = bias.copy()
    # Rounded, so that steps forth and back end at the start.
    changed[classes] = np.round(values, 6)
    return changed

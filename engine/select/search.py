"""The search itself: members and weights, then strategy, class bias and threshold, each step only if it helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.kernels.selecting import add_member, count_additions, count_sets, pack
from engine.select.additive import ADDITIVE, member_table
from engine.select.biases import LEAST_GAIN, Lines, fused_lines, tune_bias
from engine.select.deadline import NEVER, Deadline
from engine.select.pool import Choice
from engine.select.sample import Sample

MOST_EXHAUSTIVE = 12
METHODS = ("greedy", "exhaustive")
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
# How many of the ensembles found, at most one per strategy, are searched for class biases: the best without one is
# often not the best with one.
CARRIED = 4
CHUNK = 256


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        strategies: strategies to try; the first wins if scores are equal.
        method: ``greedy`` or ``exhaustive``.
        rounds: number of members that greedy selection adds, one per round.
        bags: number of random halves of the pool whose selections are summed; 0 for the whole pool once.
        seed: random seed for bags and sample.
        bias: whether to search class biases.
        threshold: whether to search the threshold of suppression.
    """

    strategies: tuple[str, ...] = (*ADDITIVE, "max-confidence", "median-prob", "trimmed-mean")
    method: str = "greedy"
    rounds: int = 20
    bags: int = 0
    seed: int = 0
    bias: bool = True
    threshold: bool = True


@dataclass
class Scorer:
    """Scores candidates of one additive strategy on a sample.

    Attributes:
        sample: the pixels.
        packed: all members' scores as integers, in the blocks of :mod:`engine.kernels.selecting`.
        unit: the integer that represents a score of 1.
        fold: the fold left out, or None.
        tried: candidates scored so far.
    """

    sample: Sample
    packed: NDArray[np.integer]
    unit: int
    fold: int | None = None
    tried: int = 0

    @property
    def members(self) -> int:
        """Return the size of the pool."""
        return len(self.sample.logits)

    def total(self, counts: Sequence[int]) -> NDArray[np.int32]:
        """Return the sum of a multiset of members, in blocks."""
        base = np.zeros(self.packed.size // self.members, np.int32)
        for member, count in enumerate(counts):
            if count:
                self.add(base, member, count)
        return base

    def add(self, base: NDArray[np.int32], member: int, times: int = 1) -> None:
        """Add a member to a sum in place."""
        classes = len(self.sample.allowed)
        add_member(base, self.packed, member * classes, times, self.sample.starts, classes)

    def additions(self, base: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the score of a sum plus each single member, float64 (members,)."""
        found = self._counts(self.members)
        count_additions(base, self.packed, self.sample.starts, found)
        return self._scores(found)

    def sets(self, sets: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the score of each multiset (candidates, members) of int32."""
        scores = []
        for start in range(0, len(sets), CHUNK):
            part = np.ascontiguousarray(sets[start : start + CHUNK])
            found = self._counts(len(part))
            count_sets(self.packed, part, self.sample.starts, found)
            scores.append(self._scores(found))
        whole = np.concatenate(scores)
        if self.sample.voters and self.sample.decoding.suppress:
            # Where all say a suppressed class, labels alone have no other.
            others = [member for member in range(self.members) if member not in self.sample.voters]
            whole[~sets[:, others].any(axis=1)] = -1.0
        return whole

    def lines(self, counts: Sequence[int]) -> Lines:
        """Return the fused scores of a multiset of members, to search class biases."""
        return Lines(self.sample, self.total(counts), float(self.unit * sum(counts)), self.fold)

    def _counts(self, candidates: int) -> NDArray[np.int32]:
        return np.zeros((candidates, len(self.sample.starts) - 1, len(self.sample.allowed)), np.int32)

    def _scores(self, found: NDArray[np.int32]) -> NDArray[np.float64]:
        self.tried += len(found)
        return self.sample.scores(found, self.fold)


def prepare(sample: Sample, strategy: str, most: int) -> Scorer:
    """Make the scorer of an additive strategy for ensembles of at most ``most`` members, counted with repetition."""
    fused = sample.decoding.vote_stage == "fused"
    made = [member_table(strategy, logits, sample.allowed, most, fused) for logits in sample.logits]
    kind = np.result_type(*(table.dtype for table, _ in made))
    packed = np.empty(sum(table.size for table, _ in made), kind)
    for member, (table, _) in enumerate(made):
        pack(table.astype(kind), packed, member * len(table), sample.starts)
    return Scorer(sample, packed, made[0][1])


def prepare_all(sample: Sample, settings: Settings) -> dict[str, Scorer]:
    """Make the scorers of all requested additive strategies; of mean-prob if there is none."""
    most = (len(sample.logits) + settings.rounds) * max(settings.bags, 1)
    names = [name for name in settings.strategies if name in ADDITIVE] or ["mean-prob"]
    return {name: prepare(sample, name, most) for name in names}


def greedy(scorer: Scorer, rounds: int, members: Sequence[int] | None = None) -> tuple[tuple[int, ...], float]:
    """Select members one by one, with replacement, after a sorted start (Caruana et al. 2004).

    The start is the best of: the best member, the best two, the best three, and so on. Each round then adds the member
    that helps most or harms least; the best set seen is returned, so it is never worse than the best member.

    Args:
        scorer: scores candidates.
        rounds: number of members to add.
        members: members to choose from; None for all.

    Returns:
        How often the set contains each member, and its score.
    """
    size = scorer.members
    mine = np.arange(size) if members is None else np.asarray(members)
    alone = scorer.additions(scorer.total([0] * size))
    ranked = mine[np.argsort(-alone[mine], kind="stable")]
    starts = np.zeros((len(ranked), size), np.int32)
    for place in range(len(ranked)):
        starts[place:, ranked[place]] = 1
    scores = scorer.sets(starts)
    at = int(np.argmax(scores))
    counts, best, best_score = starts[at].copy(), starts[at].copy(), float(scores[at])
    base = scorer.total(counts.tolist())
    for _ in range(rounds):
        scores = scorer.additions(base)
        added = int(mine[np.argmax(scores[mine])])
        counts[added] += 1
        scorer.add(base, added)
        if scores[added] > best_score:
            best, best_score = counts.copy(), float(scores[added])
    return tuple(best.tolist()), best_score


def bagged(scorer: Scorer, rounds: int, bags: int, seed: int) -> tuple[tuple[int, ...], float]:
    """Sum greedy selections from random halves of the pool: more stable, not always better on the searched pixels."""
    size = scorer.members
    rng = np.random.default_rng(seed)
    total = np.zeros(size, np.int64)
    for _ in range(bags):
        picked = np.sort(rng.permutation(size)[: max(2, (size + 1) // 2)])
        total += greedy(scorer, rounds, picked.tolist())[0]
    total //= gcd(*total.tolist())
    return tuple(total.tolist()), float(scorer.sets(total[None].astype(np.int32))[0])


def exhaustive(scorer: Scorer) -> tuple[tuple[int, ...], float]:
    """Try every subset of the members; of equally good ones the smaller wins.

    Raises:
        PlanError: the pool has more than :data:`MOST_EXHAUSTIVE` members.
    """
    size = scorer.members
    if size > MOST_EXHAUSTIVE:
        raise PlanError(f"{2**size - 1:,} subsets of {size} members: exhaustive search takes {MOST_EXHAUSTIVE} at most")
    # In Gray code order neighbours differ in one member.
    number = np.arange(1, 2**size)
    sets = ((number ^ (number >> 1))[:, None] >> np.arange(size) & 1).astype(np.int32)
    scores = scorer.sets(sets)
    at = min(np.flatnonzero(scores == scores.max()), key=lambda index: (sets[index].sum(), tuple(-sets[index])))
    return tuple(sets[at].tolist()), float(scores[at])


def search(
    sample: Sample,
    settings: Settings,
    scorers: dict[str, Scorer],
    fold: int | None = None,
    deadline: Deadline = NEVER,
) -> tuple[list[Choice], int]:
    """Find the best ensemble on a sample.

    Members and weights are searched under every additive strategy; the other strategies are tried on the sets found.
    The best few get class biases, and the best of those a threshold if it helps.

    Args:
        sample: the pixels.
        settings: settings of the search.
        scorers: the result of :func:`prepare_all`.
        fold: the fold whose images must not be used; None uses all.
        deadline: once over, no further step is taken.

    Returns:
        The choice after each of the three steps, and the number of candidates scored.

    Raises:
        PlanError: an exhaustive search of too large a pool.
    """
    found, tried = _selected(sample, settings, scorers, fold, deadline)
    found.sort(key=lambda pair: (-pair[0].score, settings.strategies.index(pair[0].strategy)))
    first = second = found[0][0]
    for choice, made in _carried(found) if settings.bias else ():
        if deadline.over:
            break
        lines = made.lines(choice.counts) if made is not None else fused_lines(sample, choice, fold)
        other = tune_bias(choice, lines, deadline)
        tried += lines.tried
        second = other if other.score >= second.score + LEAST_GAIN else second
    third = second
    for threshold in THRESHOLDS if settings.threshold and sample.decoding.suppress else ():
        if deadline.over:
            break
        other = _scored(sample, replace(second, decoding=replace(second.decoding, threshold=threshold)), fold)
        tried += 1
        third = other if other.score >= third.score + LEAST_GAIN else third
    return [first, second, third], tried


def _carried(found: Sequence[tuple[Choice, Scorer | None]]) -> list[tuple[Choice, Scorer | None]]:
    """Return the best ensemble of each of the best strategies; ``found`` is sorted, the best first."""
    best: dict[str, tuple[Choice, Scorer | None]] = {}
    for pair in found:
        best.setdefault(pair[0].strategy, pair)
    return list(best.values())[:CARRIED]


def _selected(
    sample: Sample, settings: Settings, scorers: dict[str, Scorer], fold: int | None, deadline: Deadline
) -> tuple[list[tuple[Choice, Scorer | None]], int]:
    """Return the best members under each strategy, with the scorer of additive ones, and the number of candidates."""
    size, tried = len(sample.logits), 0
    found: list[tuple[Choice, Scorer | None]] = []
    sets = {(1,) * size}
    for name, shared in scorers.items():
        if found and deadline.over:
            break
        made = replace(shared, fold=fold)
        if settings.method == "exhaustive":
            counts, score = exhaustive(made)
        elif settings.bags:
            counts, score = bagged(made, settings.rounds, settings.bags, settings.seed)
        else:
            counts, score = greedy(made, settings.rounds)
        sets.add(counts)
        tried += made.tried
        if name in settings.strategies:
            found.append((Choice(name, counts, sample.decoding, score), made))
    for name in settings.strategies:
        if name not in ADDITIVE and not (found and deadline.over):
            tried += len(sets)
            found += [(_scored(sample, Choice(name, counts, sample.decoding), fold), None) for counts in sorted(sets)]
    return found, tried


def _scored(sample: Sample, choice: Choice, fold: int | None) -> Choice:
    return replace(choice, score=float(sample.objective(sample.fused_confusions(choice), fold)[0]))

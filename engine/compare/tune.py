"""Class biases of every member and strategy, found by cross-fitting: no image is scored with a bias fitted on it.

The search is that of ``engine select`` (one coordinate at a time, halving steps) on its stratified sample of pixels;
the scores are over all pixels, from the exact logits. ``staple`` estimates the reliability of members over all
sampled pixels at once while its bias is searched, and image by image, as usual, when it is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.compare.study import Counts, Study, count, joined
from engine.inference.prediction import Variant
from engine.select.additive import ADDITIVE
from engine.select.pool import Choice
from engine.select.sample import Sample, draw
from engine.select.search import Scorer, prepare, tune_bias

Bias = tuple[float, ...]
# If a strategy is not a sum over members, each candidate is fused again: this many candidates, or logits read, end the
# search of a bias. With few classes neither is reached.
MOST_CANDIDATES, MOST_READ = 640, 3e9


@dataclass(frozen=True)
class Tuned:
    """A tuned variant.

    Attributes:
        variant: the variant with the bias found on all images.
        fold_biases: the biases found without each fold; empty tuples where none helped.
        counts: each image decoded with the bias found without it.
    """

    variant: Variant
    fold_biases: tuple[Bias, ...]
    counts: Counts


def tune(study: Study, variants: Sequence[Variant]) -> list[Tuned]:
    """Tune the biases of variants and count their predictions.

    Args:
        study: members, logits, truth and folds.
        variants: variants without a bias.

    Returns:
        One result per variant, in that order.
    """
    assert study.folds is not None
    sample = draw(study.pool(), study.metric, study.folds, study.pixels, study.seed)
    folds = int(study.folds.max()) + 1
    searches = _searches(study, sample, variants)

    def found(search: _Search) -> list[Bias]:
        return [search.bias(fold) for fold in (None, *range(folds))]

    with ThreadPoolExecutor(study.store.workers) as pool:
        biases = list(pool.map(found, searches))
    counts = _cross_counted(study, variants, [held[1:] for held in biases])
    return [
        Tuned(biased(variant, held[0]), tuple(held[1:]), done)
        for variant, held, done in zip(variants, biases, counts, strict=True)
    ]


def biased(variant: Variant, bias: Bias) -> Variant:
    """Return a variant with a class bias."""
    return replace(variant, decoding=replace(variant.decoding, bias=bias))


def _cross_counted(study: Study, variants: Sequence[Variant], biases: Sequence[Sequence[Bias]]) -> list[Counts]:
    """Return the counts of each variant, in order, every image decoded with the bias found without its fold."""
    assert study.folds is not None
    parts: list[list[Counts]] = [[] for _ in variants]
    order = []
    for fold in range(int(study.folds.max()) + 1):
        tiles = np.flatnonzero(study.folds == fold)
        order.append(tiles)
        made = [biased(variant, held[fold]) for variant, held in zip(variants, biases, strict=True)]
        found = count(study, made, tiles)
        for place, variant in enumerate(made):
            parts[place].append(found[variant])
    back = np.argsort(np.concatenate(order), kind="stable")
    whole = [joined(held) for held in parts]
    return [replace(done, matrices=done.matrices[back]) for done in whole]


def _searches(study: Study, sample: Sample, variants: Sequence[Variant]) -> list[_Search]:
    size = len(study.ensemble.members)
    slot = {member: place for place, member in enumerate(study.ensemble.fusion_order)}
    scorers: dict[str, Scorer] = {}
    made = []
    for variant in variants:
        counts = tuple(int(variant.member is None or slot[variant.member] == place) for place in range(size))
        if variant.strategy in ADDITIVE and variant.strategy not in scorers:
            scorers[variant.strategy] = prepare(sample, variant.strategy, size)
        choice = Choice(variant.strategy, counts, variant.decoding)
        made.append(_Search(sample, choice, scorers.get(variant.strategy)))
    return made


class _Search:
    """Searches the bias of one choice; the folds share the counts and use different parts of them."""

    def __init__(self, sample: Sample, choice: Choice, scorer: Scorer | None) -> None:
        self.sample, self.choice, self.scorer = sample, choice, scorer
        self.base = None if scorer is None else scorer.total(choice.counts)
        self.known: dict[Bias, NDArray[np.float64]] = {}
        affordable = int(MOST_READ / max(sample.logits[choice.members].size, 1))
        self.most = min(MOST_CANDIDATES, max(2 * sample.classes, affordable))

    def bias(self, fold: int | None) -> Bias:
        """Return the bias found without the images of a fold; empty if none helps."""

        tried = 0

        def scores(biases: NDArray[np.float64]) -> NDArray[np.float64]:
            nonlocal tried
            tried += len(biases)
            if self.scorer is None and tried > self.most:
                return np.zeros(len(biases))
            return self._scores(biases, fold)

        start = replace(self.choice, score=float(scores(np.zeros((1, self.sample.classes)))[0]))
        return tune_bias(start, self.sample.allowed, self.sample.classes, scores).decoding.bias

    def _scores(self, biases: NDArray[np.float64], fold: int | None) -> NDArray[np.float64]:
        if self.scorer is not None and self.base is not None:
            return replace(self.scorer, fold=fold).biased(self.base, sum(self.choice.counts), biases)
        confusions = np.concatenate([self._confusions(tuple(row)) for row in biases.tolist()])
        return self.sample.objective(confusions, fold)

    def _confusions(self, bias: Bias) -> NDArray[np.float64]:
        if bias not in self.known:
            decoding = replace(self.choice.decoding, bias=bias)
            self.known[bias] = self.sample.fused_confusions(replace(self.choice, decoding=decoding))
        return self.known[bias]

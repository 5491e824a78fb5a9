"""Class biases of every member and strategy, found by cross-fitting: no image is scored with a bias fitted on it.

The search is that of ``engine select`` (one class at a time, :func:`engine.select.biases.tune_bias`) on its stratified
sample of pixels; the scores are over all pixels, from the exact logits. ``staple`` estimates the reliability of members
over all sampled pixels at once while its bias is searched, and image by image, as usual, when it is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from engine.compare.study import Counts, Study, count, joined
from engine.inference.prediction import Variant
from engine.select.additive import ADDITIVE
from engine.select.biases import fused_lines, tune_bias
from engine.select.pool import Choice
from engine.select.sample import draw
from engine.select.search import prepare

Bias = tuple[float, ...]


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
    choices = [choice_of(study, variant) for variant in variants]
    scorers = {
        name: prepare(sample, name, len(study.ensemble.members))
        for name in dict.fromkeys(choice.strategy for choice in choices)
        if name in ADDITIVE
    }

    def found(choice: Choice) -> list[Bias]:
        scorer = scorers.get(choice.strategy)
        lines = fused_lines(sample, choice) if scorer is None else scorer.lines(choice.counts)
        return [tune_bias(choice, replace(lines, fold=fold)).decoding.bias for fold in (None, *range(folds))]

    with ThreadPoolExecutor(study.store.workers) as pool:
        biases = list(pool.map(found, choices))
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


def choice_of(study: Study, variant: Variant) -> Choice:
    """Return a variant as a choice from the study's pool, whose members are in the order of fusion."""
    slots = study.ensemble.fusion_order
    counts = tuple(int(variant.member is None or member == variant.member) for member in slots)
    return Choice(variant.strategy, counts, variant.decoding)

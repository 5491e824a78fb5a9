"""Folds for validation: tiles of one group stay together; tiles and classes are spread evenly over the folds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from trainers.data import class_counts


def assign_folds(
    labels: NDArray[np.uint8], groups: NDArray[np.int64] | None, folds: int, seed: int, classes: int
) -> NDArray[np.int64]:
    """Return the fold (N,) int64 of every tile.

    Groups are assigned one by one, those with the largest share of any class first, each to the fold whose load
    overlaps least with the group's: the greedy step of balancing tile count and every class by least squares. Without
    groups every tile is assigned alone, which is optimistic if tiles overlap.

    Args:
        labels: class numbers, uint8 (N, H, W).
        groups: group of each tile, (N,), or None.
        folds: number of folds, at least 2.
        seed: breaks ties between equal choices.
        classes: number of classes.

    Raises:
        InputError: there are fewer groups (or tiles) than folds.
    """
    count = len(labels)
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    dealt = int(members.max()) + 1
    if dealt < folds:
        what = "tiles" if groups is None else "groups"
        raise InputError(f"folds: {folds} folds from {dealt} {what}; take at most {dealt} folds, or train on all tiles")
    shares = _shares(labels, members, dealt, classes)
    rng = np.random.default_rng((seed, 0xF01D))
    shuffled = rng.permutation(dealt)
    order = shuffled[np.argsort(-shares[shuffled].max(axis=1), kind="stable")]
    load = np.zeros((folds, shares.shape[1]))
    fold_of = np.empty(dealt, np.int64)
    for group in order:
        fold_of[group] = chosen = int(np.argmin(load @ shares[group]))
        load[chosen] += shares[group]
    return fold_of[members]


def _shares(labels: NDArray[np.uint8], members: NDArray[np.int64], dealt: int, classes: int) -> NDArray[np.float64]:
    """Return (dealt, 1 + classes): the share of all tiles, and of all pixels of each class, that each group brings."""
    pixels = np.stack([class_counts(tile, classes) for tile in labels]).astype(np.float64)
    totals = np.zeros((dealt, 1 + classes))
    np.add.at(totals, members, np.column_stack([np.ones(len(labels)), pixels]))
    return totals / np.maximum(totals.sum(axis=0), 1.0)

"""Folds: groups stay together, loads are even, the seed decides."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import InputError
from trainers.folds import assign_folds


def panoramas(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sixty groups of uneven size; class 4 is in six of them alone."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 12, 60)))
    labels = rng.integers(0, 4, (len(groups), 8, 8)).astype(np.uint8)
    labels[np.isin(groups, [3, 11, 19, 30, 44, 58]), :2] = 4
    return labels, groups.astype(np.int64)


def test_groups_are_never_torn() -> None:
    labels, groups = panoramas()
    fold = assign_folds(labels, groups, 5, 0, 5)
    assert set(fold) == set(range(5))
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1


@pytest.mark.parametrize("seed", range(4))
def test_every_fold_has_its_share_of_tiles_and_the_rare_class(seed: int) -> None:
    labels, groups = panoramas(seed)
    fold = assign_folds(labels, groups, 5, seed, 5)
    counts = np.bincount(fold, minlength=5)
    assert counts.max() - counts.min() <= 0.35 * counts.mean()
    for k in range(5):
        assert (labels[fold == k] == 4).any()


def test_the_seed_decides() -> None:
    labels, groups = panoramas()
    first, again, other = (assign_folds(labels, groups, 5, seed, 5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_groups_tiles_are_dealt_alone() -> None:
    labels, _ = panoramas()
    counts = np.bincount(assign_folds(labels, None, 4, 0, 5), minlength=4)
    assert counts.max() - counts.min() <= 0.1 * counts.mean()


def test_more_folds_than_groups_are_refused() -> None:
    labels = np.zeros((6, 4, 4), np.uint8)
    with pytest.raises(InputError, match="5 folds from 3 groups"):
        assign_folds(labels, np.array([0, 0, 1, 1, 2, 2]), 5, 0, 2)

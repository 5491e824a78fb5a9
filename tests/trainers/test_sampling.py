"""Sampling balanced by class and group: what is drawn, how often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import PlanError
from engine.metrics import VOID
from trainers.config import FitConfig
from trainers.data import Dataset
from trainers.sampling import balanced_order, order_of


def uneven() -> Dataset:
    """A panorama of 30 tiles of soil, one of 4 with sand among them, a lone rock, and a tile without labels."""
    labels = np.ones((36, 4, 4), np.uint8)
    labels[30:34, 0] = 2
    labels[34, 0, 0] = 3
    labels[:, 3, 3] = 0
    labels[35] = VOID
    groups = np.repeat([7, 8, 9, 10], [30, 4, 1, 1])
    images = np.zeros((36, 4, 4, 1), np.uint8)
    return Dataset(images, labels, groups, ("background", "soil", "sand", "rock"), np.arange(36))


def test_classes_and_groups_come_evenly() -> None:
    data = uneven()
    drawn = np.concatenate([balanced_order(data, 0, 5, epoch) for epoch in range(200)])
    share = np.bincount(drawn, minlength=36) / 200
    assert share.sum() == 36
    assert share[35] == 1
    # A third of 35 draws each: soil from three panoramas, sand from one, rock from the lone tile.
    want = np.array([35 / 9 / 30] * 30 + [(35 / 9 + 35 / 3) / 4] * 4 + [35 / 9 + 35 / 3])
    np.testing.assert_allclose(share[:35], want, rtol=0.5, atol=0.05)
    assert share[:30].sum() == pytest.approx(35 / 9, rel=0.1)
    assert share[34] == pytest.approx(35 / 9 + 35 / 3, rel=0.1)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    data = uneven()
    config = FitConfig("unet", "d.npz", "n.keras", balance="groups", seed=2, repeat=2)
    one, again, other = order_of(data, config, 4), order_of(data, config, 4), order_of(data, config, 5)
    assert len(one) == 72
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    with pytest.raises(PlanError, match="omit --oversample"):
        FitConfig("unet", "d.npz", "n.keras", balance="groups", oversample=0.2)
    with pytest.raises(PlanError, match="allowed are tiles, groups"):
        FitConfig("unet", "d.npz", "n.keras", balance="panoramas")


def test_tiles_without_groups_are_groups_of_their_own_and_more_tiles_join_as_such() -> None:
    data = uneven()
    alone = Dataset(data.images, data.labels, None, data.class_names, data.index)
    assert len(balanced_order(alone, None, 0, 0)) == 36
    joined = data.joined(alone.take(np.array([0, 30])), Path("more.npz"))
    assert joined.groups is not None
    assert joined.groups[-2:].tolist() == [11, 12]
    assert alone.joined(alone, Path("more.npz")).groups is None

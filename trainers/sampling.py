"""Which tiles an epoch contains, how often and in which order."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from trainers.augment.base import Batch
from trainers.config import FitConfig
from trainers.data import Dataset, class_counts


def repeat_factors(data: Dataset, threshold: float, ignored: int | None) -> NDArray[np.float64]:
    """Return how often each tile should be repeated so that rare classes occur more often, float64 (N,).

    Repeat-factor sampling (A. Gupta, P. Dollar, R. Girshick: LVIS, CVPR 2019): a class in the share f of the
    tiles gets the factor ``max(1, sqrt(threshold / f))``, and a tile the largest factor of its classes.

    Args:
        data: the training tiles.
        threshold: share of tiles below which a class is rare; 0 repeats none.
        ignored: class that is not repeated.
    """
    classes = len(data.class_names)
    shown = np.stack([class_counts(mask, classes) > 0 for mask in data.labels])
    share = shown.mean(axis=0)
    wanted = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1.0 / len(data))))
    if ignored is not None:
        wanted[ignored] = 1.0
    return np.where(shown, wanted, 1.0).max(axis=1)


def expected_tiles(data: Dataset, repeat: int, oversample: float, ignored: int | None) -> int:
    """Return how many tiles an epoch shows, before copies that came out equal are dropped."""
    return round(float(repeat_factors(data, oversample, ignored).sum())) * repeat


def epoch_order(
    data: Dataset, repeat: int, oversample: float, ignored: int | None, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Return the places of the tiles of one epoch, in the order in which they are shown."""
    rng = np.random.default_rng((seed, epoch))
    places = np.arange(len(data))
    if oversample > 0:
        factors = repeat_factors(data, oversample, ignored)
        # Rounded up or down by lot, so that a factor of 1.5 gives one and a half copies on the average.
        times = np.floor(factors + rng.random(len(factors))).astype(np.int64)
        places = np.repeat(places, times)
    return rng.permutation(np.tile(places, repeat))


def order_of(data: Dataset, config: FitConfig, epoch: int) -> NDArray[np.int64]:
    """Return the places of the tiles of one epoch of a run, in the order in which they are shown."""
    if config.balance == "groups":
        order = balanced_order(data, config.ignored_class, config.seed, epoch)
        return np.concatenate([order] * config.repeat)
    return epoch_order(data, config.repeat, config.oversample, config.ignored_class, config.seed, epoch)


def balanced_order(data: Dataset, ignored: int | None, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return as many places as there are tiles, drawn so that classes and groups come evenly.

    Each place is drawn in three steps: a class, one of the groups that contain it, one of the tiles of that group that
    contain it, all evenly (class-aware sampling, L. Shen, Z. Lin, Q. Huang, ECCV 2016, with groups in between): a
    panorama of many tiles counts no more than one of few. Tiles without a class to count, as those of soft targets
    alone, come once each.

    Args:
        data: the training tiles; without groups every tile is its own.
        ignored: class that is not drawn.
        seed: seed of the run.
        epoch: number of the epoch, from 0.
    """
    rng = np.random.default_rng((seed, epoch, 0xBA1))
    classes = len(data.class_names)
    shown = np.stack([class_counts(mask, classes) > 0 for mask in data.labels])
    if ignored is not None:
        shown[:, ignored] = False
    groups = np.arange(len(data)) if data.groups is None else data.groups
    # The tiles of each group that contain a class, class by class.
    holders = [
        [np.flatnonzero(column & (groups == group)) for group in np.unique(groups[column])] for column in shown.T
    ]
    present = [held for held in holders if held]
    plain = np.flatnonzero(~shown.any(axis=1))
    drawn = []
    for chosen in rng.integers(len(present), size=len(data) - len(plain)) if present else ():
        held = present[chosen]
        drawn.append(rng.choice(held[rng.integers(len(held))]))
    return rng.permutation(np.concatenate([np.array(drawn, np.int64), plain]))


def distinct(images: Batch, masks: Batch) -> NDArray[np.int64]:
    """Return the places of the first of each set of exactly equal (image, mask) pairs, in order."""
    seen: set[bytes] = set()
    kept = []
    for place, (image, mask) in enumerate(zip(images, masks, strict=True)):
        digest = hashlib.blake2b(image.tobytes() + mask.tobytes(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(place)
    return np.array(kept, np.int64)

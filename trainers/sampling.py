"""Which tiles an epoch contains, how often and in which order."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from trainers.augment.base import Batch
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

"""From opened members to a pool: which views they take, and their log-probabilities under each."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.inference.ensemble import Ensemble
from engine.models.members import label_members, voters_of
from engine.models.views import check_views, named_views
from engine.select.cache import Cache, pixel_hash
from engine.select.pool import Pool
from engine.select.ragged import Ragged, Size
from engine.sources.base import Source
from engine.utils import console
from engine.utils.progress import Starting


def taken(ensemble: Ensemble, sizes: Collection[Size], sets: Sequence[str], by_name: bool) -> tuple[str, ...]:
    """Return the sets of views that all members take; the user hears of those they do not.

    Raises:
        PlanError: one that a member does not take was asked for by name.
    """
    if sets and (names := label_members(ensemble.members)):
        told = f"{names[0]} outputs labels, which have no mean over views"
        if by_name:
            raise PlanError(f"{told}: leave out --views")
        console.say(f"--views auto tries none: {told}")
        return ()
    found = []
    for told in sets:
        try:
            for net in ensemble.nets:
                for size in sizes:
                    check_views(net, named_views(told), size)
        except PlanError as error:
            if by_name:
                raise
            console.say(f"--views auto does not try {told}: {error}")
        else:
            found.append(told)
    return tuple(found)


def filled(
    ensemble: Ensemble,
    images: Source,
    truth: NDArray[np.uint8] | Ragged[np.uint8],
    groups: NDArray[np.int64] | None,
    cache: Cache,
    views: Sequence[str],
    starting: Starting,
) -> Pool:
    """Run the members under each of the views, the first of which are taken, or read their results from the cache."""
    shown = pixel_hash(images)
    advance = starting("running members", len(images) * len(ensemble.members) * len(views))
    fetched = {
        told: [cache.fetch(member, images, shown, told, advance) for member in ensemble.members] for told in views
    }
    logs = {told: [held for held, _ in found] for told, found in fetched.items()}
    ran = [ran for found in fetched.values() for _, ran in found]
    if not all(ran):
        console.say(f"{ran.count(False)} of {len(ran)} members were found in the cache")
    return Pool(
        ensemble.members,
        logs.pop(views[0]),
        truth,
        groups,
        images.size,
        ensemble.classes,
        ensemble.ignored_class,
        ensemble.variant.decoding.suppress,
        ensemble.coding.told_void(len(ensemble.classes)),
        ensemble.coding,
        images.sizes,
        voters_of(ensemble.members),
        views[0],
        logs,
    )

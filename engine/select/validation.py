"""Images with their labels and scenes, opened and checked, for selection and comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.fusion.calibration import Calibration
from engine.inference.arguments import check_exclusive
from engine.inference.ensemble import Ensemble
from engine.runs.opened import open_ensemble
from engine.runs.options import Options, planned, reading_of
from engine.runs.out_of_fold import predict_out_of_fold
from engine.runs.plan import Plan
from engine.select.ragged import Ragged
from engine.sources.base import Source
from engine.sources.coding import PLAIN
from engine.sources.groups import read_groups
from engine.sources.labels import as_labels, check_match, open_truth
from engine.sources.open import open_source
from engine.sources.placement import find_placement
from engine.sources.places import check_same_places, with_nodata
from engine.sources.slices import limited
from engine.utils import console
from engine.utils.memory import memory_bound

# Images of more bytes are not searched for pixels that they share.
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Validation:
    """Images with matching labels and groups.

    Attributes:
        ensemble: the members, opened.
        images: the images.
        labels: their true label maps, or None.
        groups: int64 (images,) the group of each image, numbered from 0 without gaps, two or more; None without groups.
    """

    ensemble: Ensemble
    images: Source
    labels: Source | None
    groups: NDArray[np.int64] | None

    def truth(self, classes: int) -> NDArray[np.uint8] | Ragged[np.uint8]:
        """Return all true labels, uint8 (images, pixels).

        Raises:
            InputError: a value is not a class id, or a file is damaged.
        """
        assert self.labels is not None
        maps = [as_labels(batch, classes, self.labels.name) for batch in self.labels.batches(64)]
        if not self.labels.sizes:
            return np.concatenate(maps)
        return Ragged(np.concatenate([part.ravel() for part in maps]), [prod(size) for size in self.labels.sizes])


def pool_plan(job: Options) -> Plan:
    """Return the members that options name as a plan, without what a selection or a comparison decides itself.

    Raises:
        EngineError: no members, models and a plan, or a plan that cannot be read.
    """
    given = planned(job)
    if given is None:
        raise PlanError("no models: name them with --models or --plan")
    members = tuple(replace(item, weight=1.0, calibration=Calibration()) for item in given.members)
    pool = Plan(members, given.classes, suppress=given.suppress, input=given.input, labels=given.labels)
    if pool != given:
        console.say(
            f"{job.plan}: its members, classes, suppress, [input] and [labels] hold; weights, strategy, views and the "
            "rest are not used here"
        )
    return pool


def open_validation(job: Options, groups: str) -> Validation:
    """Open the members, images, labels and groups named by the options, up to their limit.

    Args:
        job: options with models, input and labels.
        groups: file with the group of each image; empty if not given.

    Raises:
        EngineError: missing or damaged files, labels or groups of other images, or all images of one group.
    """
    plan = pool_plan(job)
    whole = open_source(job.input, reading=replace(reading_of(plan, job), any_size=True))
    ensemble = open_ensemble(plan, replace(job, labels=""), whole)
    check_exclusive(ensemble)
    images = limited(whole, job.limit)
    coding = with_nodata(ensemble.coding, job.labels, len(ensemble.classes)) if job.labels else PLAIN
    labels = open_truth(job.labels, whole, coding, job.limit) if job.labels else None
    if labels is not None:
        check_same_places(job.input, job.labels)
        check_match(images, labels)
    index = read_groups(groups, len(whole)) if groups else None
    if index is not None:
        index = np.unique(index[: len(images)], return_inverse=True)[1].astype(np.int64)
        if len(index) and index.max() < 1:
            raise InputError(f"{groups}: all images are of one group; leave --groups out, or give two groups or more")
    if labels is not None:
        predict_out_of_fold(ensemble, images)
        index = shared_pixels(images) if index is None else index
    return Validation(ensemble, images, labels, index)


def shared_pixels(images: Source) -> NDArray[np.int64] | None:
    """Return the groups that follow from the pixels that images share, int64 (images,), and say so; None for none.

    Tiles cut from one picture with overlap are one group: drawn one by one, intervals would be too narrow, and folds
    would be scored on pixels that they were fitted on.
    """
    if images.sizes or len(images) < 2:
        return None
    first = next(images.batches(1)).pixels
    if len(images) * first.nbytes > min(MOST_BYTES, memory_bound() // 8):
        return None
    placement = find_placement(np.concatenate([batch.pixels for batch in images.batches(256)]))
    pictures = len(placement.images)
    if pictures == len(images):
        return None
    told = f"no --groups, and {len(images):,} images share pixels (they make {pictures:,} pictures)"
    if pictures < 2:
        console.say(f"warning: {told}: the scores are of one picture")
        return None
    console.say(f"note: {told}: each picture is a group")
    return placement.picture

"""Images with their labels and scenes, opened and checked: what ensembles are selected and compared on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.runs.options import Options
from engine.sources.base import Source
from engine.sources.groups import read_groups
from engine.sources.labels import as_labels, check_match, open_labels
from engine.sources.open import open_source
from engine.sources.places import check_same_places
from engine.sources.slices import limited


@dataclass(frozen=True)
class Validation:
    """Images that belong to their labels and groups.

    Attributes:
        images: the images.
        labels: their true label maps, or None.
        groups: int64 (images,) the group of each image, numbered from 0 without gaps, two or more; None without groups.
    """

    images: Source
    labels: Source | None
    groups: NDArray[np.int64] | None

    def truth(self, classes: int) -> NDArray[np.uint8]:
        """Return all true labels, uint8 (images, pixels).

        Raises:
            InputError: a value is no class id, or a file is damaged.
        """
        assert self.labels is not None
        return np.concatenate([as_labels(batch, classes, self.labels.name) for batch in self.labels.batches(64)])


def open_validation(job: Options, groups: str) -> Validation:
    """Open the images, labels and groups that the options name, as many images as their limit allows.

    Args:
        job: names input and labels.
        groups: file with the group of each image; empty for none.

    Raises:
        EngineError: nothing there, damaged, labels or groups that are not of these images, or all images of one group.
    """
    images = open_source(job.input)
    labels = open_labels(job.labels) if job.labels else None
    if labels is not None:
        check_same_places(job.input, job.labels)
        check_match(images, labels)
    index = read_groups(groups, len(images)) if groups else None
    images = limited(images, job.limit)
    labels = limited(labels, job.limit) if labels is not None else None
    if index is not None:
        index = np.unique(index[: len(images)], return_inverse=True)[1].astype(np.int64)
        if len(index) and index.max() < 1:
            raise InputError(f"{groups}: all images are of one group; leave --groups out, or give two groups or more")
    return Validation(images, labels, index)

"""Images that members with folds were trained on, each predicted by the net that did not see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.inference.ensemble import Ensemble
from engine.models.folds import nets_without, tile_keys, with_unseen
from engine.runs.stitched import StitchedImages
from engine.sources.base import Source
from engine.utils import console


def predict_out_of_fold(ensemble: Ensemble, images: Source) -> None:
    """Let each member with folds predict a labelled image by the net that was trained without it, in place.

    Raises:
        ContractError: a net does not say which images it was trained without.
        InputError: images that none of the nets was trained without, or several.
    """
    if not any(member.folds for member in ensemble.members):
        return
    keys = [key for batch in images.batches(64) for key in tile_keys(batch.pixels)]
    for index, member in enumerate(ensemble.members):
        if member.folds:
            ensemble.members[index] = with_unseen(member, images.ids, keys, images.name)
            console.say(f"{member.name}: each of {len(keys):,} images by the net that was trained without it")


def check_folds(ensemble: Ensemble) -> None:
    """Refuse ``--out-of-fold`` where no member has folds.

    Raises:
        PlanError: none has.
    """
    if not any(member.folds for member in ensemble.members):
        raise PlanError("--out-of-fold: no member has folds: name some in a plan, or leave it out")


def predict_pictures_out_of_fold(ensemble: Ensemble, images: StitchedImages) -> None:
    """Let each member with folds predict a stitched picture by the net that was trained without its images, in place.

    Raises:
        ContractError: a net does not say which images it was trained without.
        InputError: images that none of the nets was trained without, or several, or a picture of different folds.
    """
    check_folds(ensemble)
    keys = tile_keys(images.pixels)
    for index, member in enumerate(ensemble.members):
        if member.folds:
            owner = nets_without(member, images.ids, keys, images.name)
            nets = [_same(owner[own], images, number) for number, own in enumerate(images.placement.images)]
            ensemble.members[index] = replace(member, unseen=_OfPicture(nets))
            console.say(f"{member.name}: each of {len(nets):,} pictures by the net that was trained without it")


def _same(owner: NDArray[np.int64], images: StitchedImages, number: int) -> int:
    if len(np.unique(owner)) > 1:
        first = images.ids[int(images.placement.images[number][0])]
        raise InputError(
            f"{images.name}: image {first} and others overlap, but different folds held them out, so their nets have "
            "seen these pixels: train with one group a picture (trainers stitch makes them)"
        )
    return int(owner[0])


class _OfPicture(Mapping[str, int]):
    """The net of each picture, by the name of any tile of it, which begins with the picture's number."""

    def __init__(self, nets: list[int]) -> None:
        self._nets = nets

    def __getitem__(self, name: str) -> int:
        return self._nets[int(name.partition(" ")[0])]

    def __iter__(self) -> Iterator[str]:
        return map(str, range(len(self._nets)))

    def __len__(self) -> int:
        return len(self._nets)

    def __contains__(self, name: object) -> bool:
        return int(str(name).partition(" ")[0]) < len(self._nets)

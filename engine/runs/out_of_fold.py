"""Images that members with folds were trained on, each predicted by the net that did not see it."""

from __future__ import annotations

from engine.inference.ensemble import Ensemble
from engine.models.folds import tile_keys, with_unseen
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

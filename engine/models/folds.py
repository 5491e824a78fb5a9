"""Nets of one cross-validation as one member, and which of them has not seen which labelled tile.

The k nets of one recipe, each trained without one fold of the data, predict a new image together: their logits are
averaged, as those of views are (their probabilities where the ensemble's ``view_mean`` says so). A tile of the training
data is predicted by the one net that was trained without it: by its out-of-fold prediction, as stacking needs it
(Wolpert: Stacked generalization, Neural Networks 1992). A tile is known by its pixels, whatever file it lies in.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError, InputError
from engine.models.members import Member, member_of
from engine.models.net import Net

# Bytes of a key: among a million tiles two differing ones share a key with a probability of 0.2 %.
KEY_BYTES = 6
# Kinds of nets whose maps have a mean.
AVERAGED = ("multiclass", "binary", "multilabel")


def tile_keys(pixels: NDArray[Any]) -> list[str]:
    """Return what tells tiles apart: 8 letters and digits of a hash (BLAKE2b) over the pixels of each.

    Pixels of 0 to 255 are hashed as uint8, rounded to the nearest: the same tile has the same key in a file of floats.

    Args:
        pixels: raw images (tiles, height, width, channels).
    """
    return [_key(tile) for tile in pixels]


def _key(tile: NDArray[Any]) -> str:
    if tile.dtype != np.uint8 and tile.size and tile.min() >= 0 and tile.max() <= 255:
        tile = np.rint(tile).astype(np.uint8)
    digest = hashlib.blake2b(f"{tile.dtype.name}{tile.shape}".encode(), digest_size=KEY_BYTES)
    digest.update(np.ascontiguousarray(tile).astype(tile.dtype.newbyteorder("<"), copy=False).data)
    return base64.urlsafe_b64encode(digest.digest()).decode()


def fold_member(nets: Sequence[Net]) -> Member:
    """Return the nets of one cross-validation as one member.

    Args:
        nets: one per fold, two or more.

    Raises:
        ContractError: there is one net alone, a file twice, or two nets differ in more than their weights.
    """
    first = nets[0]
    if len(nets) < 2:
        raise ContractError(f'folds: {first.path} alone; name two nets or more, or write model = "{first.path.name}"')
    for place, net in enumerate(nets):
        twin = next((other for other in nets[:place] if other.checksum == net.checksum), None)
        if twin is not None:
            raise ContractError(f"folds: {net.path} and {twin.path} are the same net; name one net of each fold")
        if net.contract.kind not in AVERAGED:
            raise ContractError(
                f"folds: {net.path} is of the kind {net.contract.kind}; nets of the kinds {', '.join(AVERAGED)} have "
                "maps that can be averaged: name such nets, or make it a member of its own"
            )
        for name in ("kind", "classes", "ignored_class", "channels", "architecture"):
            held, other = getattr(net.contract, name), getattr(first.contract, name)
            if held != other:
                raise ContractError(
                    f"folds: {first.path.name} has {name} {other}, {net.path.name} {held}: the nets of a member with "
                    "folds come from one cross-validation; make this one a member of its own"
                )
    joined = hashlib.sha256("".join(["folds", *sorted(net.checksum for net in nets)]).encode()).hexdigest()
    held = member_of(first)
    return replace(held, name=_name(nets), nets=tuple(nets), checksum=joined, folds=True)


def each_fold(member: Member) -> Iterator[Member]:
    """Yield the nets of a member with folds as members, in the order in which they are added up; else the member."""
    if not member.folds:
        yield member
        return
    for net in member.summed:
        yield one_fold(member, net)


def one_fold(member: Member, net: Net) -> Member:
    """Return one net of a member with folds as a member."""
    return replace(member, nets=(net,), folds=False, unseen=None)


def with_unseen(member: Member, ids: Sequence[str], keys: Sequence[str], of: str) -> Member:
    """Return a member with folds that predicts each labelled image by the net that was trained without it.

    Args:
        member: a member with folds.
        ids: of all images.
        keys: of all images, by :func:`tile_keys`.
        of: where the images come from, for messages.

    Raises:
        ContractError: a net does not state which tiles it was trained without.
        InputError: images that no net was trained without, or several; two images of one id.
    """
    if len(set(ids)) < len(ids):
        raise InputError(f"{of}: two images have one name, so they cannot be told apart: rename one of them")
    return replace(member, unseen=dict(zip(ids, nets_without(member, ids, keys, of).tolist(), strict=True)))


def nets_without(member: Member, ids: Sequence[str], keys: Sequence[str], of: str) -> NDArray[np.int64]:
    """Return int64 (images,), the index of the net that was trained without each image; as :func:`with_unseen`."""
    silent = next((net for net in member.nets if not net.contract.held_out), None)
    if silent is not None:
        raise ContractError(
            f"{silent.path} does not say which tiles it was trained without (held_out), so {of} cannot be predicted "
            "out of fold: train and export it again, or state held_out in its TOML file where another tool made it"
        )
    owner = np.full(len(keys), -1, np.int64)
    counts = np.zeros(len(keys), np.int64)
    for place, net in enumerate(member.nets):
        own = frozenset(net.contract.held_out)
        found = np.array([key in own for key in keys], np.bool_)
        owner[found] = place
        counts += found
    none, several = int((counts == 0).sum()), int((counts > 1).sum())
    if none or several:
        told = f"{none:,} were held out by none of its {len(member.nets)} folds, {several:,} by several"
        first = int(np.flatnonzero(counts != 1)[0])
        raise InputError(
            f"{of}: of {len(keys):,} images {told} (first: image {ids[first]}), so {member.name} has no out-of-fold "
            "prediction of them: give the very tiles that its folds were cut from, and the nets of all folds"
        )
    return owner


def _name(nets: Sequence[Net]) -> str:
    """Return what the names of the nets begin with, without the word fold; the folder's name where that is nothing."""
    shared = nets[0].name
    while not all(net.name.startswith(shared) for net in nets):
        shared = shared[:-1]
    return re.sub(r"[-_. ]*(fold)?[-_. ]*$", "", shared, flags=re.IGNORECASE) or nets[0].path.resolve().parent.name

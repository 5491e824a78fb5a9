"""Label-preserving augmentation: geometric transforms apply to image and mask alike, and no label is interpolated.

A transform takes a batch of images uint8 (B, H, W, C), its masks uint8 (B, H, W), a generator, and the class of pixels
that come from outside a tile (None: the tile is mirrored at its border). It returns new arrays; the caller's are
never changed. :func:`policy_rng` makes the draw depend on seed, epoch and batch only.
"""

from __future__ import annotations

import numpy as np

from engine.errors import PlanError
from trainers.augment import custom, generic
from trainers.augment.base import Batch, Transform

TRANSFORMS: dict[str, Transform] = {
    "mirror": custom.flip_horizontal,
    "upside-down": custom.flip_vertical,
    "jitter": custom.jitter,
    "translate": custom.translate,
    "negative": custom.negative,
    "cutout": custom.cutout,
    "rotate": generic.rotate,
    "elastic": generic.elastic,
    "cutmix": generic.cutmix,
}
#: Named sets; any transforms can be joined by ``+`` as well.
POLICIES: dict[str, tuple[str, ...]] = {
    "none": (),
    "flips": ("mirror", "upside-down"),
    "mirror-jitter": ("mirror", "jitter"),
    "flips-jitter": ("mirror", "upside-down", "jitter"),
    # These helped in the report.
    "custom": ("mirror", "upside-down", "negative", "translate", "cutout"),
    # These helped little.
    "generic": ("rotate", "elastic", "cutmix"),
}
FLIPS = ("mirror", "upside-down")


def transforms_of(expression: str) -> tuple[str, ...]:
    """Return the names of a policy's transforms, in order, each once.

    Args:
        expression: names of policies or transforms, joined by ``+``: ``flips+translate+jitter``.

    Raises:
        PlanError: a name is unknown; the message lists the known ones.
    """
    names: list[str] = []
    for part in (part.strip() for part in expression.split("+")):
        if part not in POLICIES and part not in TRANSFORMS:
            listed = ", ".join([*POLICIES, *TRANSFORMS])
            raise PlanError(f"augment: {part!r} is unknown; choose one of {listed}, or join some by +")
        names += [name for name in POLICIES.get(part, (part,)) if name not in names]
    return tuple(names)


def without_flips(expression: str) -> str:
    """Return the same policy without flips."""
    return "+".join(name for name in transforms_of(expression) if name not in FLIPS) or "none"


def policy_rng(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Return the generator of one batch: the same for the same seed, epoch and batch number, in any order."""
    return np.random.default_rng((seed, epoch, batch))


def augment(
    images: Batch, masks: Batch, expression: str, rng: np.random.Generator, fill: int | None = None
) -> tuple[Batch, Batch]:
    """Apply a policy to a batch and return the new images and masks.

    Args:
        images: uint8 (B, H, W, C).
        masks: uint8 (B, H, W).
        expression: the policy, see :func:`transforms_of`.
        rng: the generator, see :func:`policy_rng`.
        fill: class of pixels that come from outside, usually the ignored one; None mirrors instead.
    """
    for name in transforms_of(expression):
        images, masks = TRANSFORMS[name](images, masks, rng, fill)
    return images, masks

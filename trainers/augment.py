"""Augmentation that keeps labels true: flips turn image and mask alike, gain and offset touch the image alone.

Every function takes a batch of images uint8 (B, H, W, C), its masks uint8 (B, H, W) and a generator, and returns new
arrays; the caller's are never changed. :func:`policy_rng` makes the draw depend on seed, epoch and batch only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError

Batch = NDArray[np.uint8]
Transform = Callable[[Batch, Batch, np.random.Generator], tuple[Batch, Batch]]

GAIN = 0.15
OFFSET = 15.0


def flip_horizontal(images: Batch, masks: Batch, rng: np.random.Generator) -> tuple[Batch, Batch]:
    """Mirror each tile left to right with probability one half."""
    chosen = rng.random(len(images)) < 0.5
    turned_images = np.where(chosen[:, None, None, None], images[:, :, ::-1], images)
    return turned_images, np.where(chosen[:, None, None], masks[:, :, ::-1], masks)


def flip_vertical(images: Batch, masks: Batch, rng: np.random.Generator) -> tuple[Batch, Batch]:
    """Turn each tile upside down with probability one half."""
    chosen = rng.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[:, ::-1], images), np.where(
        chosen[:, None, None], masks[:, ::-1], masks
    )


def jitter(images: Batch, masks: Batch, rng: np.random.Generator) -> tuple[Batch, Batch]:
    """Scale grey values about mid-grey by 0.85 to 1.15 and shift them by up to 15 levels, one draw a tile."""
    shape = (len(images), 1, 1, 1)
    gain = rng.uniform(1 - GAIN, 1 + GAIN, shape).astype(np.float32)
    offset = rng.uniform(-OFFSET, OFFSET, shape).astype(np.float32)
    values = (images.astype(np.float32) - 127.5) * gain + 127.5 + offset
    return np.clip(np.rint(values), 0, 255).astype(np.uint8), masks


POLICIES: dict[str, tuple[Transform, ...]] = {
    "none": (),
    "mirror": (flip_horizontal,),
    "flips": (flip_horizontal, flip_vertical),
    "jitter": (jitter,),
    "mirror-jitter": (flip_horizontal, jitter),
    "flips-jitter": (flip_horizontal, flip_vertical, jitter),
}
_FLIPS = (flip_horizontal, flip_vertical)


def policy(name: str) -> tuple[Transform, ...]:
    """Return the transforms of a policy, in order.

    Raises:
        PlanError: there is no such policy; the message lists those there are.
    """
    if name not in POLICIES:
        raise PlanError(f"augment: {name!r} is unknown; choose one of {', '.join(POLICIES)}")
    return POLICIES[name]


def without_flips(name: str) -> str:
    """Return the name of the policy that does the same but never turns a tile."""
    kept = tuple(transform for transform in policy(name) if transform not in _FLIPS)
    return next(other for other, transforms in POLICIES.items() if transforms == kept)


def policy_rng(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Return the generator of one batch: the same for the same seed, epoch and batch number, whoever asks first."""
    return np.random.default_rng((seed, epoch, batch))


def augment(images: Batch, masks: Batch, name: str, rng: np.random.Generator) -> tuple[Batch, Batch]:
    """Apply a policy to a batch and return the new images and masks."""
    for transform in policy(name):
        images, masks = transform(images, masks, rng)
    return images, masks

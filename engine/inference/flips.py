"""Flip test-time augmentation: a member also runs on flipped images, and its logits are flipped back and averaged."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError

Element = TypeVar("Element", bound=np.generic)

# A flip is (vertical, horizontal): whether rows and columns are reversed.
Flip = tuple[bool, bool]
FLIPS: dict[str, tuple[Flip, ...]] = {
    "none": ((False, False),),
    "horizontal": ((False, False), (False, True)),
    "vertical": ((False, False), (True, False)),
    "both": ((False, False), (False, True), (True, False), (True, True)),
}


def named_flips(name: str) -> tuple[Flip, ...]:
    """Return the flips of that name.

    Raises:
        PlanError: unknown name; the message lists the names.
    """
    if name not in FLIPS:
        raise PlanError(f"unknown flips {name!r}; allowed are {', '.join(FLIPS)}")
    return FLIPS[name]


def flipped(array: NDArray[Element], flip: Flip, rows: int) -> NDArray[Element]:
    """Return a view with rows and columns reversed by the flip.

    Args:
        array: any array with rows and columns as adjacent axes.
        flip: which of the two are reversed.
        rows: the axis of the rows; the columns are the next one.
    """
    cut: list[Any] = [slice(None)] * array.ndim
    for axis, backwards in zip((rows, rows + 1), flip, strict=True):
        if backwards:
            cut[axis] = slice(None, None, -1)
    return array[tuple(cut)]

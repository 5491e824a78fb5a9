"""How an array holds images: which axis is rows, columns and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

Role = Literal["images", "labels"]
# The task's own training array pairs each image with its mask: (images, 2, height, width).
PLANE: dict[Role, int] = {"images": 0, "labels": 1}


@dataclass(frozen=True)
class Layout:
    """The axes of an array of images, the first of which counts the images.

    Attributes:
        axes: ``HW``, ``HWC``, ``CHW`` or ``PHW`` (pairs of image and mask).
        plane: of pairs, which of the two.
        size: (height, width) in pixels.
        channels: channels of an image.
    """

    axes: Literal["HW", "HWC", "CHW", "PHW"]
    size: tuple[int, int]
    channels: int = 1
    plane: int = 0

    def arrange(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return images as they lie in the array as a view (images, height, width, channels)."""
        if self.axes == "PHW":
            return images[:, self.plane, :, :, None]
        if self.axes == "CHW":
            return images.transpose(0, 2, 3, 1)
        return images[..., None] if self.axes == "HW" else images

    def rows(self, array: Any, index: int, start: int, stop: int) -> NDArray[Any]:
        """Read rows ``start`` to ``stop`` of one image as (rows, width, channels); nothing else is touched.

        Args:
            array: a memory-mapped NumPy array, a Zarr array, or anything that is indexed like them.
            index: which image.
            start: the first row.
            stop: behind the last row.
        """
        if self.axes == "PHW":
            return np.asarray(array[index, self.plane, start:stop])[..., None]
        if self.axes == "CHW":
            return np.asarray(array[index, :, start:stop]).transpose(1, 2, 0)
        held = np.asarray(array[index, start:stop])
        return held[..., None] if self.axes == "HW" else held


def layout_of(shape: tuple[int, ...], role: Role, name: str, paired: bool = False) -> Layout:
    """Find the axes of an array of images by its shape.

    Args:
        shape: the array's.
        role: whether images or label maps are wanted.
        name: what messages call the array.
        paired: whether it may be the task's own array of pairs.

    Raises:
        InputError: no such layout, or an axis of length 0.
    """
    few = (1, 3) if role == "images" else (1,)
    if min(shape, default=0) > 0:
        if paired and len(shape) == 4 and shape[1] == 2:
            return Layout("PHW", (shape[2], shape[3]), 1, PLANE[role])
        if len(shape) == 3:
            return Layout("HW", (shape[1], shape[2]))
        if len(shape) == 4 and shape[3] in few:
            return Layout("HWC", (shape[1], shape[2]), shape[3])
        if len(shape) == 4 and shape[1] in few:
            return Layout("CHW", (shape[2], shape[3]), shape[1])
    wanted = "(rows, height, width)" + (", (rows, height, width, 1 or 3)" if role == "images" else "")
    raise InputError(f"{name} has shape {shape}; {role} need {wanted}, none of them 0")

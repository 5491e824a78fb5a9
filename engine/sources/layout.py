"""How an array holds images: which axis is rows, columns and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

if TYPE_CHECKING:
    from engine.sources.reading import Reading, Taken

Role = Literal["images", "labels"]
# The task's own training array pairs each image with its mask: (images, 2, height, width).
PLANE: dict[Role, int] = {"images": 0, "labels": 1}
# An axis of up to so many elements can be that of the channels.
MOST_CHANNELS = 64
# What most images have; where nothing else tells, an axis of that length is that of the channels.
USUAL = (1, 3)
FEW = 4


@dataclass(frozen=True)
class Layout:
    """The axes of an array of images, the first of which counts the images unless it is one image ``alone``.

    Attributes:
        axes: ``HW``, ``HWC``, ``CHW`` or ``PHW`` (pairs of image and mask).
        plane: of pairs, which of the two.
        size: (height, width) in pixels.
        channels: channels of an image.
        alone: whether the array is one image, and no axis counts images.
    """

    axes: Literal["HW", "HWC", "CHW", "PHW"]
    size: tuple[int, int]
    channels: int = 1
    plane: int = 0
    alone: bool = False

    @property
    def rows_axis(self) -> int:
        """Return which axis of the array the rows of an image lie along."""
        return (2 if self.axes in ("CHW", "PHW") else 1) - self.alone

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
            index: which image; of no effect where the array is one image alone.
            start: the first row.
            stop: behind the last row.
        """
        which: tuple[int, ...] = () if self.alone else (index,)
        if self.axes == "PHW":
            return np.asarray(array[(*which, self.plane, slice(start, stop))])[..., None]
        if self.axes == "CHW":
            return np.asarray(array[(*which, slice(None), slice(start, stop))]).transpose(1, 2, 0)
        part = np.asarray(array[(*which, slice(start, stop))])
        return part[..., None] if self.axes == "HW" else part


def layout_of(
    shape: tuple[int, ...],
    role: Role,
    name: str,
    paired: bool = False,
    reading: Reading | None = None,
    scene: bool = False,
) -> Layout:
    """Find the axes of an array of images by its shape, by what is stated and by what the members take.

    Args:
        shape: the array's.
        role: whether it holds images or label maps; a label map has one channel, and nothing is stated about its axes.
        name: what messages call the array.
        paired: whether it may be the task's own array of pairs.
        reading: what is stated about images; None for nothing.
        scene: whether an array of two axes is one image.

    Raises:
        InputError: no such layout, an axis of length 0, or several layouts are possible.
    """
    if min(shape, default=0) > 0:
        if paired and len(shape) == 4 and shape[1] == 2:
            return Layout("PHW", (shape[2], shape[3]), 1, PLANE[role])
        axes = _label_axes(shape, scene) if role == "labels" else _image_axes(shape, name, reading, scene)
        if axes:
            return _layout(axes, shape)
    expected = "(rows, height, width)"
    if role == "images":
        expected += f", with 1 to {MOST_CHANNELS} channels first or last"
    raise InputError(f"{name} has shape {shape}; {role} need {expected}, none of them 0")


def _layout(axes: str, shape: tuple[int, ...]) -> Layout:
    side = dict(zip(axes, shape, strict=True))
    order: Any = axes.replace("N", "")
    return Layout(order, (side["H"], side["W"]), side.get("C", 1), alone="N" not in axes)


def _label_axes(shape: tuple[int, ...], scene: bool) -> str:
    if len(shape) == 4:
        return "NHWC" if shape[3] == 1 else "NCHW" if shape[1] == 1 else ""
    return {2: "HW" if scene else "", 3: "NHW"}.get(len(shape), "")


def _image_axes(shape: tuple[int, ...], name: str, reading: Reading | None, scene: bool) -> str:
    """Return the axes, as in ``NHWC``; empty where no layout is possible."""
    stated = reading.layout if reading is not None else ""
    if stated:
        if len(stated) != len(shape):
            raise InputError(f"--image-layout {stated}: {name} has shape {shape}: give one letter per axis")
        return stated
    if len(shape) == 2:
        return "HW" if scene else ""
    if len(shape) == 3:
        return _three(shape, name, reading)
    return _four(shape, name, reading) if len(shape) == 4 else ""


def _three(shape: tuple[int, ...], name: str, reading: Reading | None) -> str:
    """Tell a set of grey images from one image with its channels first or last, by what the members take."""
    ends = {"HWC": shape[2], "CHW": shape[0]}
    if reading is None or not any(1 < count <= FEW for count in ends.values()):
        return "NHW"
    taken = reading.taken()
    # Picked bands may come of any number of channels: then few are more likely than the length of a side.
    fitting = [
        axes
        for axes, count in ends.items()
        if 1 < count <= (MOST_CHANNELS if count in taken.counts else FEW) and taken.fits(count)
    ]
    if taken.fits(1):
        fitting.insert(0, "NHW")
    if len(fitting) > 1:
        raise _ambiguous(shape, name, fitting)
    return fitting[0] if fitting else "NHW"


def _four(shape: tuple[int, ...], name: str, reading: Reading | None) -> str:
    """Tell channels last from channels first: by their number, by what the members take, by what is usual."""
    counts = {axes: count for axes, count in (("NHWC", shape[3]), ("NCHW", shape[1])) if count <= MOST_CHANNELS}
    if len(counts) < 2:
        return next(iter(counts), "")
    taken: Taken | None = reading.taken() if reading is not None else None
    if taken is not None and taken.known:
        exact = [axes for axes, count in counts.items() if count in taken.counts]
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise _ambiguous(shape, name, exact)
        usual = [axes for axes, count in counts.items() if count in USUAL]
        if len(usual) == 1:
            # Too few channels for the picked bands is an error to tell, not a sign that a side holds the channels.
            return usual[0]
        counts = {axes: count for axes, count in counts.items() if taken.fits(count)} or counts
    usual = [axes for axes, count in counts.items() if count in USUAL]
    few = usual or [axes for axes, count in counts.items() if count <= FEW]
    if len(counts) == 1 or len(few) == 1 or (usual and not (taken and taken.known)):
        return (few or list(counts))[0]
    raise _ambiguous(shape, name, list(counts))


def _ambiguous(shape: tuple[int, ...], name: str, possible: list[str]) -> InputError:
    choices = " or ".join(f"--image-layout {axes}" for axes in possible)
    return InputError(f"{name} has shape {shape}, which can be {' or '.join(possible)}: add {choices}")

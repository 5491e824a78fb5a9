"""Views: members also run on the image turned, mirrored, shifted or resized; their maps are brought back and averaged.

The eight symmetries of a square grid are the group D4; a net whose maps turn with the image is equivariant (Cohen and
Welling: Group Equivariant Convolutional Networks, ICML 2016): for such a net they change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError, option
from engine.models.adapt.binary import LEAST_PROBABILITY, log_odds
from engine.models.adapt.class_map import FLOOR
from engine.models.adapt.size import Size, mirrored, resized
from engine.models.net import Net
from engine.models.prepare import input_size
from engine.utils.sides import told_size

# What is averaged over the views.
VIEW_MEANS = ("logits", "probabilities")
LEAST_SCALE, MOST_SCALE = 0.25, 4.0


@dataclass(frozen=True)
class View:
    """What a member sees in place of the image; without a change the image itself.

    Attributes:
        transpose: rows and columns change places.
        vertical: the rows are reversed, after the transposition.
        horizontal: the columns are reversed, after the transposition.
        shift: rows and columns by which the content moves down and right; the border is filled with its mirror image.
        scale: factor on both sides, by half-pixel bilinear interpolation (:mod:`engine.kernels.resize`).
    """

    transpose: bool = False
    vertical: bool = False
    horizontal: bool = False
    shift: Size = (0, 0)
    scale: float = 1.0

    @property
    def name(self) -> str:
        """Return its name in plans."""
        if self.scale != 1:
            return f"scale:{self.scale:g}"
        if self.shift != (0, 0):
            return f"shift:{self.shift[0]}:{self.shift[1]}"
        return next(name for name, view in D4.items() if view == self)

    @property
    def is_symmetry(self) -> bool:
        """Return whether it is of the group D4: pixels change places and none changes its value."""
        return self.shift == (0, 0) and self.scale == 1

    def sides(self, size: Size) -> Size:
        """Return the (height, width) of the view of an image of a size."""
        if self.scale != 1:
            height, width = (max(1, round(side * self.scale)) for side in size)
            return height, width
        return (size[1], size[0]) if self.transpose else size

    def of(self, pixels: NDArray) -> NDArray:
        """Return the view of raw images (batch, height, width, channels), of their dtype; whole numbers are rounded."""
        if self.scale != 1:
            planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
            found = resized(planes, self.sides((pixels.shape[1], pixels.shape[2]))).transpose(0, 2, 3, 1)
            return found.astype(pixels.dtype) if pixels.dtype.kind == "f" else np.rint(found).astype(pixels.dtype)
        if self.shift != (0, 0):
            rows, columns = (
                mirrored(np.arange(side) - by, side) for side, by in zip(pixels.shape[1:3], self.shift, strict=True)
            )
            return pixels[:, rows[:, None], columns]
        return self._reversed(pixels.swapaxes(1, 2) if self.transpose else pixels, 1)

    def add_to(self, total: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        """Add the maps of the view, brought back to the image.

        Args:
            total: float32 (..., height, width), added to; where the view does not show a pixel it stays.
            maps: float32 (..., *sides), C-contiguous.
        """
        if self.scale != 1:
            total += resized(maps, (total.shape[-2], total.shape[-1]))
        elif self.shift != (0, 0):
            here, there = self._shown((total.shape[-2], total.shape[-1]))
            total[..., here[0], here[1]] += maps[..., there[0], there[1]]
        else:
            back = self._reversed(maps, maps.ndim - 2)
            total += back.swapaxes(-1, -2) if self.transpose else back

    def _reversed(self, array: NDArray, rows: int) -> NDArray:
        cut = [slice(None)] * array.ndim
        for axis, backwards in ((rows, self.vertical), (rows + 1, self.horizontal)):
            if backwards:
                cut[axis] = slice(None, None, -1)
        return array[tuple(cut)]

    def _shown(self, size: Size) -> tuple[list[slice], list[slice]]:
        """Return the part of the image that a shifted view shows, and where it lies in the view."""
        here = [slice(max(0, -by), side - max(0, by)) for side, by in zip(size, self.shift, strict=True)]
        there = [slice(max(0, by), side + min(0, by)) for side, by in zip(size, self.shift, strict=True)]
        return here, there

    def count_on(self, counts: NDArray[np.float32]) -> None:
        """Add 1 where the view shows a pixel of the image, in place."""
        here, _ = self._shown((counts.shape[0], counts.shape[1]))
        counts[here[0], here[1]] += 1


PLAIN = View()
# In the order in which maps are added up.
D4 = {
    "plain": PLAIN,
    "horizontal": View(horizontal=True),
    "vertical": View(vertical=True),
    "rotate180": View(vertical=True, horizontal=True),
    "transpose": View(transpose=True),
    "rotate90": View(transpose=True, vertical=True),
    "rotate270": View(transpose=True, horizontal=True),
    "transverse": View(transpose=True, vertical=True, horizontal=True),
}
# Names of several views at once; the first four are those of the option that had mirror images alone.
SETS: dict[str, tuple[View, ...]] = {
    "none": (PLAIN,),
    "horizontal": (PLAIN, D4["horizontal"]),
    "vertical": (PLAIN, D4["vertical"]),
    "both": tuple(D4.values())[:4],
    "d4": tuple(D4.values()),
}
FLIPS = ("none", "horizontal", "vertical", "both")


def named_views(names: str | Sequence[str]) -> tuple[View, ...]:
    """Return the views of some names, the image itself first, each once, in an order of their own.

    Args:
        names: names, or one text of names with commas; nothing, ``none`` or ``plain`` for the image alone.

    Raises:
        PlanError: an unknown name or an impossible number; the message lists the names.
    """
    listed = names.split(",") if isinstance(names, str) else list(names)
    found = {PLAIN}
    for name in (item.strip() for item in listed):
        found.update(SETS.get(name, ()) or ((D4[name],) if name in D4 else () if not name else (_moved(name),)))
    order = list(D4.values())
    symmetries = [view for view in order if view in found]
    others = sorted((view for view in found if not view.is_symmetry), key=lambda view: (view.scale, view.shift))
    return (*symmetries, *others)


def _moved(name: str) -> View:
    shift = re.fullmatch(r"shift:([+-]?\d{1,4}):([+-]?\d{1,4})", name, re.ASCII)
    if shift is not None:
        return View(shift=(int(shift[1]), int(shift[2])))
    scale = re.fullmatch(r"scale:(\d{1,2}(?:\.\d{1,6})?)", name, re.ASCII)
    if scale is not None:
        if not LEAST_SCALE <= float(scale[1]) <= MOST_SCALE:
            raise PlanError(f"view {name}; allowed are factors from {LEAST_SCALE:g} to {MOST_SCALE:g}")
        return View(scale=float(scale[1]))
    known = ", ".join(dict.fromkeys((*SETS, *list(D4)[3:])))
    raise PlanError(f"unknown view {name[:40]!r}; allowed are {known}, shift:DOWN:RIGHT (pixels) and scale:FACTOR")


def told_views(views: Sequence[View]) -> str:
    """Return the views as one text that :func:`named_views` reads: the name of a set, or names with commas."""
    return next((name for name, held in SETS.items() if held == tuple(views)), "") or ",".join(
        view.name for view in views[1:]
    )


def check_views(net: Net, views: Sequence[View], size: Size) -> None:
    """Refuse views of images of a size that a net does not take.

    Args:
        net: the opened file.
        views: what it would also run on.
        size: (height, width) of the images.

    Raises:
        PlanError: naming the view and the net.
    """
    for view in views:
        if any(abs(by) >= side for by, side in zip(view.shift, size, strict=True)):
            raise PlanError(f"view {view.name} shows nothing of images of {told_size(size)}: shift by less")
        try:
            input_size(net.contract, view.sides(size))
        except InputError:
            fixed = net.contract.size
            own = "one size" if fixed is None else told_size(fixed)
            raise PlanError(
                f"view {view.name} makes {told_size(view.sides(size))} of {told_size(size)}, and {net.path.name} takes "
                f"{own} alone: leave that view out, or add {option('fit', 'pad')} (mirrored, window by window) or "
                f"{option('fit', 'resize')}"
            ) from None


def to_probabilities(maps: NDArray[np.float32], several: bool) -> None:
    """Turn logits (batch, classes, pixels) into probabilities in place.

    Args:
        maps: the logits.
        several: whether each class is decided against the rest, so that it has a sigmoid of its own: several labels
            a pixel, and sets of specialists.
    """
    if several:
        with np.errstate(over="ignore"):
            maps[:] = 1 / (1 + np.exp(-maps))
        return
    maps -= maps.max(axis=1, keepdims=True)
    np.exp(maps, out=maps)
    maps /= maps.sum(axis=1, keepdims=True)


def to_logits(maps: NDArray[np.float32], several: bool, missing: NDArray[np.bool_]) -> None:
    """Turn probabilities back into logits in place; a class without a score, ``missing``, has none again."""
    if several:
        maps[:] = log_odds(maps)
    else:
        np.log(np.maximum(maps, LEAST_PROBABILITY), out=maps)
    maps[missing] = FLOOR

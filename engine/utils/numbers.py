"""Numbers as they are reported: in JSON, and as speed."""

from __future__ import annotations

import math


def json_number(value: float, digits: int | None = 6) -> float | None:
    """Return a number that JSON can represent: None (null) for NaN and infinities.

    Args:
        value: the number.
        digits: decimal places to round to; None leaves it unchanged.
    """
    if not math.isfinite(value):
        return None
    return float(value) if digits is None else round(float(value), digits)


def images_per_second(images: float, workers: int, busy: float) -> float:
    """Return the images/s of workers that do nothing else; NaN where no time was measured.

    Args:
        images: number of images predicted.
        workers: parallel threads.
        busy: seconds spent on these images, summed over the threads.
    """
    return images * workers / busy if busy else math.nan

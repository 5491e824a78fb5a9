"""Numbers as they are told: in JSON, and as speed."""

from __future__ import annotations

import math


def json_number(value: float, digits: int | None = 6) -> float | None:
    """Return a number as JSON knows it: None (null) for NaN and infinities.

    Args:
        value: the number.
        digits: decimal places to round to; None keeps it as it is.
    """
    if not math.isfinite(value):
        return None
    return float(value) if digits is None else round(float(value), digits)


def images_per_second(images: float, workers: int, busy: float) -> float:
    """Return the images/s of workers that do nothing else; NaN where no time was measured.

    Args:
        images: how many were predicted.
        workers: threads side by side.
        busy: seconds all of them together spent on these images.
    """
    return images * workers / busy if busy else math.nan

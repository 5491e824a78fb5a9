"""Labels of two ways of running one ensemble: equal, or decided by float32 rounding."""

from __future__ import annotations

import numpy as np

from engine.inference.ensemble import Ensemble
from exporters.self_check import _tied
from exporters.tiles import tiles_source


def ties(ensemble: Ensemble, images: np.ndarray, expected: np.ndarray, got: np.ndarray) -> int:
    """Count the pixels with different labels; fail where rounding does not decide between the two.

    Args:
        ensemble: the members, opened.
        images: raw images (image, height, width) or (image, height, width, channel).
        expected: uint8 (image, height, width), the engine's.
        got: the same shape.
    """
    assert got.shape == expected.shape
    pixels = images if images.ndim == 4 else images[..., None]
    different = np.argwhere(got != expected)
    for image in np.unique(different[:, 0]):
        batch = next(tiles_source(pixels[image : image + 1]).batches(1))
        logits = ensemble.logits(batch, ensemble.variant.decoding.suppress)[0]
        for _, row, column in different[different[:, 0] == image]:
            place = row * expected.shape[2] + column
            labels = int(expected[image, row, column]), int(got[image, row, column])
            assert _tied(logits[:, 0, :, place], ensemble, *labels), f"image {image}, pixel {place}: {labels}"
    return len(different)

"""Labels that maximise the expected IoU or Dice of an image, in place of the argmax of each pixel (RankSEG-RMA).

B. Dai, C. Li: RankSEG: A Consistent Ranking-based Framework for Segmentation, Journal of Machine Learning Research 24,
2023; Z. Wang, B. Dai: RankSEG-RMA: An Efficient Segmentation Algorithm via Reciprocal Moment Approximation, NeurIPS
2025; with their package's defaults (classes whose probability nowhere exceeds 1/2 are given up, no smoothing).

Per class the pixels are ranked by probability; the best number of them is the one whose expected score is highest, with
the reciprocal of the union replaced by that of its mean. A pixel that several classes claim, or none, goes to the class
whose score gains most by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What --decode names, and which score the decoding is for; the first is none of these.
DECODES = ("argmax", "rankseg", "rankseg-dice")
# A class takes part where its probability exceeds this at a pixel.
LEAST = 0.5


def rankseg(probabilities: NDArray[np.float32], decode: str) -> NDArray[np.uint8]:
    """Return labels, one image after the other.

    Args:
        probabilities: float32 (batch, classes, pixels), 0 for suppressed classes, whole images.
        decode: ``rankseg`` for IoU, ``rankseg-dice`` for Dice.

    Returns:
        uint8 (batch, pixels).
    """
    is_dice = decode == "rankseg-dice"
    return np.stack([_image(image.astype(np.float64), is_dice) for image in probabilities])


def _image(p: NDArray[np.float64], is_dice: bool) -> NDArray[np.uint8]:
    """Decode (classes, pixels) probabilities of one image."""
    active = p.max(axis=1) > LEAST
    claimed = np.zeros(p.shape, np.bool_)
    for class_id in np.flatnonzero(active):
        claimed[class_id] = _claimed(p[class_id], is_dice)
    counts = claimed.sum(axis=0)
    gains = _gains(p, claimed & (counts == 1), is_dice)
    # Nobody's pixels go to any class that takes part; a suppressed class has no probability at all.
    possible = np.where(active.any(), active, (p > 0).any(axis=1))
    eligible = np.where(counts > 0, claimed, possible[:, None])
    return np.where(eligible, gains, -np.inf).argmax(axis=0).astype(np.uint8)


def _claimed(p: NDArray[np.float64], is_dice: bool) -> NDArray[np.bool_]:
    """Return the pixels of one class on its own: as many of the most probable ones as the expected score is best with.

    Of equally probable pixels the first are taken.
    """
    order = np.argsort(-p, kind="stable")
    sums, sizes, mean = np.cumsum(p[order]), np.arange(1, len(p) + 1), p.sum()
    scores = 2 * sums / (mean + sizes + 1) if is_dice else sums / (mean - sums + sizes)
    found = np.zeros(len(p), np.bool_)
    found[order[: int(scores.argmax()) + 1]] = True
    return found


def _gains(p: NDArray[np.float64], safe: NDArray[np.bool_], is_dice: bool) -> NDArray[np.float64]:
    """Return by how much each class's expected score grows with each pixel, (classes, pixels).

    Args:
        p: (classes, pixels).
        safe: the pixels that are the class's already.
        is_dice: whether the score is Dice.
    """
    held, size, mean = (p * safe).sum(axis=1), safe.sum(axis=1), p.sum(axis=1)
    if is_dice:
        below = (size + mean + 1)[:, None]
        return 2 / (below + 1) * (p - held[:, None] / below)
    below = (size + mean - held)[:, None]
    present = np.divide(held[:, None], below, out=np.zeros_like(below), where=below > 0)
    rest = 1 - p
    return np.divide(p - present * rest, below + rest, out=np.zeros_like(p), where=below + rest > 0)

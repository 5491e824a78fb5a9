"""Score and speed of an ONNX file, measured the way the engine runs it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import PlanError
from engine.metrics import Score
from engine.models.net import Net
from exporters.tiles import LabelledTiles

BATCH = 4
ROUNDS = 15
_TIMED_TILES = 16


@dataclass(frozen=True)
class Measured:
    """Two files on the same tiles.

    Attributes:
        before: MIoU of the first.
        after: MIoU of the second.
        ratio: images/s of the second over those of the first.
        images_per_second: of the second, on one thread.
        tiles: tiles scored.
    """

    before: float
    after: float
    ratio: float
    images_per_second: float
    tiles: int

    def __str__(self) -> str:
        """Return a one-line summary."""
        change = self.after - self.before
        return (
            f"speed x{self.ratio:.2f} ({self.images_per_second:,.0f} images/s on one CPU thread), "
            f"MIoU {self.before:.4f} -> {self.after:.4f} ({change:+.4f}) on {self.tiles} tiles"
        )


def logits_of(net: Net, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return float32 (tile, maps, height, width) of raw tiles (tile, height, width, channel): calibrated logits.

    Raises:
        ModelError: the runtime fails.
    """
    count, height, width = images.shape[:3]
    out = np.empty((count, net.maps, height * width), np.float32)
    for start in range(0, count, BATCH):
        batch = slice(start, start + BATCH)
        net.run(net.prepare(images[batch]), out[batch], (height, width))
    return out.reshape(count, -1, height, width)


def miou(net: Net, tiles: LabelledTiles) -> float:
    """Return the MIoU ``labelled`` of a net with its ignored class suppressed; NaN if no class can be scored.

    For one specialist it is the mean IoU of its class and the rest, over pixels not of the ignored class.

    Raises:
        ModelError: the runtime fails.
    """
    held = net.contract
    if held.kind == "multilabel":
        raise PlanError(f"{net.path}: a multi-label net has no MIoU over exclusive classes: keep the float32 file")
    classes = 2 if held.kind == "specialist" else len(held.classes)
    score = Score(classes, None if held.kind == "specialist" else held.ignored_class)
    for start in range(0, len(tiles), BATCH):
        batch = slice(start, start + BATCH)
        logits, truth = logits_of(net, tiles.images[batch]), tiles.labels[batch]
        if held.kind == "specialist":
            counted = truth != (-1 if held.ignored_class in (None, held.class_id) else held.ignored_class)
            predicted = (logits[:, 0] > 0)[counted].astype(np.uint8)
            score.update((truth == held.class_id)[counted].astype(np.uint8)[None], predicted[None])
            continue
        if held.ignored_class is not None:
            logits[:, held.ignored_class] = -np.inf
        score.update(truth, logits.argmax(axis=1).astype(np.uint8))
    return score.mean_iou("labelled" if held.kind != "specialist" else "all")


def speed(first: Net, second: Net, images: npt.NDArray[Any], rounds: int = ROUNDS) -> tuple[float, float]:
    """Time two files alternately on the same tiles, one thread each.

    Returns:
        Images/s of the second over those of the first (the median over the rounds, so that a machine whose speed drifts
        changes little), and images/s of the second.

    Raises:
        ModelError: the runtime fails.
    """
    chosen = images[:_TIMED_TILES]
    seconds: tuple[list[float], list[float]] = ([], [])
    fed = [
        [net.windows(net.prepare(chosen[i : i + BATCH])) for i in range(0, len(chosen), BATCH)]
        for net in (first, second)
    ]
    for turn in range(rounds + 1):
        for net, batches, taken in zip((first, second), fed, seconds, strict=True):
            began = perf_counter()
            for batch in batches:
                net.session.run(net.output_name, batch)
            if turn:  # the first round warms up
                taken.append(perf_counter() - began)
    ratio = statistics.median(slow / fast for slow, fast in zip(*seconds, strict=True))
    return ratio, len(chosen) / statistics.median(seconds[1])

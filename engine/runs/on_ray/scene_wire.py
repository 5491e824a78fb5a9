"""What an actor sends of a scene: one row of plain types for some rows of tiles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.inference.prediction import Variant
from engine.runs.scene_mask import Strip

# Decoded rows, and how many rows of tiles of the scene are finished with them.
Done = tuple[Strip, int | None]


def packed_strips(
    start: int, strips: Sequence[Done], asked: Sequence[Variant], member_seconds: Sequence[float]
) -> dict[str, Any]:
    """Return decoded rows as one row of a table.

    Args:
        start: index of the first row of tiles, over all scenes.
        strips: the decoded rows, from top to bottom.
        asked: the variants that were decoded.
        member_seconds: time inside each member's nets.
    """
    told, matrices = [], []
    for strip, done in strips:
        found = [index for index, variant in enumerate(asked) if variant in strip.confusion]
        matrices += [strip.confusion[asked[index]] for index in found]
        told.append(
            {
                "start": strip.start,
                "size": list(strip.labels.shape),
                "ties": int(strip.ties),
                "seconds": [strip.seconds.get(variant) for variant in asked],
                "confusion": found,
                "done": done,
            }
        )
    return {
        "start": start,
        "labels": b"".join(np.ascontiguousarray(strip.labels).tobytes() for strip, _ in strips),
        "confusion": np.array(matrices, "<i8").tobytes(),
        "told": json.dumps({"strips": told, "member_seconds": list(member_seconds)}),
        "error": "",
    }


def unpacked_strips(row: Mapping[str, Any], classes: int, asked: Sequence[Variant]) -> tuple[list[Done], list[float]]:
    """Return the decoded rows, and the time inside each member's nets.

    Args:
        row: the result of :func:`packed_strips` or :func:`engine.runs.on_ray.wire.failed`.
        classes: number of classes.
        asked: the variants the row was packed with.

    Raises:
        ModelError: the rows could not be predicted.
    """
    if row["error"]:
        raise ModelError(str(row["error"]))
    told, strips, at = json.loads(row["told"]), [], 0
    # Copies: what Ray hands out is read-only.
    labels = np.frombuffer(row["labels"], np.uint8).copy()
    matrices = iter(np.frombuffer(row["confusion"], "<i8").reshape(-1, 1, classes, classes).copy())
    for one in told["strips"]:
        height, width = one["size"]
        seconds = {variant: value for variant, value in zip(asked, one["seconds"], strict=True) if value is not None}
        confusion = {asked[index]: next(matrices) for index in one["confusion"]}
        rows = labels[at : at + height * width].reshape(height, width)
        strips.append((Strip(int(one["start"]), rows, one["ties"], confusion, seconds), one["done"]))
        at += height * width
    return strips, told["member_seconds"]

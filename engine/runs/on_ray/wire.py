"""What an actor sends to the run: one row of plain types per block."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.inference.prediction import Predicted, Variant


def failed(start: int, error: str) -> dict[str, Any]:
    """Return the row of a block that could not be predicted."""
    return {"start": start, "labels": b"", "confusion": b"", "told": "", "error": error}


def packed(start: int, parts: Sequence[Predicted], asked: Sequence[Variant], scored: bool) -> dict[str, Any]:
    """Return the predictions of a block's batches as one row.

    Args:
        start: index of the block's first image.
        parts: the batches, in order.
        asked: the ensemble's variant, then all others.
        scored: whether the batches contain confusion matrices.
    """
    whole = [part for part in parts if part.ids]
    told: dict[str, Any] = {
        "ids": [name for part in whole for name in part.ids],
        "skipped": [list(item) for part in parts for item in part.skipped],
        "member_seconds": _sums([part.member_seconds for part in whole]),
        "member_runs": _sums([part.member_runs for part in whole]),
        "variant_seconds": [sum(part.variant_seconds.get(variant, 0.0) for part in whole) for variant in asked],
        "clean_seconds": sum(part.clean_seconds for part in whole),
    }
    for name in ("ties", "compared", "agreed"):
        told[name] = sum(getattr(part, name) for part in whole)
    confusion = b""
    if scored and whole:
        matrices = [np.concatenate([part.confusion[variant] for part in whole]) for variant in asked]
        confusion = np.stack(matrices).astype("<i8").tobytes()
    labels = b"".join(np.ascontiguousarray(part.labels).tobytes() for part in whole)
    return {"start": start, "labels": labels, "confusion": confusion, "told": json.dumps(told), "error": ""}


def unpacked(row: Mapping[str, Any], pixels: int, classes: int, asked: Sequence[Variant]) -> Predicted:
    """Return the content of a row.

    Args:
        row: the result of :func:`packed` or :func:`failed`.
        pixels: size of a label map.
        classes: number of classes.
        asked: the variants the row was packed with.

    Raises:
        ModelError: the block could not be predicted.
    """
    if row["error"]:
        raise ModelError(str(row["error"]))
    told = json.loads(row["told"])
    done = Predicted(
        int(row["start"]),
        told["ids"],
        np.frombuffer(row["labels"], np.uint8).reshape(len(told["ids"]), pixels),
        member_seconds=told["member_seconds"],
        member_runs=told["member_runs"],
        variant_seconds=dict(zip(asked, told["variant_seconds"], strict=True)),
        skipped=[(int(index), str(name), str(reason)) for index, name, reason in told["skipped"]],
        **{name: told[name] for name in ("ties", "compared", "agreed", "clean_seconds")},
    )
    if row["confusion"]:
        matrices = np.frombuffer(row["confusion"], "<i8").reshape(len(asked), len(told["ids"]), classes, classes)
        done.confusion = dict(zip(asked, matrices, strict=True))
    return done


def _sums(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [sum(column) for column in zip(*rows, strict=True)]

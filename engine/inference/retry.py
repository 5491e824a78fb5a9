"""A failed batch is retried once; images that cannot be predicted are left out if the user allows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, ModelError, NotFiniteError
from engine.inference.prediction import BadImages, Predicted
from engine.sources.base import Batch

Truth = NDArray[np.uint8] | None
Work = Callable[[Batch, Truth], Predicted]


def attempt(
    work: Work, batch: Batch, truth: Truth, bad: BadImages | None = None, ended: threading.Event | None = None
) -> Predicted:
    """Predict a batch; retry once if a session fails; leave out bad images.

    Args:
        work: predicts a batch.
        batch: the images.
        truth: their true labels, uint8 (batch, pixels), or None.
        bad: records bad images; None if they are an error.
        ended: set once the batch is no longer needed; it is not retried then.

    Returns:
        The result of ``work`` for the good images, with the bad ones in ``skipped``.

    Raises:
        EngineError: ``work`` failed twice, or an image is bad and ``bad`` is None.
    """
    if bad is None:
        return _twice(work, batch, truth, ended)
    names = list(batch.ids)
    good = [at for at, name in enumerate(names) if bad.reason(name) is None]
    while True:
        if not good:
            done = Predicted(batch.start, [], np.empty((0, batch.size[0] * batch.size[1]), np.uint8))
            break
        part = Batch(batch.start, [names[at] for at in good], batch.pixels[good])
        try:
            done = _twice(work, part, None if truth is None else truth[good], ended)
            break
        except NotFiniteError as error:
            for position in error.positions:
                bad.add(names[good[position]], f"member {error.member} computes NaN or infinity")
            good = [at for position, at in enumerate(good) if position not in error.positions]
    left_out = [at for at in range(len(names)) if at not in good]
    skipped = [(batch.start + at, names[at], bad.reason(names[at]) or "") for at in left_out]
    return replace(done, start=batch.start, skipped=skipped)


def _twice(work: Work, batch: Batch, truth: Truth, ended: threading.Event | None) -> Predicted:
    try:
        return work(batch, truth)
    except NotFiniteError:
        raise
    except (ModelError, MemoryError, RuntimeError):
        if ended is not None and ended.is_set():
            raise
        # A session or its worker died: a permanent failure occurs again.
    try:
        return work(batch, truth)
    except EngineError as error:
        error.args = (f"{error} (tried twice, {_named(batch)})",)
        raise
    except (MemoryError, RuntimeError) as error:
        told: Any = str(error).strip() or type(error).__name__
        raise ModelError(f"predicting {_named(batch)} failed twice ({told}): try a smaller --batch-size") from None


def _named(batch: Batch) -> str:
    return f"image {batch.ids[0]}" if len(batch.ids) == 1 else f"images {batch.ids[0]} to {batch.ids[-1]}"

"""One run over a set of images: reading ahead, one worker per core, results in the images' order, bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.inference.batch_work import BatchWork
from engine.inference.early_exit import cheapest_first
from engine.inference.forward import Forward
from engine.inference.prediction import BadImages, Predicted
from engine.inference.retry import attempt
from engine.models.net import check_range
from engine.sources.base import Batch, Source
from engine.sources.labels import as_labels
from engine.utils.threads import Ahead, abandonable, in_order

# Two batches per worker in flight: no worker waits, and memory stays bounded.
IN_FLIGHT = 2

Fed = tuple[Batch, NDArray[np.uint8] | None]


@dataclass
class Stream:
    """One run; iterate over it once.

    Attributes:
        work: predicts one batch.
        images: the images to predict.
        labels: true label maps, or None.
        batch_size: images per batch.
        workers: threads.
        bad: records images that cannot be predicted, which are then left out; None if they are an error.
        read_seconds: processor time of reading so far.
    """

    work: BatchWork
    images: Source
    labels: Source | None
    batch_size: int
    workers: int
    bad: BadImages | None = None
    _reader: Ahead[Fed] | None = None
    _pool: ThreadPoolExecutor | None = None

    @property
    def ensemble(self) -> Forward:
        """Return the members and how they are fused."""
        return self.work.ensemble

    @property
    def read_seconds(self) -> float:
        """Return the processor time of reading so far."""
        return self._reader.seconds if self._reader is not None else 0.0

    def __iter__(self) -> Iterator[Predicted]:
        """Yield the batches' predictions in the images' order.

        Raises:
            EngineError: images or labels that do not match, or a member that fails.
        """
        self._reader = Ahead(self._fed(), self.workers)
        try:
            with abandonable(self.workers, "maskfuse") as pool:
                self._pool = pool
                try:
                    yield from in_order(self._submitted(pool, self._reader), IN_FLIGHT * self.workers)
                except (KeyboardInterrupt, SystemExit):
                    self.ensemble.interrupt()
                    if self.work.device is not None:
                        self.work.device.stop()
                    raise
                finally:
                    self.work.ended.set()
        finally:
            self.ensemble.resume()
            if self.work.device is not None:
                self.work.device.resume()

    def wait(self) -> None:
        """Wait for the batches in progress after the iteration was left in the middle."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submitted(self, pool: ThreadPoolExecutor, fed: Iterable[Fed]) -> Iterator[Future[Predicted]]:
        for batch, truth in fed:
            if batch.start == 0:
                check_range(batch.pixels, self.ensemble.nets)
            if self.work.early_exit is not None and not self.work.order:
                # Only the time matters; on the first image itself a member might compute NaN.
                blank = Batch(0, batch.ids[:1], np.zeros_like(batch.pixels[:1]))
                self.work.order = cheapest_first(self.ensemble, blank)
            yield pool.submit(attempt, self.work, batch, truth, self.bad, self.work.ended)

    def _fed(self) -> Iterator[Fed]:
        truths = self.labels.batches(self.batch_size) if self.labels is not None else None
        for batch in self.images.batches(self.batch_size):
            truth = None
            if truths is not None and self.labels is not None:
                truth = as_labels(next(truths), len(self.ensemble.classes), self.labels.name)
            yield batch, truth

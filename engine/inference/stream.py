"""One run over a set of images: reading ahead, one worker per core, results in the images' order, bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engine.fusion.doubt import covered, withhold
from engine.fusion.evidence import Evidence
from engine.fusion.regions import cleaned
from engine.inference.device import DeviceFusion
from engine.inference.early_exit import EarlyExit, cheapest_first, run_early
from engine.inference.forward import Forward
from engine.inference.prediction import BadImages, Predicted, Variant
from engine.inference.retry import attempt
from engine.metrics import confusion_matrices
from engine.models.net import check_range
from engine.sources.base import Batch, Source
from engine.sources.labels import as_labels
from engine.utils.threads import Ahead, abandonable, in_order

# With an approximate early exit, one batch in this many is also predicted by all members, to measure the agreement.
CHECK_EVERY = 16
# Two batches per worker in flight: no worker waits, and memory stays bounded.
IN_FLIGHT = 2

Fed = tuple[Batch, NDArray[np.uint8] | None]


@dataclass
class Stream:
    """One run; iterate over it once.

    Attributes:
        ensemble: the members and how they are fused.
        images: the images to predict.
        labels: true label maps, or None.
        variants: additional variants to score.
        batch_size: images per batch.
        workers: threads.
        bad: records images that cannot be predicted, which are then left out; None if they are an error.
        early_exit: when an image is done before all members ran on it; None for never.
        device: runs batches through one graph, see :mod:`engine.inference.device`; None for the members' own sessions
            and the CPU's kernels, which variants, early exit and evidence need.
        evidence: what to show for the labels; None for nothing.
        read_seconds: processor time of reading so far.
    """

    ensemble: Forward
    images: Source
    labels: Source | None
    variants: Sequence[Variant]
    batch_size: int
    workers: int
    bad: BadImages | None = None
    early_exit: EarlyExit | None = None
    device: DeviceFusion | None = None
    evidence: Evidence | None = None
    _ended: threading.Event = field(default_factory=threading.Event)
    _reader: Ahead[Fed] | None = None
    _pool: ThreadPoolExecutor | None = None

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
                    if self.device is not None:
                        self.device.stop()
                    raise
                finally:
                    self._ended.set()
        finally:
            self.ensemble.resume()
            if self.device is not None:
                self.device.resume()

    def wait(self) -> None:
        """Wait for the batches in progress after the iteration was left in the middle."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submitted(self, pool: ThreadPoolExecutor, fed: Iterable[Fed]) -> Iterator[Future[Predicted]]:
        order: list[int] = []
        for batch, truth in fed:
            if batch.start == 0:
                check_range(batch.pixels, self.ensemble.nets)
            if self.early_exit is not None and not order:
                # Only the time matters; on the first image itself a member might compute NaN.
                order = cheapest_first(self.ensemble, Batch(0, batch.ids[:1], np.zeros_like(batch.pixels[:1])))
            work = partial(self._work, order=order)
            yield pool.submit(attempt, work, batch, truth, self.bad, self._ended)

    def _fed(self) -> Iterator[Fed]:
        truths = self.labels.batches(self.batch_size) if self.labels is not None else None
        for batch in self.images.batches(self.batch_size):
            truth = None
            if truths is not None and self.labels is not None:
                truth = as_labels(next(truths), len(self.ensemble.classes), self.labels.name)
            yield batch, truth

    def _work(self, batch: Batch, truth: NDArray[np.uint8] | None, order: list[int]) -> Predicted:
        ensemble = self.ensemble
        if self.early_exit is not None:
            return self._work_early(batch, truth, self.early_exit, order)
        if self.device is not None:
            return self._work_on_device(batch, truth, self.device)
        # Without suppression first: decoding a suppressed variant overwrites the specialists' logits.
        asked = sorted({ensemble.variant, *self.variants}, key=lambda variant: bool(variant.decoding.suppress))
        skip = frozenset.intersection(*(variant.decoding.suppress for variant in asked))
        logits, seconds = ensemble.logits(batch, skip, self._ended)
        runs = [len(batch.ids)] * len(ensemble.members)
        done = Predicted(batch.start, batch.ids, np.empty((0, 0), np.uint8), member_seconds=seconds, member_runs=runs)
        for variant in asked:
            began = perf_counter()
            evidence = self.evidence if variant == ensemble.variant else None
            labels, ties, shown = ensemble.explain(logits, variant, batch.size, evidence, clean=ensemble.is_multilabel)
            fused = perf_counter()
            if not ensemble.is_multilabel:
                labels = cleaned(labels, variant.decoding, batch.size)
            ended = perf_counter()
            if variant == ensemble.variant:
                done.labels, done.ties, done.shown = withhold(labels, shown.unknown), ties, replace(shown, unknown=None)
                done.clean_seconds = ended - fused
            done.variant_seconds[variant] = ended - began
            if truth is not None:
                # Strategies are compared on all pixels; unknown ones are no labels of the ensemble's own.
                done.confusion[variant] = confusion_matrices(truth, labels, len(ensemble.classes))
                if shown.unknown is not None:
                    done.covered = confusion_matrices(truth, covered(done.labels), len(ensemble.classes))
        return done

    def _work_on_device(self, batch: Batch, truth: NDArray[np.uint8] | None, device: DeviceFusion) -> Predicted:
        ensemble, own = self.ensemble, self.ensemble.variant
        found = device.run(batch)
        began = perf_counter()
        # A multi-label ensemble has several maps an image, each cleaned by itself.
        maps = found.labels.reshape(-1, batch.size[0] * batch.size[1])
        labels = cleaned(maps, own.decoding, batch.size).reshape(found.labels.shape)
        members = len(ensemble.members)
        done = Predicted(batch.start, batch.ids, labels, found.ties, member_runs=[len(batch.ids)] * members)
        # One graph does not tell its members apart: their sum counts.
        done.member_seconds = [(found.upload_seconds + found.run_seconds) / members] * members
        done.clean_seconds = perf_counter() - began
        done.variant_seconds[own] = found.copy_seconds + done.clean_seconds
        if truth is not None:
            done.confusion[own] = confusion_matrices(truth, labels, len(ensemble.classes))
        return done

    def _work_early(
        self, batch: Batch, truth: NDArray[np.uint8] | None, early: EarlyExit, order: list[int]
    ) -> Predicted:
        began = perf_counter()
        ensemble, own = self.ensemble, self.ensemble.variant
        raw, runs, seconds = run_early(ensemble, batch, early, order)
        labels = cleaned(raw, own.decoding, batch.size)
        done = Predicted(batch.start, batch.ids, labels, member_seconds=seconds, member_runs=runs)
        done.variant_seconds[own] = perf_counter() - began - sum(seconds)
        if truth is not None:
            done.confusion[own] = confusion_matrices(truth, labels, len(ensemble.classes))
        if early.agreement < 1 and batch.start // len(batch.ids) % CHECK_EVERY == 0:
            logits, _ = ensemble.logits(batch, own.decoding.suppress, self._ended)
            full, _ = ensemble.decode(logits, own, batch.size)
            done.compared, done.agreed = full.size, int((full == labels).sum())
        return done

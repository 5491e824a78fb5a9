"""One batch in the calling thread: members, fusion, decoding and clean-up, by whichever way an ensemble runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engine.fusion.doubt import covered, withhold
from engine.fusion.evidence import Evidence
from engine.fusion.regions import cleaned
from engine.inference.device import DeviceFusion
from engine.inference.early_exit import EarlyExit, run_early
from engine.inference.forward import Forward
from engine.inference.prediction import Predicted, Variant
from engine.metrics import confusion_matrices
from engine.sources.base import Batch

# With an approximate early exit, one batch in this many is also predicted by all members, to measure the agreement.
CHECK_EVERY = 16


@dataclass
class BatchWork:
    """Predicts batches, each in the thread that asks for it; any number of threads may.

    Attributes:
        ensemble: the members and how they are fused.
        variants: additional variants to score.
        early_exit: when an image is done before all members ran on it; None for never.
        device: runs batches through one graph, see :mod:`engine.inference.device`; None for the members' own sessions
            and the CPU's kernels, which variants, early exit and evidence need.
        evidence: what to show for the labels; None for nothing.
        order: the members, fastest first, for early exit.
        ended: once set, a batch is cancelled before its next member.
    """

    ensemble: Forward
    variants: Sequence[Variant] = ()
    early_exit: EarlyExit | None = None
    device: DeviceFusion | None = None
    evidence: Evidence | None = None
    order: Sequence[int] = ()
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, batch: Batch, truth: NDArray[np.uint8] | None = None) -> Predicted:
        """Predict a batch, and score it if its true labels, uint8 (batch, pixels), are given.

        Raises:
            EngineError: images or members that fail.
            CancelledError: the run ended.
        """
        ensemble = self.ensemble
        if self.early_exit is not None:
            return self._early(batch, truth, self.early_exit)
        if self.device is not None:
            return self._on_device(batch, truth, self.device)
        # Without suppression first: decoding a suppressed variant overwrites the specialists' logits.
        asked = sorted({ensemble.variant, *self.variants}, key=lambda variant: bool(variant.decoding.suppress))
        skip = frozenset.intersection(*(variant.decoding.suppress for variant in asked))
        logits, seconds = ensemble.logits(batch, skip, self.ended)
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

    def _on_device(self, batch: Batch, truth: NDArray[np.uint8] | None, device: DeviceFusion) -> Predicted:
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

    def _early(self, batch: Batch, truth: NDArray[np.uint8] | None, early: EarlyExit) -> Predicted:
        began = perf_counter()
        ensemble, own = self.ensemble, self.ensemble.variant
        raw, runs, seconds = run_early(ensemble, batch, early, list(self.order))
        labels = cleaned(raw, own.decoding, batch.size)
        done = Predicted(batch.start, batch.ids, labels, member_seconds=seconds, member_runs=runs)
        done.variant_seconds[own] = perf_counter() - began - sum(seconds)
        if truth is not None:
            done.confusion[own] = confusion_matrices(truth, labels, len(ensemble.classes))
        if early.agreement < 1 and batch.start // len(batch.ids) % CHECK_EVERY == 0:
            logits, _ = ensemble.logits(batch, own.decoding.suppress, self.ended)
            full, _ = ensemble.decode(logits, own, batch.size)
            done.compared, done.agreed = full.size, int((full == labels).sum())
        return done

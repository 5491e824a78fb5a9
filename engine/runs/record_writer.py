"""Hands records of a run on to the writers of masks, scores, doubt and the table."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.fusion.doubt import covered
from engine.fusion.evidence import Shown
from engine.inference.records import layout_of
from engine.metrics import confusion_matrices
from engine.outputs.base import MaskWriter
from engine.outputs.blocks import BlockWriter
from engine.outputs.maps import open_maps_writer
from engine.runs.evidence_files import EvidenceFiles
from engine.runs.image_table import ImageTable, MeanEvidence
from engine.sources.labels import as_labels

if TYPE_CHECKING:
    from typing import Any

    from engine.runs.image_job import Job

# True labels are read this many at a time.
TRUTHS = 64


class RecordWriter:
    """Splits records and hands their parts on; takes the place of the writer of masks."""

    def __init__(
        self,
        job: Job,
        masks: MaskWriter,
        mask_ids: Sequence[str],
        maps: Sequence[MaskWriter],
        table: ImageTable | None,
        left_out: Collection[int],
    ) -> None:
        """Take writers that are open.

        Args:
            job: the checked job.
            masks: takes the labels.
            mask_ids: the names of all its masks.
            maps: take scores and doubt, those that are asked for, in this order.
            table: takes one row per image; None for none.
            left_out: indices of images that are missing.
        """
        ensemble = job.ensemble
        self._job, self._masks, self._mask_ids, self._table = job, masks, mask_ids, table
        self._maps, self._placed = maps, 0
        pixels = int(np.prod(job.images.size))
        self.layout = layout_of(job.files.evidence, len(ensemble.classes), pixels, ensemble.masks_per_image)
        self._coded = None if ensemble.is_multilabel else ensemble.coding.output_table
        scored = table is not None and job.labels is not None
        self._truths = _true_labels(job, left_out) if scored else None

    def write(self, ids: Sequence[str], records: NDArray[np.uint8]) -> None:
        """Take uint8 (some, bytes) records of images.

        Raises:
            EngineError: a writer fails, or true labels do not fit.
        """
        labels, shown = self.layout.split(records)
        own = labels.reshape(-1, int(np.prod(self._masks.size)))
        names = self._mask_ids[self._placed : self._placed + len(own)]
        self._placed += len(own)
        self._masks.write(names, own if self._coded is None else self._coded[own])
        values = [part for part in (shown.scores, shown.doubt) if part is not None]
        for writer, part in zip(self._maps, values, strict=True):
            writer.write(ids, part)
        if self._table is not None:
            for index, name in enumerate(ids):
                self._row(self._table, name, labels[index], shown, index)

    def _row(self, table: ImageTable, name: str, labels: NDArray[np.uint8], shown: Shown, index: int) -> None:
        ensemble = self._job.ensemble
        classes = len(ensemble.classes)
        means = MeanEvidence(self._job.files.evidence)
        scores = None if shown.scores is None else shown.scores[index].reshape(classes, -1)
        pixels = int(np.prod(self._job.images.size))
        means.add(labels[:pixels], Shown(scores, None if shown.doubt is None else shown.doubt[index]))
        if ensemble.is_multilabel:
            counts = labels.reshape(classes, -1).sum(axis=1, dtype=np.int64)
        else:
            counts = np.bincount(labels, minlength=classes)[:classes]
        known = labels if ensemble.unknown is None else covered(labels)
        truth = next(self._truths) if self._truths is not None else None
        confusion = None if truth is None else confusion_matrices(truth[None], known[None], classes)[0]
        table.row(name, counts, means.values, confusion, pixels)


def _true_labels(job: Job, left_out: Collection[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield the true labels of the images that are written, uint8 (pixels,), in order."""
    assert job.labels is not None
    at = 0
    for batch in job.labels.batches(TRUTHS):
        for row in as_labels(batch, len(job.ensemble.classes), job.labels.name):
            if at not in left_out:
                yield row.reshape(-1)
            at += 1


@contextlib.contextmanager
def record_feed(
    job: Job,
    files: EvidenceFiles,
    writer: MaskWriter,
    mask_ids: Sequence[str],
    ids: Sequence[str],
    left_out: Collection[int],
    record: dict[str, Any],
) -> Iterator[BlockWriter]:
    """Open the writers of all that is asked for beside masks, and yield what takes the records of the run.

    Args:
        job: the checked job.
        files: where to write.
        writer: the open writer of masks.
        mask_ids: the names of its masks.
        ids: the names of the images.
        left_out: indices of images that are missing.
        record: what stands beside each file.

    Raises:
        OutputError: a file cannot be written.
    """
    ensemble = job.ensemble
    with contextlib.ExitStack() as stack:
        maps = [
            stack.enter_context(
                open_maps_writer(path, ids, job.images.size, held, {**record, **held.record}, job.places)
            )
            for path, held in files.maps(ensemble.classes).items()
        ]
        table = None
        if files.per_image is not None:
            scored, places = job.labels is not None, job.places
            facts = ensemble.classes, ensemble.ignored_class, len(ids), files.evidence
            table = ImageTable(files.per_image, *facts, scored, ensemble.unknown is not None, places)
            stack.enter_context(table.writer)
        writes = RecordWriter(job, writer, mask_ids, maps, table, left_out)
        yield BlockWriter(writes, ids, writes.layout.bytes)

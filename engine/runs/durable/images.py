"""Resumable runs over images: finished label maps are stored in shards, and ``--resume`` continues after them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.fusion.evidence import Evidence
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Predicted, Variant
from engine.inference.records import layout_of
from engine.runs.durable.checkpoint import Checkpoint
from engine.runs.durable.shards import MOST_BYTES, MOST_IMAGES, read_shard, shard_path
from engine.runs.outcome import Outcome, from_entry, to_entry

# A slow run seals a shard after this many seconds, however few images it contains.
MOST_SECONDS = 10.0


class DurableRun(Checkpoint):
    """One run on one output: records finished batches, and reads them back.

    Attributes:
        outcome: the outcome of earlier runs.
    """

    def __init__(
        self, output: Path, ensemble: Ensemble, variants: Sequence[Variant], header: Mapping[str, Any], resume: bool
    ) -> None:
        """Take the lock on the output and determine what is finished.

        Args:
            output: the output.
            ensemble: the ensemble that predicts.
            variants: additional variants to score.
            header: identifies the run, see :func:`engine.runs.provenance.run_header`.
            resume: continue an interrupted run.

        Raises:
            OutputError: see :class:`engine.runs.durable.checkpoint.Checkpoint`.
            PlanError: the interrupted run was a different one.
        """
        self._ensemble = ensemble
        self._variants = list(dict.fromkeys((ensemble.variant, *variants)))
        # Bytes of a record: masks, and what is shown for them.
        pixels, masks = int(np.prod(header["size"][-2:])), ensemble.masks_per_image
        self._pixels = layout_of(Evidence(**header.get("evidence", {})), len(ensemble.classes), pixels, masks).bytes
        self.outcome = Outcome.empty(ensemble)
        super().__init__(output, header, resume)

    def _bytes(self, entry: Mapping[str, Any]) -> int:
        return int(entry["outcome"]["images"]) * self._pixels

    def _adopt(self, entry: Mapping[str, Any], number: int) -> None:
        self.outcome.add(from_entry(entry["outcome"], self._variants, self._ensemble))

    def _begin(self) -> None:
        self._part = Outcome.empty(self._ensemble)

    def _entry(self) -> dict[str, Any]:
        return {"outcome": to_entry(self._part, self._variants)}

    def record(self, part: Predicted) -> None:
        """Record a finished batch, the next one in order.

        Raises:
            OutputError: the disk refuses.
        """
        shard = self._write(part.record)
        self._part.count(part, self._ensemble)
        images = self._part.images + len(self._part.skipped)
        full = shard.bytes >= MOST_BYTES or images >= MOST_IMAGES
        if full or monotonic() - self._since > MOST_SECONDS:
            self.seal()

    def replay(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the records of all sealed shards in order, uint8 (some, bytes); without the skipped images.

        Raises:
            OutputError: a shard cannot be read.
        """
        for number in range(len(self._shards)):
            try:
                yield from read_shard(shard_path(self.folder, number), self._pixels)
            except OSError as error:
                raise OutputError(f"cannot read {self.folder} ({error.strerror or error}): check the disk") from None

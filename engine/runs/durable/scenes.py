"""Resumable runs over scenes: finished rows of masks are stored in shards; ``--resume`` continues at scene and row.

The stored labels are those before the clean-up of small regions, which needs the whole mask and is done again. A shard
ends at the end of a row of tiles, so that each strip of a scene is fused in the same parts as in an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.fusion.evidence import Evidence
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.inference.records import layout_of
from engine.runs.durable.checkpoint import Checkpoint
from engine.runs.durable.shards import MOST_BYTES, READ_BYTES, shard_path
from engine.runs.scene_mask import Strip

# A shard is full at this many tiles, or at the limits of engine.runs.durable.shards.
MOST_TILES = 4096
MOST_SECONDS = 10.0


@dataclass(frozen=True)
class _Piece:
    """Rows of one scene in one shard.

    Attributes:
        shard: number of the shard.
        offset: offset of its labels there, in bytes.
        told: its entry in the journal.
    """

    shard: int
    offset: int
    told: Mapping[str, Any]


class DurableScenes(Checkpoint):
    """One run on one output: records finished rows of tiles, and reads them back.

    Attributes:
        member_seconds: time inside each member's nets before this run began.
    """

    noun = "tiles"

    def __init__(
        self,
        output: Path,
        ensemble: Ensemble,
        variants: Sequence[Variant],
        sizes: Sequence[tuple[int, int]],
        header: Mapping[str, Any],
        resume: bool,
    ) -> None:
        """Take the lock on the output and determine what is finished.

        Args:
            output: the output.
            ensemble: the ensemble that predicts.
            variants: additional variants to score.
            sizes: (height, width) of the scenes.
            header: identifies the run, see :func:`engine.runs.provenance.scenes_header`.
            resume: continue an interrupted run.

        Raises:
            OutputError: see :class:`engine.runs.durable.checkpoint.Checkpoint`.
            PlanError: the interrupted run was a different one.
        """
        self._variants = list(dict.fromkeys((ensemble.variant, *variants)))
        self._sizes = sizes
        evidence, classes = Evidence(**header.get("evidence", {})), len(ensemble.classes)
        # A record is a row of a scene: its labels, and what is shown for them.
        unknown = ensemble.unknown is not None
        self._layouts = [layout_of(evidence, classes, width, unknown=unknown) for _, width in sizes]
        self._pieces: dict[int, list[_Piece]] = {}
        self.member_seconds = [0.0] * len(ensemble.members)
        self._seen = self._now = list(self.member_seconds)
        super().__init__(output, header, resume)

    def _bytes(self, entry: Mapping[str, Any]) -> int:
        return sum(piece["rows"] * self._layouts[piece["scene"]].bytes for piece in entry["pieces"])

    def _adopt(self, entry: Mapping[str, Any], number: int) -> None:
        offset = 0
        for told in entry["pieces"]:
            self._pieces.setdefault(told["scene"], []).append(_Piece(number, offset, told))
            offset += told["rows"] * self._layouts[told["scene"]].bytes
        before = self.member_seconds
        self.member_seconds = [a + b for a, b in zip(before, entry["member_seconds"], strict=True)]

    def _begin(self) -> None:
        self._part: list[dict[str, Any]] = []
        self._tiles = 0
        self._waiting: list[Strip] = []

    def _entry(self) -> dict[str, Any]:
        seconds = [now - before for now, before in zip(self._now, self._seen, strict=True)]
        self._seen = self._now
        return {"tiles": self._tiles, "pieces": self._part, "member_seconds": seconds}

    def rows_done(self, scene: int) -> int:
        """Return how many rows of tiles of a scene are in sealed shards."""
        return int(self._pieces[scene][-1].told["done"]) if scene in self._pieces else 0

    def add(self, strip: Strip) -> None:
        """Add decoded rows; they are stored once their row of tiles is finished."""
        self._waiting.append(strip)

    def finish_row(self, scene: int, done: int, tiles: int, member_seconds: Sequence[float]) -> None:
        """Store the added rows: a row of tiles is finished.

        Args:
            scene: index of the scene.
            done: number of its finished rows of tiles.
            tiles: number of tiles in this row.
            member_seconds: time inside each member's nets so far.

        Raises:
            OutputError: the disk refuses.
        """
        strips, self._waiting = self._waiting, []
        # Together: of a row that does not fit on the disk, no part is kept.
        shard = self._write(np.concatenate([strip.record for strip in strips]))
        told = self._piece(scene)
        told["done"] = done
        for strip in strips:
            told["rows"] += len(strip.labels)
            told["ties"] += strip.ties
            for index, variant in enumerate(self._variants):
                if variant in strip.seconds:
                    told["seconds"][index] += strip.seconds[variant]
                if variant in strip.confusion:
                    old = np.array(told["confusion"][index] or 0)
                    told["confusion"][index] = (old + strip.confusion[variant]).tolist()
        self._tiles += tiles
        self._now = list(member_seconds)
        full = shard.bytes >= MOST_BYTES or self._tiles >= MOST_TILES
        if full or monotonic() - self._since > MOST_SECONDS:
            self.seal()

    def _piece(self, scene: int) -> dict[str, Any]:
        if not self._part or self._part[-1]["scene"] != scene:
            count = len(self._variants)
            empty = {"rows": 0, "ties": 0, "done": 0, "seconds": [0.0] * count, "confusion": [None] * count}
            self._part.append({"scene": scene, **empty})
        return self._part[-1]

    def strips(self, scene: int) -> Iterator[Strip]:
        """Yield the rows of a scene in sealed shards, from top to bottom, as they were added.

        Raises:
            OutputError: a shard cannot be read.
        """
        start, layout = 0, self._layouts[scene]
        step = max(1, READ_BYTES // layout.bytes)
        for piece in self._pieces.get(scene, []):
            # Once per piece: the counts over all its rows.
            seconds = dict(zip(self._variants, piece.told["seconds"], strict=True))
            held = zip(self._variants, piece.told["confusion"], strict=True)
            confusion = {variant: np.array(found, np.int64) for variant, found in held if found is not None}
            ties = int(piece.told["ties"])
            for first in range(0, piece.told["rows"], step):
                count = min(step, piece.told["rows"] - first)
                data = self._read(piece.shard, piece.offset + first * layout.bytes, count * layout.bytes)
                labels, shown = layout.split(data)
                yield Strip(start, labels, ties, confusion, seconds, shown)
                start, ties, confusion, seconds = start + count, 0, {}, {}

    def _read(self, number: int, offset: int, count: int) -> NDArray[np.uint8]:
        try:
            with shard_path(self.folder, number).open("rb") as stream:
                stream.seek(offset)
                data = stream.read(count)
        except OSError as error:
            raise OutputError(f"cannot read {self.folder} ({error.strerror or error}): check the disk") from None
        if len(data) != count:
            raise OutputError(f"cannot read {self.folder} (a shard is truncated): check the disk")
        return np.frombuffer(data, np.uint8)

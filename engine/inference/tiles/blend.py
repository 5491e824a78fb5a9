"""Predicts scenes of any size tile by tile; the logits of overlapping tiles are blended before they are fused.

Each member's logits are blended by themselves, so every strategy sees what it would see of a whole scene. One row of
tiles is held at a time: rows of the mask come out as soon as no further tile touches them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.inference.ensemble import Ensemble
from engine.inference.tiles.grid import Axis, Tiling
from engine.inference.tiles.memory import IN_FLIGHT, MOST_FUSED_BYTES
from engine.inference.tiles.rows import TileRow, tile_row
from engine.sources.base import Batch
from engine.sources.scene import Scene
from engine.sources.strips import Strips
from engine.utils.threads import in_order


@dataclass(frozen=True)
class Blended:
    """Logits of some finished rows of a scene.

    Attributes:
        start: the first row.
        logits: float32 (members, 1, classes, pixels), C-contiguous, in the ensemble's internal order of members.
        size: (rows, width).
        done: rows of tiles that are finished with these; None where more of the same row of tiles follow.
        valid: bool (rows, width): which pixels hold data; None where all do. The logits of the others mean nothing.
    """

    start: int
    logits: NDArray[np.float32]
    size: tuple[int, int]
    done: int | None = None
    valid: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class _Tiles:
    """Some tiles of one row, from left to right.

    Attributes:
        batch: their pixels, and where they are, for messages.
        row: which row of tiles.
        columns: which tiles of it; none where the whole row holds no data.
        weights: float32 (tiles, height, width), how much each pixel counts.
        valid: bool (height, scene's width): which pixels of the row hold data; None where all do.
        ends_row: whether no tile of this row follows.
        passed: tiles of the row without data, left out; counted with its last ones.
    """

    batch: Batch
    row: int
    columns: Sequence[int]
    weights: NDArray[np.float32]
    valid: NDArray[np.bool_] | None
    ends_row: bool
    passed: int


@dataclass
class TiledRun:
    """Runs an ensemble over scenes with one pool of workers; use it as a context.

    Attributes:
        ensemble: the members.
        tiling: how scenes are cut.
        skip: classes whose specialists need not run.
        batch_size: tiles a worker takes at a time.
        workers: threads.
        member_seconds: time inside each member's nets so far, summed over workers.
    """

    ensemble: Ensemble
    tiling: Tiling
    skip: Collection[int]
    batch_size: int
    workers: int
    member_seconds: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Start the workers."""
        self.member_seconds = [0.0] * len(self.ensemble.members)
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="maskfuse-tiles")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="maskfuse-rows")

    def __enter__(self) -> TiledRun:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop the workers; after an error the runs under way are given up."""
        self._ended.set()
        if kind is not None:
            self.ensemble.interrupt()
        # A scene may be closed once this is left: nothing reads it any more.
        for pool in (self._pool, self._reader):
            pool.shutdown(wait=True, cancel_futures=True)
        self.ensemble.resume()

    def blended(
        self,
        scene: Scene,
        advance: Callable[[int], object] = lambda count: None,
        done: int = 0,
        until: int | None = None,
    ) -> Iterator[Blended]:
        """Yield the blended logits of a scene from top to bottom.

        Args:
            scene: what to predict.
            advance: called with the number of tiles each time some are done.
            done: rows of tiles that are finished already: what they yielded is left out. Those of them that reach into
                the rows to come are predicted again, so these come out the same to the last bit.
            until: the row of tiles to stop before; None for none.

        Raises:
            EngineError: the scene turns out to be damaged, or a member fails.
        """
        rows, columns = self.tiling.axes(scene.size)
        shape = (len(self.ensemble.members), len(self.ensemble.classes), rows.tile, columns.starts[-1] + columns.tile)
        held = np.zeros(shape, np.float32)
        first = next(row for row, start in enumerate(rows.starts) if start + rows.tile > rows.starts[done])
        for tiles, logits in self._predicted(self._cut(scene, rows, columns, first, until)):
            for index, column in enumerate(tiles.columns):
                start = columns.starts[column]
                held[..., start : start + columns.tile] += logits[:, index]
            if tiles.row >= done:
                advance(len(tiles.columns) + tiles.passed)
            if tiles.ends_row:
                if tiles.row >= done:
                    yield from _finished(held, rows, tiles.row, scene.size[1], tiles.valid)
                _move_up(held, rows.finished(tiles.row) - rows.starts[tiles.row])

    def _cut(self, scene: Scene, rows: Axis, columns: Axis, first_row: int, until: int | None) -> Iterator[_Tiles]:
        """Yield the tiles that hold data, row by row; the pixels of the next row are read meanwhile."""
        strips = Strips(scene)

        def read(row: int) -> TileRow:
            return tile_row(strips, rows, row, columns)

        strip_calls = (self._reader.submit(read, row) for row in range(first_row, until or len(rows.starts)))
        for row, wide in enumerate(in_order(strip_calls, 1), first_row):
            kept, valid = wide.columns_with_data, wide.valid
            passed = len(columns.starts) - len(kept)
            for first in range(0, max(1, len(kept)), self.batch_size):
                taken = kept[first : first + self.batch_size]
                ids = [f"{scene.id} (row {rows.starts[row]}, column {columns.starts[column]})" for column in taken]
                weights = columns.weights[taken, None, :] * rows.weights[row][:, None]
                ends = first + self.batch_size >= len(kept)
                batch = Batch(first, ids, wide.tiles(taken))
                yield _Tiles(batch, row, taken, weights, valid, ends, passed if ends else 0)

    def _predicted(self, cut: Iterator[_Tiles]) -> Iterator[tuple[_Tiles, NDArray[np.float32]]]:
        """Yield tiles with their weighted logits, in order, so that sums never depend on the workers' pace."""
        calls = (self._pool.submit(self._work, tiles) for tiles in cut)
        for tiles, logits, seconds in in_order(calls, IN_FLIGHT * self.workers):
            self.member_seconds = [a + b for a, b in zip(self.member_seconds, seconds, strict=True)]
            yield tiles, logits

    def _work(self, tiles: _Tiles) -> tuple[_Tiles, NDArray[np.float32], list[float]]:
        """Return the tiles, float32 (members, tiles, classes, height, width) weighted logits, each member's seconds."""
        if not tiles.columns:
            return tiles, np.empty((0,), np.float32), [0.0] * len(self.ensemble.members)
        logits, seconds = self.ensemble.logits(tiles.batch, self.skip, self._ended)
        planes = logits.reshape(*logits.shape[:3], *tiles.batch.size)
        return tiles, planes * tiles.weights[None, :, None], seconds


def _finished(
    held: NDArray[np.float32], rows: Axis, row: int, width: int, valid: NDArray[np.bool_] | None
) -> Iterator[Blended]:
    """Yield the rows that no later tile touches.

    Args:
        held: float32 (members, classes, tile rows, padded width), sums of weighted logits.
        rows: the tiles along the rows.
        row: the row of tiles that was added last.
        width: of the scene.
        valid: bool (tile rows, width): which pixels of the row of tiles hold data; None where all do.
    """
    members, classes = held.shape[:2]
    top = rows.starts[row]
    done = rows.finished(row) - top
    part = max(1, MOST_FUSED_BYTES // (4 * members * classes * width))
    for start in range(0, done, part):
        stop = min(start + part, done)
        logits = np.ascontiguousarray(held[:, :, start:stop, :width]).reshape(members, 1, classes, -1)
        held_data = None if valid is None else valid[start:stop]
        yield Blended(top + start, logits, (stop - start, width), row + 1 if stop == done else None, held_data)


def _move_up(held: NDArray[np.float32], done: int) -> None:
    """Drop the first ``done`` rows of the sums, and make room for new ones behind the others."""
    tile = held.shape[2]
    # In steps that do not overlap: NumPy would copy the whole otherwise.
    for start in range(0, tile - done, done):
        count = min(done, tile - done - start)
        held[:, :, start : start + count] = held[:, :, start + done : start + done + count]
    held[:, :, max(0, tile - done) :] = 0

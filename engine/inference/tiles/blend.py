"""Predicts scenes of any size tile by tile; the logits of overlapping tiles are blended before they are fused.

Each member's logits are blended by themselves, so every strategy sees what it would see of a whole scene. One row of
tiles is held at a time: rows of the mask come out as soon as no further tile touches them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.inference.ensemble import Ensemble
from engine.inference.tiles.grid import Axis, Tiling
from engine.models.adapt.size import mirrored
from engine.sources.base import Batch
from engine.sources.scenes import Scene
from engine.sources.strips import Strips
from engine.utils.threads import ahead

# Blended logits are fused in parts of about this size, unless a single row is larger.
MOST_FUSED_BYTES = 2**28
# Batches a worker in flight: nobody waits, and memory stays bounded.
IN_FLIGHT = 2

Weighted = tuple[NDArray[np.float32], list[float]]


@dataclass(frozen=True)
class Blended:
    """Logits of some finished rows of a scene.

    Attributes:
        start: the first row.
        logits: float32 (members, 1, classes, pixels), C-contiguous, in the ensemble's internal order of members.
        size: (rows, width).
        done: rows of tiles that are finished with these; None where more of the same row of tiles follow.
    """

    start: int
    logits: NDArray[np.float32]
    size: tuple[int, int]
    done: int | None = None


@dataclass(frozen=True)
class _Tiles:
    """Some tiles of one row, side by side.

    Attributes:
        batch: their pixels, and where they are, for messages.
        row: which row of tiles.
        columns: which tiles of it.
        weights: float32 (tiles, height, width), how much each pixel counts.
    """

    batch: Batch
    row: int
    columns: range
    weights: NDArray[np.float32]


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

    def __enter__(self) -> TiledRun:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop the workers; after an error the runs under way are given up."""
        self._ended.set()
        if kind is not None:
            self.ensemble.interrupt()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.ensemble.resume()

    def blended(
        self, scene: Scene, advance: Callable[[int], object] = lambda count: None, done: int = 0
    ) -> Iterator[Blended]:
        """Yield the blended logits of a scene from top to bottom.

        Args:
            scene: what to predict.
            advance: called with the number of tiles each time some are done.
            done: rows of tiles that are finished already: what they yielded is left out. Those of them that reach into
                the rows to come are predicted again, so these come out the same to the last bit.

        Raises:
            EngineError: the scene turns out to be damaged, or a member fails.
        """
        rows, columns = self.tiling.axes(scene.size)
        shape = (len(self.ensemble.members), len(self.ensemble.classes), rows.tile, columns.starts[-1] + columns.tile)
        held = np.zeros(shape, np.float32)
        first = next(row for row, start in enumerate(rows.starts) if start + rows.tile > rows.starts[done])
        for tiles, logits in self._predicted(self._cut(scene, rows, columns, first)):
            for index, column in enumerate(tiles.columns):
                start = columns.starts[column]
                held[..., start : start + columns.tile] += logits[:, index]
            if tiles.row >= done:
                advance(len(tiles.columns))
            if tiles.columns.stop == len(columns.starts):
                if tiles.row >= done:
                    yield from _finished(held, rows, tiles.row, scene.size[1])
                _move_up(held, rows.finished(tiles.row) - rows.starts[tiles.row])

    def _cut(self, scene: Scene, rows: Axis, columns: Axis, first_row: int) -> Iterator[_Tiles]:
        """Yield the tiles row by row; the pixels of the next row are read meanwhile."""
        across = mirrored(np.arange(columns.starts[-1] + columns.tile), scene.size[1])
        strips = Strips(scene)

        def read(row: int) -> NDArray[np.generic]:
            return np.take(strips.read(rows.pixels(row)), across, axis=1)

        wanted = range(first_row, len(rows.starts))
        for row, wide in enumerate(ahead(read, wanted, threads=1, waiting=2), first_row):
            for first in range(0, len(columns.starts), self.batch_size):
                taken = range(first, min(first + self.batch_size, len(columns.starts)))
                starts = [columns.starts[column] for column in taken]
                pixels = np.stack([wide[:, start : start + columns.tile] for start in starts])
                ids = [f"{scene.id} (row {rows.starts[row]}, column {start})" for start in starts]
                weights = columns.weights[taken.start : taken.stop, None, :] * rows.weights[row][:, None]
                yield _Tiles(Batch(first, ids, pixels), row, taken, weights)

    def _predicted(self, cut: Iterator[_Tiles]) -> Iterator[tuple[_Tiles, NDArray[np.float32]]]:
        """Yield tiles with their weighted logits, in order, so that sums never depend on the workers' pace."""
        pending: deque[tuple[_Tiles, Future[Weighted]]] = deque()

        def first() -> tuple[_Tiles, NDArray[np.float32]]:
            tiles, future = pending.popleft()
            logits, seconds = future.result()
            self.member_seconds = [a + b for a, b in zip(self.member_seconds, seconds, strict=True)]
            return tiles, logits

        for tiles in cut:
            pending.append((tiles, self._pool.submit(self._work, tiles)))
            if len(pending) > IN_FLIGHT * self.workers:
                yield first()
        while pending:
            yield first()

    def _work(self, tiles: _Tiles) -> Weighted:
        """Return float32 (members, tiles, classes, height, width) weighted logits, and the seconds of each member."""
        logits, seconds = self.ensemble.logits(tiles.batch, self.skip, self._ended)
        planes = logits.reshape(*logits.shape[:3], *tiles.batch.size)
        return planes * tiles.weights[None, :, None], seconds


def _finished(held: NDArray[np.float32], rows: Axis, row: int, width: int) -> Iterator[Blended]:
    """Yield the rows that no later tile touches.

    Args:
        held: float32 (members, classes, tile rows, padded width), sums of weighted logits.
        rows: the tiles along the rows.
        row: the row of tiles that was added last.
        width: of the scene.
    """
    members, classes = held.shape[:2]
    top = rows.starts[row]
    done = rows.finished(row) - top
    part = max(1, MOST_FUSED_BYTES // (4 * members * classes * width))
    for start in range(0, done, part):
        stop = min(start + part, done)
        logits = np.ascontiguousarray(held[:, :, start:stop, :width]).reshape(members, 1, classes, -1)
        yield Blended(top + start, logits, (stop - start, width), row + 1 if stop == done else None)


def _move_up(held: NDArray[np.float32], done: int) -> None:
    """Drop the first ``done`` rows of the sums, and make room for new ones behind the others."""
    tile = held.shape[2]
    # In steps that do not overlap: NumPy would copy the whole otherwise.
    for start in range(0, tile - done, done):
        count = min(done, tile - done - start)
        held[:, :, start : start + count] = held[:, :, start + done : start + done + count]
    held[:, :, max(0, tile - done) :] = 0

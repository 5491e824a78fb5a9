"""The actor of scenes: opens nets and scenes once, then predicts rows of tiles. It does not need Ray itself."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.inference.tiles.blend import TiledRun
from engine.inference.tiles.grid import Tiling
from engine.models.runtimes import RuntimeOptions
from engine.runs.on_ray.actor import Actor, check_plan
from engine.runs.on_ray.scene_wire import packed_strips
from engine.sources.scene import Scene
from engine.sources.scenes import Scenes

if TYPE_CHECKING:
    from engine.runs.options import Options


class ScenePredictor(Actor):
    """Predicts rows of tiles, counted over all scenes; one per worker."""

    def __init__(
        self,
        options: Options,
        runtime: RuntimeOptions,
        batch_size: int,
        plan_sha256: str,
        scored: bool,
        tile: str,
        overlap: float | None,
    ) -> None:
        """Open everything; an error is kept and reported with the first rows, in one line.

        Args:
            options: the user's options; file names are absolute.
            runtime: provider, runtime and precision.
            batch_size: tiles per session run; 0 to measure.
            plan_sha256: hash of the run's resolved plan; a node whose files give another one refuses.
            scored: whether true labels are compared.
            tile: as the user states it.
            overlap: as the user states it.
        """
        super().__init__(lambda: self._open(options, runtime, batch_size, plan_sha256, scored, tile, overlap))

    def _open(
        self,
        options: Options,
        runtime: RuntimeOptions,
        batch_size: int,
        plan_sha256: str,
        scored: bool,
        tile: str,
        overlap: float | None,
    ) -> None:
        from engine.inference.tuning import tune
        from engine.runs.scene_job import prepare_tiled
        from engine.runs.scene_rows import decoded_variants

        self._job = prepare_tiled(options, tile, overlap, writes=False)
        how = tune(self._job.base.ensemble, self._job.base.images, runtime, batch_size, 1)
        self._batch_size = batch_size or self._job.needs.fitting_batch(how.batch_size, 1)
        self._job.needs.check(self._batch_size, 1)
        job = self._job
        self._read = Reopened(job.read)
        self._stored = self._read if job.read is job.scenes else Reopened(job.scenes)
        self._truths = Reopened(job.truths) if job.truths is not None else None
        self._firsts = first_rows(job.tiling, job.read)
        check_plan(job.base.ensemble, plan_sha256)
        self._asked = decoded_variants(job.base.ensemble, scored)

    def _predict(self, start: int, count: int) -> dict[str, Any]:
        from engine.runs.outcome import Outcome
        from engine.runs.own_pixels import OwnPixels
        from engine.runs.scene_mask import SceneMask

        ensemble, tiling = self._job.base.ensemble, self._job.tiling
        index = int(np.searchsorted(self._firsts, start, "right")) - 1
        done = start - int(self._firsts[index])
        scene, stored = self._read.at(index), self._stored.at(index)
        truth = self._truths.at(index) if self._truths is not None else None
        own = None if scene.size == stored.size else OwnPixels(stored, scene.size)
        mask = SceneMask(ensemble, stored, truth, _Nowhere(), Outcome.empty(ensemble), None, own)
        skip = frozenset.intersection(*(variant.decoding.suppress for variant in self._asked))
        with TiledRun(ensemble, tiling, skip, self._batch_size, 1) as run:
            parts = run.blended(scene, done=done, until=done + count)
            strips = [(mask.add(part, self._asked), part.done) for part in parts]
        return packed_strips(start, strips, self._asked, run.member_seconds)


class Reopened:
    """Scenes by their indices; those that come later are opened on the way."""

    def __init__(self, scenes: Scenes) -> None:
        """Store the scenes; nothing is opened yet."""
        self._scenes = scenes
        self._opened: Generator[Scene, None, None] | None = None
        self._held: Scene | None = None
        self._index = -1

    def at(self, index: int) -> Scene:
        """Return a scene, opened until another one is asked for.

        Raises:
            EngineError: it cannot be opened.
        """
        if self._opened is None or index < self._index:
            if self._opened is not None:
                self._opened.close()
            self._opened, self._index = self._scenes.each(), -1
        while self._index < index:
            self._held = next(self._opened)
            self._index += 1
        assert self._held is not None
        return self._held


class _Nowhere:
    """Takes the masks of an actor, which sends decoded rows instead."""

    def begin(self, scene: Scene) -> None:
        pass

    def write_rows(self, labels: NDArray[np.uint8]) -> None:
        pass

    def end(self) -> None:
        pass


def first_rows(tiling: Tiling, scenes: Scenes) -> NDArray[np.int64]:
    """Return the index of each scene's first row of tiles over all scenes, and their number at the end."""
    counts = [len(tiling.axes(size)[0].starts) for size in scenes.sizes]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

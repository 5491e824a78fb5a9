"""Rows of scenes that come from a Ray cluster, in order, each once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from engine.errors import ModelError, PlanError
from engine.models.runtimes import RuntimeOptions
from engine.runs.on_ray.cluster import Cluster, connect, leave, predicted_rows, require_ray
from engine.runs.on_ray.scene_predictor import ScenePredictor, first_rows
from engine.runs.on_ray.scene_wire import Done, unpacked_strips
from engine.runs.on_ray.stream import check_members, portable, run_by, wanted
from engine.runs.options import Options
from engine.runs.provenance import plan_hash
from engine.runs.scene_job import TiledJob
from engine.runs.scene_mask import SceneMask
from engine.runs.scene_rows import Advance, decoded_variants
from engine.sources.scene import Scene

# Rows of tiles that an actor predicts at a time; those that reach into its first row are predicted once more.
BLOCK_ROWS = 8


@dataclass(frozen=True)
class ScenesOnRay:
    """Gets the rows of a run over scenes from Ray.

    Attributes:
        options: the user's options.
        runtime: provider, runtime and precision.
        cluster: where it runs.
        tile: as the user states it.
        overlap: as the user states it.
        batch_size: tiles per session run; 0 lets each actor choose.
    """

    options: Options
    runtime: RuntimeOptions
    cluster: Cluster
    tile: str
    overlap: float | None
    batch_size: int = 0

    def rows(self, job: TiledJob, scored: bool, done: Sequence[int]) -> RayRows:
        """Return the rows of all scenes, without those done of each."""
        return RayRows(self, job, scored, done)

    def run_by(self, here: Mapping[str, str]) -> dict[str, str]:
        """Return what runs each net, given what would run it here."""
        return run_by(self.cluster, here)


class RayRows:
    """The rows of one run, see :class:`engine.runs.scene_rows.SceneRows`.

    Attributes:
        member_seconds: time inside each member's nets so far, summed over actors.
    """

    def __init__(self, on: ScenesOnRay, job: TiledJob, scored: bool, done: Sequence[int]) -> None:
        """Plan the blocks; nothing runs yet.

        Args:
            on: where and how they are predicted.
            job: the scenes.
            scored: whether true labels are compared.
            done: rows of tiles of each scene that are finished already.
        """
        ensemble = job.base.ensemble
        self._on, self._job, self._classes = on, job, len(ensemble.classes)
        self._asked = decoded_variants(ensemble, scored)
        self._firsts = first_rows(job.tiling, job.read)
        self._spans = [
            (start, min(BLOCK_ROWS, int(end) - start))
            for (first, end), skipped in zip(pairwise(self._firsts), done, strict=True)
            for start in range(int(first) + skipped, int(end), BLOCK_ROWS)
        ]
        options = portable(on.options)
        self._arguments = (
            *(options, wanted(on.runtime, on.cluster), on.batch_size, plan_hash(ensemble), scored),
            *(on.tile, on.overlap),
        )
        self.member_seconds = [0.0] * len(ensemble.members)
        self._stack = contextlib.ExitStack()
        self._came: Iterator[dict[str, Any]] = iter(())

    def __enter__(self) -> Self:
        """Connect to the cluster.

        Raises:
            PlanError: Ray is missing or cannot be reached.
        """
        if self._spans:
            if connect(self._on.cluster):
                self._stack.callback(leave)
            self._came = predicted_rows(ScenePredictor, self._arguments, self._on.cluster, self._spans)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; actors end with it or with the iteration."""
        self._stack.close()

    def decoded(self, index: int, scene: Scene, mask: SceneMask, done: int, advance: Advance) -> Iterator[Done]:
        """Yield a scene's rows as actors send them, and hand them to its mask.

        Raises:
            ModelError: an actor failed, or rows are missing.
        """
        rows, columns = self._job.tiling.axes(scene.size)
        while done < len(rows.starts):
            row, expected = next(self._came, None), int(self._firsts[index]) + done
            if row is None or int(row["start"]) != expected:
                came = "nothing" if row is None else f"rows from {int(row['start'])} on"
                raise ModelError(f"Ray returned {came}, expected rows of tiles from {expected} on: go on with --resume")
            strips, seconds = unpacked_strips(row, self._classes, self._asked)
            self.member_seconds = [a + b for a, b in zip(self.member_seconds, seconds, strict=True)]
            for strip, finished in strips:
                mask.take(strip)
                if finished is not None:
                    done = finished
                    advance(len(columns.starts))
                yield strip, finished


def scenes_on_ray(
    job: TiledJob,
    options: Options,
    runtime: RuntimeOptions,
    cluster: Cluster,
    tile: str,
    overlap: float | None,
    batch_size: int,
) -> ScenesOnRay:
    """Prepare a checked job for Ray; arguments as of :class:`ScenesOnRay`.

    Raises:
        PlanError: Ray is not installed, or other files than masks are asked for.
    """
    if job.base.files.files:
        raise PlanError(f"--on ray writes masks alone: leave out {', '.join(job.base.files.files)}, or run here")
    check_members(job.base.ensemble)
    require_ray()
    job.base.ensemble.runtime_options = runtime
    return ScenesOnRay(options, runtime, cluster, tile, overlap, batch_size)

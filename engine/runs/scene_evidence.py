"""Scores, doubt and table rows of scenes on their way to disk, strip by strip."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.fusion.evidence import Evidence, Shown
from engine.outputs.maps import Maps, open_map_scenes, open_maps_writer
from engine.runs.image_table import ImageTable, MeanEvidence
from engine.runs.stitched import ImagesOfPictures
from engine.sources.scene import Scene

if TYPE_CHECKING:
    from engine.runs.scene_job import TiledJob


def rows_of(
    shown: Shown, size: tuple[int, int], valid: NDArray[np.bool_] | None, evidence: Evidence, classes: int
) -> Shown:
    """Return the evidence of a strip as rows: (rows, classes * width) scores, (rows, width) doubt and unknown pixels.

    Args:
        shown: that of the pixels with data, (1, classes, pixels) and (1, pixels) twice; nothing where there are none.
        size: (rows, width) of the strip.
        valid: bool (rows * width,), which pixels hold data; None where all do. The others become NaN, or 255 in
            uint8, and are not unknown.
        evidence: what is asked for.
        classes: number of classes.
    """
    rows, width = size
    place: Any = slice(None) if valid is None else valid
    scores: NDArray[Any] | None = None
    doubt: NDArray[Any] | None = None
    if evidence.scores:
        planes = np.full((classes, rows * width), np.nan, evidence.scores)
        if shown.scores is not None:
            planes[:, place] = shown.scores[0]
        scores = np.ascontiguousarray(planes.reshape(classes, rows, width).swapaxes(0, 1)).reshape(rows, -1)
    if evidence.doubt:
        nothing = 255 if evidence.doubt_type == "uint8" else np.nan
        doubt = np.full(rows * width, nothing, evidence.doubt_type)
        if shown.doubt is not None:
            doubt[place] = shown.doubt[0]
        doubt = doubt.reshape(rows, width)
    unknown: NDArray[np.bool_] | None = None
    if evidence.unknown is not None:
        unknown = np.zeros(rows * width, np.bool_)
        if shown.unknown is not None:
            unknown[place] = shown.unknown[0]
        unknown = unknown.reshape(rows, width)
    return Shown(scores, doubt, unknown)


class _MapRows(Protocol):
    """Takes maps of scenes row by row."""

    def begin(self, scene: Scene) -> None:
        """Begin a scene."""

    def write_rows(self, rows: NDArray[Any], /) -> None:
        """Append values (rows, maps, width)."""

    def end(self) -> None:
        """Finish the scene."""


class SceneEvidence:
    """Takes what is shown for the masks of scenes, one scene after the other."""

    def __init__(self, evidence: Evidence, classes: int, maps: Sequence[_MapRows], table: ImageTable | None) -> None:
        """Take writers that are open.

        Args:
            evidence: what is asked for.
            classes: number of classes.
            maps: take scores and doubt, those that are asked for, in this order.
            table: takes one row per scene; None for none.
        """
        self.evidence = evidence
        self._classes, self._maps, self._table = classes, maps, table

    def begin(self, scene: Scene) -> None:
        """Begin a scene.

        Raises:
            OutputError: a file cannot be written.
        """
        self._id, self._width = scene.id, scene.size[1]
        self._means = MeanEvidence(self.evidence)
        for writer in self._maps:
            writer.begin(scene)

    def take(self, labels: NDArray[np.uint8], shown: Shown, void: int | None) -> None:
        """Take some rows.

        Args:
            labels: uint8 (rows, width).
            shown: their evidence, as of :func:`rows_of`.
            void: the label of pixels without data; None where there are none.

        Raises:
            OutputError: the disk refuses.
        """
        rows = len(labels)
        scores = None if shown.scores is None else shown.scores.reshape(rows, self._classes, self._width)
        doubt = None if shown.doubt is None else shown.doubt.reshape(rows, 1, self._width)
        for writer, part in zip(self._maps, [part for part in (scores, doubt) if part is not None], strict=True):
            writer.write_rows(part)
        if self._table is not None:
            planes = None if scores is None else scores.swapaxes(0, 1).reshape(self._classes, -1)
            values = Shown(planes, None if doubt is None else doubt.reshape(-1))
            self._means.add(labels.ravel(), values, None if void is None else labels.ravel() != void)

    def end(self, counts: NDArray[np.int64], confusion: NDArray[np.int64] | None, pixels: int) -> None:
        """Finish the scene.

        Args:
            counts: int64 (classes,), pixels of each class in its mask.
            confusion: int64 (classes, classes), if true labels are given.
            pixels: with data.

        Raises:
            OutputError: the disk refuses.
        """
        for writer in self._maps:
            writer.end()
        if self._table is not None:
            self._table.row(self._id, counts, self._means.values, confusion, pixels)


@contextlib.contextmanager
def _open(job: TiledJob, path: Path, maps: Maps, record: dict[str, Any]) -> Iterator[_MapRows]:
    """Open the writer of some maps; leaving puts its file in place."""
    images = job.stitched
    if images is None:
        with open_map_scenes(path, len(job.scenes.ids), maps, record) as scenes:
            yield scenes
        return
    with open_maps_writer(path, images.ids, images.size, maps, record) as writer:
        yield ImagesOfPictures(images, writer, maps.kind, (len(maps.names),))


@contextlib.contextmanager
def scene_evidence(job: TiledJob, record: dict[str, Any]) -> Iterator[SceneEvidence | None]:
    """Open the writers of all that is asked for beside masks; leaving puts their files in place."""
    files, ensemble, scenes = job.base.files, job.base.ensemble, job.scenes
    if not files.files:
        yield None
        return
    with contextlib.ExitStack() as stack:
        maps = [
            stack.enter_context(_open(job, path, held, {**record, **held.record}))
            for path, held in files.maps(ensemble.classes).items()
        ]
        table = None
        if files.per_image is not None:
            facts = ensemble.classes, ensemble.ignored_class, len(scenes.ids), files.evidence
            table = ImageTable(
                files.per_image, *facts, job.truths is not None, ensemble.unknown is not None, job.base.places
            )
            stack.enter_context(table.writer)
        yield SceneEvidence(files.evidence, len(ensemble.classes), maps, table)

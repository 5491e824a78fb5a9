"""Predict scenes tile by tile, score them, write their masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

from engine.errors import PlanError
from engine.fusion.compiling import compile_kernels
from engine.fusion.doubt import NAME, UNKNOWN
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.outputs.open import FOLDER, WRITERS, form_of, open_writer
from engine.outputs.scenes import OneFile, OneStore, SceneFolder, Sink, WholeMasks
from engine.outputs.sidecar import ids_beside
from engine.outputs.vector_files import VECTOR_FORMS, Layer
from engine.outputs.vectors import VectorFile
from engine.runs.durable.resume import nothing_left
from engine.runs.durable.scenes import DurableScenes
from engine.runs.outcome import Outcome
from engine.runs.own_pixels import OwnPixels
from engine.runs.provenance import run_record, scenes_header
from engine.runs.scene_evidence import scene_evidence
from engine.runs.scene_job import TiledJob
from engine.runs.scene_mask import SceneMask
from engine.runs.scene_rows import RowsHere, SceneRows
from engine.runs.stitched import ImagesOfPictures
from engine.sources.georeference import bounded_cache
from engine.sources.scene import Scene, void_values
from engine.utils import console
from engine.utils.console import stoppable
from engine.utils.progress import progress
from engine.utils.threads import available_cores


class Elsewhere(Protocol):
    """Predicts rows of tiles on other machines."""

    def rows(self, job: TiledJob, scored: bool, done: Sequence[int]) -> SceneRows:
        """Return the rows of all scenes, without those done of each."""

    def run_by(self, here: Mapping[str, str]) -> dict[str, str]:
        """Return what runs each net, given what would run it here."""


def run_tiled(
    job: TiledJob, batch_size: int, workers: int, overwrite: bool, elsewhere: Elsewhere | None = None
) -> Outcome:
    """Predict the scenes, score them where labels are given, and write the masks.

    Args:
        job: what to predict.
        batch_size: tiles a worker takes at a time.
        workers: threads; 0 for one per core.
        overwrite: whether the user lets the output be replaced.
        elsewhere: predicts rows, as on a cluster; None predicts in this process.

    Raises:
        EngineError: a scene, a member or the disk fails, or there is too little memory; nothing is left half-written.
    """
    if batch_size < 1 or workers < 0:
        raise PlanError(f"batch size {batch_size}, workers {workers}: at least 1 tile, and 0 or more workers")
    if elsewhere is None:
        job.needs.check(batch_size, workers or available_cores())
    base, sizes, read = job.base, job.scenes.sizes, job.read.sizes
    ensemble, output = base.ensemble, base.output
    assert output is not None
    header = scenes_header(ensemble, read, job.tiling, base.input_sha256, base.labels_sha256) | _stated(job)
    if base.resume and nothing_left(output, header) is not None:
        base.files.check_present()
        return Outcome.empty(ensemble)
    variants = ensemble.every_variant() if job.truths is not None else [ensemble.variant]
    strategies = {variant.strategy for variant in [ensemble.variant, *variants]}
    compile_kernels(strategies, len(ensemble.classes), ensemble.variant.decoding.suppress)
    outcome = Outcome.empty(ensemble, workers or available_cores())
    if job.stitched is not None:
        job.stitched.say()
    header["overwrite"] = overwrite
    if elsewhere is not None:
        header["run_by"] = elsewhere.run_by(header["run_by"])
    began = perf_counter()
    with stoppable(), DurableScenes(output, ensemble, variants, sizes, header, base.resume) as work:
        before = work.done
        if before:
            console.say(f"resuming after {before:,} of {header['tiles']:,} tiles")
        with work.interruptible():
            base.files.clear()
            _predict(job, work, variants, _source(job, work, batch_size, outcome.workers, elsewhere), outcome)
            base.files.sync()
        work.finish(output)
    outcome.seconds = perf_counter() - began
    masks = len(job.masks[0])
    told = "1 mask" if masks == 1 else f"{masks:,} masks"
    earlier = f" ({before:,} of them by an earlier run)" if before else ""
    new = header["tiles"] - before
    rate = f", {new / outcome.seconds:,.0f} tiles/s" if new else ""
    console.say(f"wrote {output}: {told} from {header['tiles']:,} tiles{earlier} in {outcome.seconds:.1f} s{rate}")
    for path in base.files.files.values():
        console.say(f"wrote {path}")
    for void, pixels in outcome.no_data.items():
        if pixels and job.stitched is None:  # of images put together none shows a gap between them
            console.say(f"no data: {pixels:,} of {pixels + outcome.pixels:,} pixels; they have {void} in the mask")
    return outcome


def _stated(job: TiledJob) -> dict[str, Any]:
    """Return what is stated about scenes, masks and what is shown for them, as plain JSON types."""
    evidence = job.base.files.evidence.record
    tables = {"input": job.input.stated, "output": job.output.stated, "evidence": evidence}
    return {name: table for name, table in tables.items() if table}


def _record(job: TiledJob) -> dict[str, Any]:
    output, scenes = job.base.output, job.scenes
    assert output is not None
    more = {"tiling": job.tiling.record, "input_sha256": job.base.input_sha256, **_stated(job)}
    ids, named = job.masks
    no_data = void_values(scenes.nodata, job.base.ensemble.mask_values)
    more |= {"no_data": no_data} if no_data else {}
    return run_record(job.base.ensemble, images=len(ids), **more, **ids_beside(output, ids, named))


@contextlib.contextmanager
def _sink(job: TiledJob, record: dict[str, Any]) -> Iterator[Sink]:
    """Open the writer that fits the scenes and the output; leaving puts the masks in place."""
    ensemble, output, scenes = job.base.ensemble, job.base.output, job.scenes
    assert output is not None
    classes = ensemble.mask_values
    count, form = len(scenes.ids), form_of(output)
    if job.stitched is not None:
        images = job.stitched
        with open_writer(output, images.ids, images.size, classes, job.base.replace, record) as writer:
            yield ImagesOfPictures(images, writer)
        return
    if not scenes.alone and form != FOLDER:
        assert form in WRITERS and scenes.size is not None
        with open_writer(output, scenes.ids, scenes.size, classes, job.base.replace, record) as writer:
            yield WholeMasks(writer)
        return
    if form in VECTOR_FORMS:
        with VectorFile(output, _layer(ensemble, job.output.min_area), record) as vector_writer:
            yield vector_writer
        return
    kind = SceneFolder if form == FOLDER else OneStore if form == ".zarr" else OneFile
    with kind(output, count, classes, record) as scene_writer:
        yield scene_writer


def _layer(ensemble: Ensemble, min_area: float) -> Layer:
    """Return how polygons are made, by the values that masks have."""
    table = ensemble.coding.output_table
    values = list(range(len(ensemble.classes))) if table is None else table.tolist()
    named = dict(zip(values, ensemble.classes, strict=False))
    named |= {} if ensemble.unknown is None else {UNKNOWN: NAME}
    names = [named.get(value, "") for value in range(ensemble.mask_values)]
    left_out = {0} if ensemble.ignored_class is None else {0, ensemble.ignored_class}
    return Layer(names, frozenset(values[index] for index in left_out), min_area)


def _with_stored(job: TiledJob) -> Iterator[tuple[Scene, Scene]]:
    """Yield each scene as the members read it, and as it is stored: opened a second time, for two threads read them."""
    if job.read is job.scenes:
        yield from ((scene, scene) for scene in job.scenes.each())
        return
    with contextlib.closing(job.read.each()) as read, contextlib.closing(job.scenes.each()) as stored:
        yield from zip(read, stored, strict=True)


def _source(
    job: TiledJob, work: DurableScenes, batch_size: int, workers: int, elsewhere: Elsewhere | None
) -> SceneRows:
    scored = job.truths is not None
    if elsewhere is None:
        return RowsHere(job.base.ensemble, job.tiling, scored, batch_size, workers)
    return elsewhere.rows(job, scored, [work.rows_done(index) for index in range(len(job.read.sizes))])


def _predict(
    job: TiledJob, work: DurableScenes, variants: Sequence[Variant], source: SceneRows, outcome: Outcome
) -> None:
    """Predict what is left to do and write all masks; leaving puts them in their place."""
    ensemble = job.base.ensemble
    tiles = sum(map(job.tiling.count, job.read.sizes))
    truths = job.truths.each() if job.truths is not None else None
    with (
        contextlib.closing(truths) if truths is not None else contextlib.nullcontext(),
        bounded_cache(),
        _sink(job, record := _record(job)) as sink,
        scene_evidence(job, record) as evidence,
        source,
        progress(tiles, work.done) as advance,
    ):
        for index, (scene, stored) in enumerate(_with_stored(job)):
            truth = next(truths) if truths is not None else None
            own = None if scene.size == stored.size else OwnPixels(stored, scene.size)
            mask = SceneMask(ensemble, stored, truth, sink, outcome, evidence, own)
            for strip in work.strips(index):
                mask.take(strip)
            rows, columns = job.tiling.axes(scene.size)
            done = work.rows_done(index)
            if done < len(rows.starts):
                for strip, finished in source.decoded(index, scene, mask, done, advance):
                    work.add(strip)
                    if finished is not None:
                        work.finish_row(index, finished, len(columns.starts), source.member_seconds)
            else:
                outcome.resumed += 1
            mask.end()
        job.base.read.check()
        work.placing()
    outcome.member_seconds = [a + b for a, b in zip(work.member_seconds, source.member_seconds, strict=True)]
    outcome.member_runs = [outcome.images] * len(ensemble.members)
    told = dict.fromkeys([*variants, ensemble.variant])
    outcome.scores = {variant: outcome.scores[variant] for variant in told if variant in outcome.scores}

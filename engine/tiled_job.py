"""``engine ensemble --tile``: checks the options, predicts scenes tile by tile, scores and writes their masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.durable_scenes import DurableScenes
from engine.errors import InputError, OutputError, PlanError
from engine.fusion.compiling import compile_kernels
from engine.inference.prediction import Variant
from engine.inference.tiles.blend import TiledRun
from engine.inference.tiles.grid import DEFAULT_OVERLAP, Tiling, mirrored, parse_tile
from engine.inference.tiles.stride import settle
from engine.job import Job
from engine.models.net import check_range
from engine.opening import Options, open_ensemble, planned
from engine.outcome import Outcome
from engine.outputs.open import FOLDER, WRITERS, check_goal, form_of, open_writer
from engine.outputs.row_files import ROW_FILES
from engine.outputs.scenes import OneFile, OneStore, SceneFolder, Sink, WholeMasks
from engine.outputs.sidecar import check_sidecar
from engine.record import run_record
from engine.resume import may_replace, nothing_left
from engine.same_run import scenes_header
from engine.scene_mask import SceneMask
from engine.sources.base import Source
from engine.sources.fingerprint import fingerprint
from engine.sources.georeference import bounded_cache
from engine.sources.open import split_key
from engine.sources.scenes import Scenes, first_scenes, open_scenes
from engine.sources.strips import Strips
from engine.utils import console
from engine.utils.console import stoppable
from engine.utils.optional import require
from engine.utils.progress import progress
from engine.utils.threads import available_cores

ONE_SCENE = ".png, .tif (georeference kept), .npy or .zarr for the mask of one scene"
SEVERAL_SIZES = "a folder: the scenes are of different sizes"


@dataclass(frozen=True)
class TiledJob:
    """A checked job.

    Attributes:
        base: ensemble and output; its images are the first tile.
        scenes: what to predict.
        truths: true label maps of the same scenes, or None.
        tiling: how scenes are cut.
    """

    base: Job
    scenes: Scenes
    truths: Scenes | None
    tiling: Tiling


def prepare_tiled(options: Options, tile: str, overlap: float | None) -> TiledJob:
    """Open and check everything a run over scenes needs.

    Args:
        options: the command line's.
        tile: ``HEIGHTxWIDTH`` in pixels.
        overlap: share of a tile that the next one shows too; None for half of it.

    Raises:
        EngineError: the first thing that does not fit, in one line.
    """
    tiling = Tiling(parse_tile(tile), DEFAULT_OVERLAP if overlap is None else overlap)
    _refuse_others(options)
    plan = planned(options)
    if plan is None:
        raise PlanError("no models: name them with --models or --plan")
    if not options.input:
        raise PlanError("no scene: name one, or a folder of them, with --input")
    scenes = first_scenes(open_scenes(options.input), options.limit)
    truths = first_scenes(open_scenes(options.labels, "labels"), options.limit) if options.labels else None
    output = options.output or Path("mask.png" if scenes.alone else "masks")
    replaced = may_replace(output, options.resume, options.overwrite)
    _check_output(output, options, scenes, replaced)
    if truths is not None:
        _check_truths(scenes, truths)
    sample = _first_tile(scenes, tiling)
    ensemble = open_ensemble(plan, options, sample)
    check_range(next(sample.batches(1)).pixels, (net for voter in ensemble.members for net in voter.nets))
    tiling = settle(ensemble, tiling, scenes.channels)
    base = Job(
        ensemble,
        sample,
        None,
        output,
        None,
        resume=options.resume,
        replace=replaced,
        input_sha256=fingerprint(options.input),
        labels_sha256=fingerprint(options.labels) if options.labels else "",
    )
    return TiledJob(base, scenes, truths, tiling)


def _refuse_others(options: Options) -> None:
    refused = {
        "--early-exit": options.early_exit or options.early_exit_agreement is not None,
        "--preview": options.preview is not None,
        "--on-bad-image": options.on_bad_image != "fail",
    }
    for option, given in refused.items():
        if given:
            raise PlanError(f"{option} does not work on tiles of a scene: leave out {option} or --tile")


def _check_output(output: Path, options: Options, scenes: Scenes, replaced: bool) -> None:
    if scenes.alone:
        check_goal(output, replaced, allowed=tuple(ROW_FILES), told=ONE_SCENE)
        if form_of(output) in (".tif", ".tiff"):
            require("rasterio", "geo", f"writing {output} needs rasterio", OutputError)
    elif scenes.size is None:
        check_goal(output, replaced, allowed=(FOLDER,), told=SEVERAL_SIZES)
    else:
        check_goal(output, replaced)
    check_sidecar(output, replaced)
    for option, source in (("--input", options.input), ("--labels", options.labels)):
        if source and output.resolve() == split_key(source)[0].resolve():
            raise OutputError(f"{output} is what {option} reads: choose another name for the masks")


def _check_truths(scenes: Scenes, truths: Scenes) -> None:
    if len(scenes.ids) != len(truths.ids):
        raise InputError(
            f"{truths.name} holds {len(truths.ids)} label maps, {scenes.name} holds {len(scenes.ids)}: give one each"
        )
    several = len(scenes.ids) > 1 and scenes.named and truths.named
    for name, other, size, true_size in zip(scenes.ids, truths.ids, scenes.sizes, truths.sizes, strict=True):
        if several and name != other:
            raise InputError(f"{truths.name} has id {other} where {scenes.name} has {name}: name them alike")
        if size != true_size:
            raise InputError(
                f"{truths.name}: the label map of {name} is {true_size[0]}x{true_size[1]}, "
                f"the scene {size[0]}x{size[1]}: they must be of one size"
            )


def _first_tile(scenes: Scenes, tiling: Tiling) -> Source:
    """Return a source of one image, the first scene's first tile: what the members are checked on."""
    with contextlib.closing(scenes.each()) as opened:
        scene = next(opened, None)
        if scene is None:
            raise InputError(f"{scenes.name} holds no images")
        down, across = (mirrored(np.arange(t), side) for t, side in zip(tiling.tile, scene.size, strict=True))
        pixels = np.take(Strips(scene).read(down), across, axis=1)[None]

    def read(size: int) -> Iterator[NDArray[Any]]:
        yield pixels

    return Source(f"a tile of {scenes.name}", ["0"], tiling.tile, scene.channels, read)


def run_tiled(job: TiledJob, batch_size: int, workers: int, overwrite: bool) -> Outcome:
    """Predict the scenes, score them where labels are given, and write the masks.

    Raises:
        EngineError: a scene, a member or the disk fails; nothing is left half-written.
    """
    if batch_size < 1 or workers < 0:
        raise PlanError(f"batch size {batch_size}, workers {workers}: at least 1 tile, and 0 or more workers")
    base, sizes = job.base, job.scenes.sizes
    ensemble, output = base.ensemble, base.output
    assert output is not None
    header = scenes_header(ensemble, sizes, job.tiling, base.input_sha256, base.labels_sha256)
    if base.resume and nothing_left(output, header):
        return Outcome.empty(ensemble)
    variants = ensemble.every_variant() if job.truths is not None else [ensemble.variant]
    compile_kernels({variant.strategy for variant in [ensemble.variant, *variants]}, len(ensemble.classes))
    outcome = Outcome.empty(ensemble, workers or available_cores())
    header["overwrite"] = overwrite
    began = perf_counter()
    with stoppable(), DurableScenes(output, ensemble, variants, sizes, header, base.resume) as work:
        before = work.done
        if before:
            console.say(f"resuming behind {before:,} of {header['tiles']:,} tiles")
        with work.interruptible():
            _predict(job, work, variants, batch_size, outcome)
        work.finish(output)
    outcome.seconds = perf_counter() - began
    told = "1 mask" if len(sizes) == 1 else f"{len(sizes):,} masks"
    earlier = f" ({before:,} of them by the run before)" if before else ""
    new = header["tiles"] - before
    rate = f", {new / outcome.seconds:,.0f} tiles/s" if new else ""
    console.say(f"wrote {output}: {told} from {header['tiles']:,} tiles{earlier} in {outcome.seconds:.1f} s{rate}")
    return outcome


@contextlib.contextmanager
def _sink(job: TiledJob) -> Iterator[Sink]:
    """Open the writer that fits the scenes and the output; leaving puts the masks in place."""
    ensemble, output, scenes = job.base.ensemble, job.base.output, job.scenes
    assert output is not None
    more = {"tiling": job.tiling.record, "input_sha256": job.base.input_sha256}
    record = run_record(ensemble, images=len(scenes.ids), **more)
    count, classes, form = len(scenes.ids), len(ensemble.classes), form_of(output)
    if not scenes.alone and form != FOLDER:
        assert form in WRITERS and scenes.size is not None
        with open_writer(output, scenes.ids, scenes.size, classes, job.base.replace, record) as writer:
            yield WholeMasks(writer)
        return
    kind = SceneFolder if form == FOLDER else OneStore if form == ".zarr" else OneFile
    with kind(output, count, classes, record) as scene_writer:
        yield scene_writer


def _predict(
    job: TiledJob, work: DurableScenes, variants: Sequence[Variant], batch_size: int, outcome: Outcome
) -> None:
    """Predict what is left to do and write all masks; leaving puts them in their place."""
    ensemble = job.base.ensemble
    # Without suppression first: decoding a suppressed variant overwrites what the specialists said.
    asked = sorted(dict.fromkeys([ensemble.variant, *variants]), key=lambda variant: bool(variant.decoding.suppress))
    skip = frozenset.intersection(*(variant.decoding.suppress for variant in asked))
    tiles = sum(map(job.tiling.count, job.scenes.sizes))
    truths = job.truths.each() if job.truths is not None else None
    with (
        bounded_cache(),
        _sink(job) as sink,
        TiledRun(ensemble, job.tiling, skip, batch_size, outcome.workers) as tiler,
        progress(tiles, work.done) as advance,
    ):
        for index, scene in enumerate(job.scenes.each()):
            mask = SceneMask(ensemble, scene, next(truths) if truths is not None else None, sink, outcome)
            for strip in work.strips(index):
                mask.take(strip)
            rows, columns = job.tiling.axes(scene.size)
            done = work.rows_done(index)
            if done < len(rows.starts):
                for part in tiler.blended(scene, advance, done):
                    work.add(mask.add(part, asked))
                    if part.done is not None:
                        work.finish_row(index, part.done, len(columns.starts), tiler.member_seconds)
            else:
                outcome.resumed += 1
            mask.end()
        work.placing()
    outcome.member_seconds = [a + b for a, b in zip(work.member_seconds, tiler.member_seconds, strict=True)]
    outcome.member_runs = [outcome.images] * len(ensemble.members)
    told = dict.fromkeys([*variants, ensemble.variant])
    outcome.scores = {variant: outcome.scores[variant] for variant in told if variant in outcome.scores}

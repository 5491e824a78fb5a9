"""``engine ensemble --tile``: checks the options, predicts scenes tile by tile, scores and writes their masks."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.errors import InputError, OutputError, PlanError
from engine.inference.ensemble import Ensemble
from engine.inference.evidence import check_evidence
from engine.inference.tiles.grid import DEFAULT_OVERLAP, Tiling, parse_tile
from engine.inference.tiles.memory import SceneNeeds
from engine.inference.tiles.rows import tile_rows
from engine.inference.tiles.stride import with_stride
from engine.models.members import ground_resolution
from engine.models.net import check_range
from engine.outputs.open import FOLDER, check_not_read, check_output, form_of
from engine.outputs.row_files import ROW_FILES
from engine.outputs.sidecar import check_sidecar
from engine.outputs.vector_files import VECTOR_FORMS
from engine.outputs.vectors import check_vectors
from engine.runs.durable.resume import may_replace
from engine.runs.image_job import Job, check_form, check_names_of
from engine.runs.opened import open_ensemble
from engine.runs.options import Options, input_table, planned, reading_of
from engine.runs.out_of_fold import predict_pictures_out_of_fold
from engine.runs.plan_input import InputTable
from engine.runs.plan_output import OutputTable
from engine.runs.stitched import StitchedImages, stitched_images
from engine.sources.base import Source
from engine.sources.fingerprint import fingerprint, labels_fingerprint
from engine.sources.georeference import Georeference
from engine.sources.label_scenes import coded_scenes, open_scene_labels
from engine.sources.places import aligned, check_places
from engine.sources.resolution import at_resolution
from engine.sources.scenes import Scenes, first_scenes, open_scenes
from engine.sources.unchanged import Unchanged
from engine.utils import console
from engine.utils.optional import require

ONE_SCENE = (
    ".png, .tif (georeference kept), .npy or .zarr for the mask of one scene, "
    + "or .gpkg, .parquet or .geojson for its polygons"
)
SEVERAL_SIZES = "a folder: the scenes are of different sizes"


@dataclass(frozen=True)
class TiledJob:
    """A checked job.

    Attributes:
        base: ensemble and output; its images are the first tile.
        scenes: what to predict.
        truths: true label maps of the same scenes, or None.
        tiling: how scenes are cut.
        read: the scenes as the members read them: where these state a ground resolution, of other sizes.
        input: what the plan states about the scenes.
        output: what the plan states about the masks.
        stitched: the images that the scenes are put together from, whose masks are written; None where the scenes'
            own are.
    """

    base: Job
    scenes: Scenes
    truths: Scenes | None
    tiling: Tiling
    read: Scenes
    input: InputTable = field(default_factory=InputTable)
    output: OutputTable = field(default_factory=OutputTable)
    stitched: StitchedImages | None = None

    @property
    def masks(self) -> tuple[list[str], bool]:
        """Return the names of the masks that are written, and whether they are names and not row numbers."""
        if self.stitched is not None:
            return self.stitched.ids, self.stitched.named
        return list(self.scenes.ids), self.scenes.named and not self.scenes.alone

    @property
    def needs(self) -> SceneNeeds:
        """Return what decides how much memory the scenes take."""
        ensemble, sample = self.base.ensemble, next(self.base.images.batches(1)).pixels
        return SceneNeeds(
            self.tiling,
            len(ensemble.members),
            len(ensemble.classes),
            self.scenes.channels,
            sample.dtype.itemsize,
            self.scenes.sizes,
            self.scenes.whole,
            ensemble.variant.decoding.cleans_regions,
        )


def prepare_tiled(options: Options, tile: str, overlap: float | None, writes: bool = True) -> TiledJob:
    """Open and check everything a run over scenes needs.

    Args:
        options: the command line's.
        tile: ``HEIGHTxWIDTH`` in pixels.
        overlap: share of a tile that the next one shows too; None for half of it.
        writes: whether masks are written here; where not, the job has no output, and the input is not hashed.

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
    read = Unchanged(options.input, options.labels)
    table = input_table(plan, options)
    reading = reading_of(plan, options)
    stitched = stitched_images(options, reading) if table.stitch else None
    whole = open_scenes(options.input, reading=reading) if stitched is None else stitched.scenes
    scenes = whole if stitched is not None else first_scenes(whole, options.limit)
    coding = options.truth.over(plan.labels)
    truths = open_scene_labels(options.labels, whole, coding, options.limit) if options.labels else None
    output, replaced = _output(options, scenes, stitched) if writes else (None, False)
    if truths is not None and options.align:
        truths = aligned(truths, scenes, coding.ids, coding.palette is not None)
    elif truths is not None:
        check_places(scenes, truths)
        _check_truths(scenes, truths)
    elif options.align:
        raise PlanError("--align without --labels: it warps true masks onto the scene; leave it out")
    if scenes.tagged_alpha:
        console.say(
            f"{scenes.name}: its last band is tagged as alpha and goes to the nets like the others; "
            "[input] alpha = true in the plan makes it a mask"
        )
    sample = _first_tile(scenes, tiling)
    ensemble = open_ensemble(plan, replace(options, tiled=True), sample)
    check_evidence(ensemble, options.files.evidence)
    if output is not None:
        check_form(ensemble, output, options.rle)
    check_range(next(sample.batches(1)).pixels, (net for member in ensemble.members for net in member.nets))
    truths = coded_scenes(truths, ensemble.coding) if truths is not None else None
    if stitched is not None and options.out_of_fold:
        predict_pictures_out_of_fold(ensemble, stitched)
    tiling = with_stride(ensemble, tiling, scenes.channels)
    resampled = _read(scenes, ensemble, table)
    if options.files.evidence and resampled.sizes != scenes.sizes:
        raise PlanError(
            f"{scenes.name} is read at the ground resolution of the models, so --scores and --doubt would lie on other "
            'pixels than its own: leave them out, or put resolution = "ignore" under [input] of the plan'
        )
    found = _hashes(options, ensemble, plan.input.alpha) if writes else ("", "")
    base = Job(
        ensemble,
        sample,
        None,
        output,
        None,
        resume=options.resume,
        replace=replaced,
        input_sha256=found[0],
        labels_sha256=found[1],
        places=_places(options, scenes),
        files=options.files,
        read=read,
    )
    return TiledJob(base, scenes, truths, tiling, resampled, table, plan.output, stitched)


def _output(options: Options, scenes: Scenes, stitched: StitchedImages | None) -> tuple[Path, bool]:
    """Return where the masks go, checked, and whether what is there is replaced."""
    usual = "submission.csv" if stitched is not None else "mask.png" if scenes.alone else "masks"
    output = options.output or Path(usual)
    replaced = may_replace(output, options.resume, options.overwrite)
    masks = scenes if stitched is None else stitched
    _check_output(output, options, scenes.alone, masks.size, replaced)
    options.files.check(output, options, replaced, alone=None if stitched is not None else scenes.alone)
    check_names_of(output, masks.ids, masks.named, options.resume)
    return output, replaced


def _hashes(options: Options, ensemble: Ensemble, alpha: bool | None) -> tuple[str, str]:
    """Return what identifies scenes and true labels."""
    labels = labels_fingerprint(options.labels, ensemble.coding)
    images = _read_as(fingerprint(options.input), "alpha" if alpha else "")
    return images, _read_as(labels, "align" if options.align else "")


def _read(scenes: Scenes, ensemble: Ensemble, table: InputTable) -> Scenes:
    """Return the scenes as the members read them."""
    resolution = None if table.resolution == "ignore" else ground_resolution(ensemble.members)
    return scenes if resolution is None else at_resolution(scenes, resolution)


def _places(options: Options, scenes: Scenes) -> dict[str, Georeference]:
    """Return where scenes lie, by id, for the areas in a table."""
    if options.files.per_image is None:
        return {}
    with contextlib.closing(scenes.each()) as opened:
        return {scene.id: scene.georeference for scene in opened if scene.georeference is not None}


def _read_as(found: str, read_as: str) -> str:
    """Return the fingerprint of an input; of one that is read in another way than its file says, another one."""
    return hashlib.sha256(f"{found}\0{read_as}".encode()).hexdigest() if read_as else found


def _refuse_others(options: Options) -> None:
    refused = {
        "--early-exit": options.early_exit or options.early_exit_agreement is not None,
        "--preview": options.preview is not None,
        "--on-bad-image": options.on_bad_image != "fail",
        "--rle": bool(options.rle),
    }
    for option, given in refused.items():
        if given:
            raise PlanError(f"{option} does not work on tiles of a scene: leave out {option} or --tile")


def _check_output(output: Path, options: Options, alone: bool, size: tuple[int, int] | None, replaced: bool) -> None:
    """Refuse an output that cannot take the mask of one scene, or masks of one size or (None) of several."""
    if alone:
        check_output(output, replaced, allowed=(*ROW_FILES, *VECTOR_FORMS), told=ONE_SCENE)
        if form_of(output) in VECTOR_FORMS:
            check_vectors(output)
        if form_of(output) in (".tif", ".tiff"):
            require("rasterio", "geo", f"writing {output} needs rasterio", OutputError)
    elif size is None:
        check_output(output, replaced, allowed=(FOLDER,), told=SEVERAL_SIZES)
    else:
        check_output(output, replaced)
    check_sidecar(output, replaced)
    check_not_read(output, "masks", {"--input": options.input, "--labels": options.labels})


def _check_truths(scenes: Scenes, truths: Scenes) -> None:
    if len(scenes.ids) != len(truths.ids):
        raise InputError(
            f"{truths.name} holds {len(truths.ids)} label maps, {scenes.name} holds {len(scenes.ids)}: give one each"
        )
    for name, size, true_size in zip(scenes.ids, scenes.sizes, truths.sizes, strict=True):
        if size != true_size:
            raise InputError(
                f"{truths.name}: the label map of {name} is {true_size[0]}x{true_size[1]}, "
                f"the scene {size[0]}x{size[1]}: they must be of one size"
            )


def _first_tile(scenes: Scenes, tiling: Tiling) -> Source:
    """Return a source of one image, the first tile that holds data: what the members are checked on."""
    with contextlib.closing(scenes.each()) as opened:
        found = (
            row.tiles(row.columns_with_data[:1])
            for scene in opened
            for row in tile_rows(scene, *tiling.axes(scene.size))
        )
        pixels = next((tiles for tiles in found if len(tiles)), None)
    if pixels is None:
        raise InputError(f"{scenes.name} holds no {'data at any pixel' if scenes.ids else 'images'}: take it out")

    def read(size: int) -> Iterator[NDArray[Any]]:
        yield pixels

    return Source(f"a tile of {scenes.name}", ["0"], tiling.tile, scenes.channels, read)

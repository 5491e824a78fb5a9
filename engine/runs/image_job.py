"""From the options of ``engine ensemble`` to a checked job: invalid input is refused before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.errors import OutputError, PlanError
from engine.fusion.compiling import Wanted, begin_compiling
from engine.fusion.strategies import STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.inference.evidence import check_evidence
from engine.inference.prediction import BadImages
from engine.outputs.open import (
    FOLDER,
    check_names,
    check_not_read,
    check_output,
    check_replaceable,
    check_rle,
    class_mask_names,
    form_of,
)
from engine.outputs.sidecar import check_sidecar
from engine.runs.durable.resume import incomplete_output, left_over, may_replace, run_folder, skipped_list
from engine.runs.evidence_files import EvidenceFiles
from engine.runs.opened import open_ensemble
from engine.runs.options import Options, planned, reading_of
from engine.runs.out_of_fold import check_folds, predict_out_of_fold
from engine.runs.plan import Plan
from engine.runs.plan_member import PlannedMember
from engine.samples import SAMPLES
from engine.sources.base import Source
from engine.sources.coding import PLAIN
from engine.sources.fingerprint import fingerprint, labels_fingerprint
from engine.sources.georeference import Georeference
from engine.sources.labels import open_truth
from engine.sources.open import open_source
from engine.sources.places import check_same_places, places_of, with_nodata
from engine.sources.slices import limited
from engine.sources.unchanged import Unchanged
from engine.utils import console

SAMPLE_SCENES = 512
ON_BAD_IMAGE = ("fail", "skip")


@dataclass(frozen=True)
class Job:
    """A checked job.

    Attributes:
        ensemble: the members, opened.
        images: the images to predict.
        labels: true label maps, or None.
        output: path of the masks, or None.
        preview: path of the picture, or None.
        resume: continue an interrupted run.
        replace: whether an existing output may be replaced.
        bad: records images that cannot be predicted; None if they are an error.
        input_sha256: fingerprint of the images.
        labels_sha256: fingerprint of the true label maps; empty without labels.
        rle: the format of run lengths to write; empty for the one that the output's name says.
        places: where the images lie, by id, for masks in a folder.
        files: what is written beside the masks.
        read: what must not change until the masks are complete.
    """

    ensemble: Ensemble
    images: Source
    labels: Source | None
    output: Path | None
    preview: Path | None
    resume: bool = False
    replace: bool = False
    bad: BadImages | None = None
    input_sha256: str = ""
    labels_sha256: str = ""
    rle: str = ""
    places: Mapping[str, Georeference] = field(default_factory=dict)
    files: EvidenceFiles = field(default_factory=EvidenceFiles)
    read: Unchanged = field(default_factory=Unchanged)


def prepare(options: Options) -> Job:
    """Open and check everything that a run needs.

    Raises:
        EngineError: the first problem found, in one line.
    """
    plan = planned(options)
    if plan is None and not options.input:
        return _sample_job(options)
    if plan is None:
        raise PlanError("no models: name them with --models or --plan")
    if not options.input:
        raise PlanError("no images: name them with --input")
    output = options.output or Path("submission.csv")
    replaced = _check_outputs(options, output)
    bad = _bad_images(options)
    reading = reading_of(plan, options)
    read = Unchanged(options.input, options.labels)
    whole = open_source(options.input, bad=bad.add if bad is not None else None, reading=reading)
    check_names_of(output, whole.ids, whole.named, options.resume)
    if options.labels:
        check_same_places(options.input, options.labels)
    ensemble = open_ensemble(plan, options, whole, whole)
    check_evidence(ensemble, ensemble.with_unknown(options.files.evidence))
    check_form(ensemble, output, options.rle)
    if ensemble.is_multilabel and form_of(output) not in (".npy", ".npz"):
        check_names_of(output, class_mask_names(whole.ids, ensemble.classes), True, options.resume)
    images = limited(whole, options.limit)
    if options.out_of_fold:
        check_folds(ensemble)
        predict_out_of_fold(ensemble, images)
    coding = with_nodata(ensemble.coding, options.labels, len(ensemble.classes)) if options.labels else PLAIN
    labels = open_truth(options.labels, whole, coding, options.limit) if options.labels else None
    return Job(
        ensemble,
        images,
        labels,
        output,
        options.preview,
        resume=options.resume,
        replace=replaced,
        bad=bad,
        input_sha256=fingerprint(options.input),
        labels_sha256=labels_fingerprint(options.labels, ensemble.coding),
        rle=options.rle,
        places=_places(options.input) if _needs_places(output, options.files) else {},
        files=options.files,
        read=read,
    )


def check_form(ensemble: Ensemble, output: Path, rle: str) -> None:
    """Refuse forms that cannot say that a pixel is unknown: there it would be background.

    Raises:
        OutputError: Kaggle's or COCO's run lengths of an ensemble that leaves pixels unknown.
    """
    if ensemble.unknown is not None and (rle in ("kaggle", "coco") or form_of(output) == ".json"):
        raise OutputError(
            f"{output}: run lengths of the foreground alone cannot tell unknown pixels from background: choose another "
            "form, or leave out --unknown"
        )


def _needs_places(output: Path, files: EvidenceFiles) -> bool:
    maps = [path for path in (output, files.scores, files.doubt) if path is not None]
    return files.per_image is not None or any(form_of(path) == FOLDER for path in maps)


def check_names_of(output: Path, ids: Sequence[str], named: bool, resume: bool) -> None:
    """Refuse images whose names cannot become files; where a run was interrupted, say how another form takes it over.

    Args:
        output: file or folder to make.
        ids: names of all images.
        named: whether they are names of their own, and not row numbers.
        resume: continue an interrupted run.

    Raises:
        OutputError: naming the first.
    """
    try:
        check_names(output, ids, named)
    except OutputError as error:
        left = left_over(output) if resume else None
        if left is None:
            raise
        other = output.with_name(f"{output.name}.npz")
        raise OutputError(
            f"{error}; to keep what is finished, rename {run_folder(output)} to {run_folder(other)} and go on with "
            f"--output {other} --resume"
        ) from None


def _places(spec: str) -> dict[str, Georeference]:
    """Return where images lie, by id; say where some of them state a value for no data, which only tiles leave out."""
    found = places_of(spec)
    stating = next((name for name, raster in found.items() if raster.nodata is not None), None)
    if stating is not None:
        console.say(
            f"warning: {stating} of {spec} states a nodata value ({found[stating].nodata:g}); without --tile such "
            "pixels are predicted like all others: add --tile HEIGHTxWIDTH"
        )
    return {name: raster.place for name, raster in found.items() if raster.place is not None}


def _bad_images(options: Options) -> BadImages | None:
    if options.on_bad_image not in ON_BAD_IMAGE:
        raise PlanError(f"--on-bad-image {options.on_bad_image}; allowed are {' and '.join(ON_BAD_IMAGE)}")
    return BadImages() if options.on_bad_image == "skip" else None


def _sample_job(options: Options) -> Job:
    from engine.samples.scenes import BACKGROUND, CLASSES, generate
    from engine.sources.base import from_array

    if options.labels:
        raise PlanError("--labels without --input: the sample scenes have their own labels")
    output = options.output or Path("submission.csv")
    preview = options.preview or Path("preview.png")
    options = replace(options, preview=preview)
    replaced = _check_outputs(options, output)
    # What the nets of the sample declare, unless an option says otherwise; drawing scenes takes seconds.
    begin_compiling(STRATEGIES, Wanted(len(CLASSES), frozenset({BACKGROUND})))
    scenes = generate(min(options.limit, SAMPLE_SCENES) if options.limit else SAMPLE_SCENES)
    images = from_array(scenes.images, "images", "sample scenes")
    labels = from_array(scenes.labels, "labels", "sample labels")
    plan = Plan((PlannedMember(str(SAMPLES)),))
    ensemble = open_ensemble(plan, options, images)
    check_evidence(ensemble, ensemble.with_unknown(options.files.evidence))
    return Job(
        ensemble,
        images,
        labels,
        output,
        preview,
        options.resume,
        replaced,
        _bad_images(options),
        "samples",
        rle=options.rle,
        files=options.files,
    )


def _check_outputs(options: Options, output: Path) -> bool:
    """Refuse outputs that cannot be written; return whether existing ones may be replaced."""
    check_rle(output, options.rle)
    replaced = may_replace(output, options.resume, options.overwrite)
    outputs = [output, incomplete_output(output)] if options.on_bad_image == "skip" else [output]
    for path in outputs:
        check_output(path, replaced)
        check_sidecar(path, replaced)
        check_not_read(path, "masks", {"--input": options.input, "--labels": options.labels})
    if len(outputs) > 1:
        check_replaceable(skipped_list(output), replaced)
        options.files.moved(incomplete_output).check(output, options, replaced)
    options.files.check(output, options, replaced)
    if options.preview is not None:
        if options.preview.is_dir():
            raise OutputError(f"--preview {options.preview} is a folder: name a .png file")
        if options.preview.suffix.lower() != ".png":
            raise PlanError(f"--preview {options.preview}: the picture is a .png")
        check_replaceable(options.preview, options.overwrite or options.resume)
    return replaced

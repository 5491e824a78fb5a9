"""``engine ensemble``: predict masks with several nets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.options import (
    RUN,
    STRATEGY_NAMES,
    AsJson,
    BatchSize,
    Doubt,
    DoubtMap,
    DoubtType,
    GreyAsRgb,
    ImageLayout,
    Memory,
    MissingChunks,
    Models,
    PerImage,
    Precision,
    Provider,
    Rle,
    Runtime,
    Scores,
    ScoresType,
    UnknownAbove,
    Workers,
    contract_fields,
    truth_fields,
)
from engine.errors import PlanError
from engine.outputs.path import output_path
from engine.utils.console import with_options

if TYPE_CHECKING:
    from engine.runs.on_ray.cluster import Cluster
    from engine.runs.options import Options
    from engine.runs.plan_input import InputTable

RAY = "On a cluster"
FUSION = "How to fuse and decode"


@with_options(truth_fields, "truth")
@with_options(contract_fields, "stated")
def ensemble(
    models: Models = None,
    input: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            help="Images: .npz, .npz:KEY, .npy, .zarr, a folder of pictures or a pattern; with --tile one picture.",
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=output_path,
            metavar="PATH",
            help="Masks: submission .csv (default submission.csv), run lengths .rle.csv or .json, .npz, .npy, .zarr or "
            "a folder of PNGs; for one scene .png, .tif, .npy or .zarr, or polygons (.gpkg, .parquet, .geojson).",
        ),
    ] = None,
    scores: Scores = None,
    scores_type: ScoresType = "",
    doubt: Doubt = None,
    doubt_map: DoubtMap = "",
    doubt_type: DoubtType = "",
    per_image: PerImage = None,
    unknown: UnknownAbove = None,
    plan: Annotated[
        Path | None, typer.Option(help="An ensemble.toml with members, weights, strategy and decoding.")
    ] = None,
    labels: Annotated[str, typer.Option(help="True masks of the same images, to score the predictions.")] = "",
    rle: Rle = "",
    strategy: Annotated[
        str | None,
        typer.Option(help=STRATEGY_NAMES, rich_help_panel=FUSION),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="One weight per member, in the order of --models: 2,1,0.5.", rich_help_panel=FUSION)
    ] = "",
    suppress: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Never predict this class (id or name; repeatable); the next best replaces it. Default: the "
            "ignored class that the models declare.",
            rich_help_panel=FUSION,
        ),
    ] = None,
    no_suppress: Annotated[
        bool, typer.Option("--no-suppress", help="Allow all classes to be predicted.", rich_help_panel=FUSION)
    ] = False,
    vote_stage: Annotated[
        str | None,
        typer.Option(
            help="For vote and staple: members (each votes among the allowed classes) or fused (vote first, then "
            "suppress).",
            rich_help_panel=FUSION,
        ),
    ] = None,
    bias: Annotated[
        str, typer.Option(help="Added to the fused score of each class: 0,0,0.1,0,0.3.", rich_help_panel=FUSION)
    ] = "",
    prior: Annotated[
        str,
        typer.Option(
            help="Ratio of target to training frequency per class: 1,1,1,1,3. Multiplies probabilities.",
            rich_help_panel=FUSION,
        ),
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Suppress only where the class's probability is below this. Default: everywhere.",
            rich_help_panel=FUSION,
        ),
    ] = None,
    min_region: Annotated[
        int | None,
        typer.Option(help="Relabel regions of fewer pixels to the surrounding class.", rich_help_panel=FUSION),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            help="argmax, or for the score of whole images: rankseg (IoU) or rankseg-dice.", rich_help_panel=FUSION
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            "--views",
            "--flips",
            metavar="NAME,...",
            help="Also run members on views of each image, and average: horizontal, vertical, both (mirror images), d4 "
            "(rotations by 90 degrees too), rotate90, rotate180, rotate270, transpose, transverse, shift:DOWN:RIGHT, "
            "scale:FACTOR; none.",
            rich_help_panel=FUSION,
        ),
    ] = None,
    early_exit: Annotated[
        bool,
        typer.Option(
            "--early-exit",
            help="Run the fastest members first and stop for an image once none of its labels can change "
            "(exact; vote and mean-prob).",
            rich_help_panel=RUN,
        ),
    ] = False,
    early_exit_agreement: Annotated[
        float | None,
        typer.Option(
            help="Stop for an image once this share of its pixels is settled (approximate; the agreement with all "
            "members is measured and printed).",
            rich_help_panel=RUN,
        ),
    ] = None,
    out_of_fold: Annotated[
        bool,
        typer.Option(
            "--out-of-fold",
            help="The images are those that members with folds were trained on: predict each by the net that did not "
            "see it, in place of their mean.",
            rich_help_panel=RUN,
        ),
    ] = False,
    batch_size: BatchSize = 0,
    workers: Workers = 0,
    provider: Provider = "auto",
    runtime: Runtime = "",
    precision: Precision = "float32",
    limit: Annotated[int, typer.Option(help="Use only the first N images; 0 means all.", rich_help_panel=RUN)] = 0,
    preview: Annotated[
        Path | None,
        typer.Option(help="Also draw image, ground truth, fused mask and disagreement (.png).", rich_help_panel=RUN),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Cut images of any size into overlapping tiles, as in 64x128, and blend their logits; for scenes "
            "(.png, .tif, .zarr, ...) and folders of pictures of different sizes.",
            rich_help_panel=RUN,
        ),
    ] = "",
    stitch: Annotated[
        bool,
        typer.Option(
            "--stitch",
            help="With --tile: put overlapping images back together first (found by equal pixels), predict the "
            "pictures they make, and write the masks of the images.",
            rich_help_panel=RUN,
        ),
    ] = False,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Overlap of adjacent tiles as a share of a tile, from 0 to below 1. Default: 0.5.", rich_help_panel=RUN
        ),
    ] = None,
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="With --tile: warp the true masks onto the scenes where they have another CRS, transform or extent "
            "(nearest pixel; outside of them nothing is scored).",
            rich_help_panel=RUN,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs.", rich_help_panel=RUN)
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted run with the same output.", rich_help_panel=RUN),
    ] = False,
    on_bad_image: Annotated[
        str,
        typer.Option(
            help="fail, or skip: leave out images that cannot be read or predicted, list them in OUTPUT.skipped.txt, "
            "write the rest as incomplete-OUTPUT and exit with code 3.",
            rich_help_panel=RUN,
        ),
    ] = "fail",
    on: Annotated[
        str, typer.Option(help="Where to run: here, or ray (a cluster of one or many machines).", rich_help_panel=RAY)
    ] = "here",
    ray_address: Annotated[
        str,
        typer.Option(
            help="Address of the Ray cluster: auto or ray://head:10001. Default: a cluster on this machine.",
            rich_help_panel=RAY,
        ),
    ] = "",
    gpus_per_worker: Annotated[
        float, typer.Option(help="GPUs of each Ray worker; 0.5 lets two share one.", rich_help_panel=RAY)
    ] = 0.0,
    memory: Memory = "",
    as_json: AsJson = False,
    grey_as_rgb: GreyAsRgb = False,
    image_layout: ImageLayout = "",
    missing_chunks: MissingChunks = "",
    *,
    stated: dict[str, Any],
    truth: Any,
) -> None:
    """Predict masks with several nets and write them.

    Examples:
      engine ensemble

      engine ensemble -m models/ -i mars_for_students.npz -o submission.csv

      engine ensemble -m a.onnx -m b.onnx -i tiles/ -o masks/ --strategy vote --suppress 0

      engine ensemble -m models/ -i panorama.tif -o mask.tif --tile 64x128
    """
    from engine.cli.printing import report, say_next
    from engine.inference.tuning import make_ready, tell
    from engine.models.runtimes import DEFAULT, RuntimeOptions
    from engine.runs.durable.resume import recorded_runtime
    from engine.runs.evidence_files import EvidenceFiles
    from engine.runs.image_job import prepare
    from engine.runs.image_run import run_job
    from engine.runs.options import Options

    options = Options(
        models=models or (),
        input=input,
        output=output,
        plan=plan,
        labels=labels,
        strategy=strategy,
        weights=weights,
        suppress=suppress or (),
        no_suppress=no_suppress,
        vote_stage=vote_stage,
        bias=bias,
        prior=prior,
        threshold=threshold,
        min_region=min_region,
        decode=decode,
        unknown=unknown,
        views=views,
        early_exit=early_exit,
        early_exit_agreement=early_exit_agreement,
        limit=limit,
        preview=preview,
        overwrite=overwrite,
        grey_as_rgb=grey_as_rgb,
        image_layout=image_layout,
        missing_chunks=missing_chunks,
        resume=resume,
        on_bad_image=on_bad_image,
        rle=rle,
        align=align,
        stitch=stitch,
        out_of_fold=out_of_fold,
        files=EvidenceFiles(scores, scores_type, doubt, doubt_map, doubt_type, per_image),
        stated=stated,
        truth=truth,
    )
    decided = runtime or (recorded_runtime(output or Path("submission.csv")) or DEFAULT if resume else "")
    runtime_options = RuntimeOptions(provider, decided or DEFAULT, precision, stated=bool(decided) or on != "here")
    cluster = _cluster(on, ray_address, workers, gpus_per_worker)
    stated_input = _input_of(options)
    tile = tile or stated_input.tile
    if on == "ray" and (stitch or stated_input.stitch):
        raise PlanError("--on ray does not put images together: leave out --stitch, or run here")
    if out_of_fold and on == "ray":
        raise PlanError("--out-of-fold with --on ray: leave one of them out")
    if out_of_fold and tile and not (stitch or stated_input.stitch):
        raise PlanError("--out-of-fold with --tile: add --stitch, or leave one of them out")
    if tile:
        from engine.runs.scene_job import prepare_tiled
        from engine.runs.scene_run import run_tiled

        scenes = prepare_tiled(options, tile, overlap)
        if on == "ray":
            from engine.runs.on_ray.scenes import scenes_on_ray

            more = (options, runtime_options, cluster, tile, overlap, batch_size)
            outcome = run_tiled(scenes, 1, workers, overwrite, scenes_on_ray(scenes, *more))
            report(scenes.base, outcome, as_json)
            say_next(scenes.base)
            return
        how = make_ready(scenes.base.ensemble, None, runtime_options, batch_size, workers)
        tiles = batch_size or scenes.needs.fitting_batch(how.batch_size, how.workers)
        outcome = run_tiled(scenes, tiles, how.workers, overwrite)
        tell(how)
        report(scenes.base, outcome, as_json)
        say_next(scenes.base)
        return
    if overlap is not None:
        raise PlanError("--overlap without --tile: say how large a tile is, as in --tile 64x128")
    if align:
        raise PlanError("--align without --tile: say how large a tile is, as in --tile 64x128")
    if stitch:
        raise PlanError("--stitch without --tile: say how large tiles of the pictures are, as in --tile 128x256")
    job = prepare(options)
    if on == "ray":
        if job.files.files:
            raise PlanError(f"--on ray writes masks alone: leave out {', '.join(job.files.files)}, or run here")
        from engine.runs.on_ray.stream import on_ray

        outcome = run_job(job, 1, workers, overwrite, on_ray(job, options, runtime_options, cluster, batch_size))
    else:
        scored = job.labels is not None
        how = make_ready(job.ensemble, job.images, runtime_options, batch_size, workers, scored)
        outcome = run_job(job, how.batch_size, how.workers, overwrite)
        tell(how)
    code = report(job, outcome, as_json)
    if code:
        raise typer.Exit(code)
    say_next(job)


def _input_of(options: Options) -> InputTable:
    """Return what the plan states about images."""
    from engine.runs.options import planned
    from engine.runs.plan_input import InputTable

    plan = planned(options) if options.plan is not None else None
    return InputTable() if plan is None else plan.input


def _cluster(on: str, address: str, workers: int, gpus: float) -> Cluster:
    """Check the Ray options before anything is opened."""
    from engine.errors import PlanError
    from engine.runs.on_ray.cluster import Cluster

    if on not in ("here", "ray"):
        raise PlanError(f"--on {on}; allowed are here and ray")
    if on == "here" and (address or gpus):
        raise PlanError("--ray-address and --gpus-per-worker go with --on ray: add it, or leave them out")
    return Cluster(address, workers if on == "ray" else 0, gpus)

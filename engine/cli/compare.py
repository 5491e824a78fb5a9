"""``engine compare``: compare all members and strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.options import (
    AsJson,
    GreyAsRgb,
    Groups,
    ImageLayout,
    Memory,
    MissingChunks,
    Models,
    PoolPlan,
    Workers,
    command_line,
    contract_fields,
    truth_fields,
)
from engine.utils import console
from engine.utils.console import with_options

HOW = "How to compare"
RUN = "How to run"


@with_options(truth_fields, "truth")
@with_options(contract_fields, "stated")
def compare(
    models: Models = None,
    plan: PoolPlan = None,
    input: Annotated[
        str, typer.Option("--input", "-i", help="Images: .npz, .npz:KEY, .npy or a folder of pictures.")
    ] = "",
    labels: Annotated[
        str, typer.Option(help="True masks of the same images. Without them: only speed, agreement and class shares.")
    ] = "",
    groups: Groups = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Store the run in this .npz, for engine report.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="Metric for sorting, tuning and selection: keras-ignore, labelled, all, foreground or per-image. "
            "All five are reported.",
            rich_help_panel=HOW,
        ),
    ] = "keras-ignore",
    suppress: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Class never predicted when suppressed or tuned. Default: the one that the models ignore.",
            rich_help_panel=HOW,
        ),
    ] = None,
    no_suppress: Annotated[
        bool, typer.Option("--no-suppress", help="Allow all classes to be predicted.", rich_help_panel=HOW)
    ] = False,
    ablation: Annotated[
        bool, typer.Option(help="Also add one step of the pipeline at a time.", rich_help_panel=HOW)
    ] = True,
    views: Annotated[
        str,
        typer.Option(
            "--views",
            "--flips",
            metavar="NAME,...",
            help="Views in the ablation, as of engine ensemble; none leaves the step out.",
            rich_help_panel=HOW,
        ),
    ] = "horizontal",
    folds: Annotated[int, typer.Option(help="Number of folds for cross-fitting.", rich_help_panel=HOW)] = 5,
    pixels: Annotated[
        int, typer.Option(help="Number of pixels on which biases and members are searched.", rich_help_panel=HOW)
    ] = 50_000,
    seed: Annotated[int, typer.Option(help="Random seed for folds, sample and intervals.", rich_help_panel=HOW)] = 0,
    gallery: Annotated[
        int,
        typer.Option(
            help="Tiles stored for the report: this many each of the worst, the most disputed, and the rarest class.",
            rich_help_panel=HOW,
        ),
    ] = 8,
    batch_size: Annotated[int, typer.Option(help="Images per batch.", rich_help_panel=RUN)] = 4,
    workers: Workers = 0,
    limit: Annotated[int, typer.Option(help="Use only the first N images; 0 means all.", rich_help_panel=RUN)] = 0,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder for the members' logits during the run. Default: the system's.", rich_help_panel=RUN),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run file.", rich_help_panel=RUN)
    ] = False,
    memory: Memory = "",
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the results as CSV on stdout, one line per row and convention.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list rows with the same scores as another one.")
    ] = False,
    grey_as_rgb: GreyAsRgb = False,
    image_layout: ImageLayout = "",
    missing_chunks: MissingChunks = "",
    *,
    stated: dict[str, Any],
    truth: Any,
) -> None:
    """Compare all members and fusion strategies, raw, suppressed and tuned: score, interval, speed.

    Members run once; all strategies use the same exact logits. Differences are to the best single member, on the same
    images. Biases are cross-fitted: no image is scored with a bias fitted on it.

    Examples:
      engine compare -m models/ -i val.npz --labels val.npz --groups val.npz:groups -o run.npz

      engine report run.npz --out report.html
    """

    from engine.compare.command import compare as run_comparison
    from engine.compare.options import CompareOptions
    from engine.compare.printing import print_comparison
    from engine.errors import PlanError
    from engine.runs.options import Options
    from engine.utils.progress import bars

    if as_json and as_csv:
        raise PlanError("--json and --csv: give one of them")
    job = Options(
        models=models or (),
        plan=plan,
        input=input,
        labels=labels,
        suppress=suppress or (),
        no_suppress=no_suppress,
        limit=limit,
        grey_as_rgb=grey_as_rgb,
        image_layout=image_layout,
        missing_chunks=missing_chunks,
        stated=stated,
        truth=truth,
    )
    options = CompareOptions(
        job,
        out,
        groups=groups,
        metric=metric,
        folds=folds,
        pixels=pixels,
        seed=seed,
        views=views,
        ablation=ablation,
        gallery=gallery,
        scratch=scratch,
        batch_size=batch_size,
        workers=workers,
        overwrite=overwrite,
        command=command_line(),
    )
    with bars() as starting:
        done = run_comparison(options, starting)
    print_comparison(done, "json" if as_json else "csv" if as_csv else "table", out, everything)
    if out is not None:
        console.say_next("engine", "report", out, "--out", out.with_suffix(".html"))
    else:
        names = ("--models", "MODELS", "--input", "IMAGES", "--labels", "TRUE_MASKS")
        console.say_next("engine", "select", *names, "--out", "ensemble.toml")

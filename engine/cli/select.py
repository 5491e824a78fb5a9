"""``engine select``: choose members, weights and decoding on validation images."""

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
    command_line,
    contract_fields,
    truth_fields,
)
from engine.utils import console
from engine.utils.console import with_options

SEARCH = "How to search"


@with_options(truth_fields, "truth")
@with_options(contract_fields, "stated")
def select(
    models: Models = None,
    plan: PoolPlan = None,
    input: Annotated[str, typer.Option("--input", "-i", help="Validation images, as for engine ensemble.")] = "",
    labels: Annotated[str, typer.Option(help="True masks of the same images.")] = "",
    groups: Groups = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="The plan file to write.")] = Path("ensemble.toml"),
    metric: Annotated[
        str, typer.Option(help="Metric to maximise: keras-ignore, labelled, all, foreground or per-image.")
    ] = "keras-ignore",
    method: Annotated[
        str,
        typer.Option(help="greedy (with replacement), or exhaustive for pools of up to 12.", rich_help_panel=SEARCH),
    ] = "greedy",
    strategies: Annotated[
        list[str] | None,
        typer.Option(help="Strategies to try, separated by commas. Default: all but staple.", rich_help_panel=SEARCH),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Number of members that greedy selection adds.", rich_help_panel=SEARCH)
    ] = 20,
    bags: Annotated[
        int, typer.Option(help="Sum the greedy selections from this many random halves.", rich_help_panel=SEARCH)
    ] = 0,
    pixels: Annotated[int, typer.Option(help="Number of pixels to search on.", rich_help_panel=SEARCH)] = 100_000,
    folds: Annotated[int, typer.Option(help="Number of folds for the cross-fitted score.", rich_help_panel=SEARCH)] = 5,
    seed: Annotated[
        int, typer.Option(help="Random seed for sample, folds, bags and intervals.", rich_help_panel=SEARCH)
    ] = 0,
    bias: Annotated[bool, typer.Option(help="Search class biases.", rich_help_panel=SEARCH)] = True,
    threshold: Annotated[bool, typer.Option(help="Search a suppression threshold.", rich_help_panel=SEARCH)] = True,
    clean_up: Annotated[bool, typer.Option(help="Try the clean-up of small regions.", rich_help_panel=SEARCH)] = True,
    budget: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Approximate time for the search; the best found until then is written. 0: no limit.",
            rich_help_panel=SEARCH,
        ),
    ] = 0.0,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Fit temperature and bias of members and fused scores, kept where the log loss of other folds falls.",
            rich_help_panel=SEARCH,
        ),
    ] = False,
    rankseg: Annotated[
        bool,
        typer.Option(
            "--rankseg", help="Try labels that are decided for whole images (RankSEG-RMA).", rich_help_panel=SEARCH
        ),
    ] = False,
    unknown_risk: Annotated[
        float | None,
        typer.Option(
            metavar="RISK",
            help="Also calibrate a threshold of doubt, above which pixels get no class: of a new group, expected, at "
            "most this share of the pixels then has a wrong class (0.05; conformal risk control over --groups).",
        ),
    ] = None,
    doubt_map: Annotated[
        str, typer.Option(help="For --unknown-risk: entropy (default), mutual-information, votes or margin.")
    ] = "entropy",
    suppress: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Class never predicted. Default: the one that the models ignore."),
    ] = None,
    no_suppress: Annotated[bool, typer.Option("--no-suppress", help="Allow all classes to be predicted.")] = False,
    views: Annotated[
        str | None,
        typer.Option(
            "--views",
            "--flips",
            metavar="NAME,...",
            help="Run members on views of the image too, as engine ensemble does; auto tries horizontal, both and d4, "
            "auto:SET/SET your own, and keeps what helps.",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that stores the members' probabilities for later selections.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing plan.")] = False,
    memory: Memory = "",
    as_json: AsJson = False,
    grey_as_rgb: GreyAsRgb = False,
    image_layout: ImageLayout = "",
    missing_chunks: MissingChunks = "",
    *,
    stated: dict[str, Any],
    truth: Any,
) -> None:
    """Select members, weights, strategy and biases on validation images and write them as a plan.

    The score to trust is the cross-fitted one: each image is scored by a selection made without its scene.

    Example:
      engine select -m pool/ -i val.npz --labels val.npz --groups val.npz:groups -o ensemble.toml
    """

    from engine.runs.options import Options
    from engine.select.command import select as run_selection
    from engine.select.options import SelectOptions, with_strategies
    from engine.select.printing import print_selection
    from engine.select.search import Settings
    from engine.utils.progress import bars

    job = Options(
        models=models or (),
        plan=plan,
        input=input,
        labels=labels,
        suppress=suppress or (),
        no_suppress=no_suppress,
        views=views,
        overwrite=overwrite,
        grey_as_rgb=grey_as_rgb,
        image_layout=image_layout,
        missing_chunks=missing_chunks,
        stated=stated,
        truth=truth,
    )
    settings = Settings(method=method, rounds=rounds, bags=bags, seed=seed, bias=bias, threshold=threshold)
    options = SelectOptions(
        job,
        out,
        groups=groups,
        metric=metric,
        settings=with_strategies(settings, strategies or ()),
        folds=folds,
        pixels=pixels,
        clean_up=clean_up,
        budget=budget,
        ranked=rankseg,
        calibrate=calibrate,
        unknown_risk=unknown_risk,
        doubt=doubt_map,
        cache=cache,
        command=command_line(),
    )
    with bars() as starting:
        done = run_selection(options, starting)
    print_selection(done, out, as_json)
    console.say_next("engine", "ensemble", "--plan", out, "--input", "IMAGES", "--output", "masks.csv")

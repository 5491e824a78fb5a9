"""The command line ``engine``: options in, one call out. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine import console

app = typer.Typer(
    name="engine",
    help="Fuse the masks of several segmentation nets (ONNX), fast and exactly.\n\n"
    "Without arguments, [bold]engine ensemble[/bold] shows the whole job on generated Mars scenes with the sample nets "
    "that come along. Results go to stdout, everything about the run to stderr. Exit code 2 means that the input or an "
    "option was refused and that nothing was written.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

FOREIGN = "Models without a contract (made by other tools)"
RUN = "How to run"
FUSION = "How to fuse and decode"
SEARCH = "How to search"

Models = Annotated[
    list[str] | None,
    typer.Option("--models", "-m", help="An .onnx file, a folder or a glob; repeatable. Specialists are gathered."),
]
Groups = Annotated[
    str,
    typer.Option(
        help="The scene each image belongs to: .npz, .npz:KEY or .npy, one value an image. Intervals and folds keep a "
        "scene together."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout instead of tables.")]
Classes = Annotated[str, typer.Option(help="Class names in label order, separated by commas.", rich_help_panel=FOREIGN)]
InputLayout = Annotated[str, typer.Option(help="Axes of the input: NCHW or NHWC.", rich_help_panel=FOREIGN)]
OutputLayout = Annotated[str, typer.Option(help="Axes of the output: NCHW or NHWC.", rich_help_panel=FOREIGN)]
Activation = Annotated[str, typer.Option(help="What comes out: logits or probabilities.", rich_help_panel=FOREIGN)]
Scale = Annotated[
    float | None, typer.Option(help="Factor on raw pixels: 1, or 0.00392157 for 0..1.", rich_help_panel=FOREIGN)
]
Mean = Annotated[
    str, typer.Option(help="Subtracted after scaling, one a channel: 0.5,0.4,0.3.", rich_help_panel=FOREIGN)
]
Std = Annotated[str, typer.Option(help="Divided by after that, one a channel.", rich_help_panel=FOREIGN)]
Ignored = Annotated[
    int | None, typer.Option("--ignored-class", help="Class the score leaves out.", rich_help_panel=FOREIGN)
]
GreyAsRgb = Annotated[
    bool,
    typer.Option("--grey-as-rgb", help="Repeat grey images over a net's three channels.", rich_help_panel=FOREIGN),
]
OutputName = Annotated[str, typer.Option(help="Which output to read, if there are several.", rich_help_panel=FOREIGN)]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Show the version when asked."""
    if version:
        from engine.version import VERSION

        typer.echo(f"maskfuse {VERSION}")
        raise typer.Exit


@app.command()
def ensemble(
    models: Models = None,
    input: Annotated[
        str, typer.Option("--input", "-i", help="Images: .npz, .npz:KEY, .npy or a folder of pictures.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Masks: submission .csv (default submission.csv), .npz, .npy or a folder."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="An ensemble.toml with members, weights, strategy and decoding.")
    ] = None,
    labels: Annotated[str, typer.Option(help="True masks of the same images, to score in the same run.")] = "",
    strategy: Annotated[
        str | None,
        typer.Option(
            help="mean-logit (default), mean-prob, vote, borda, max-confidence, entropy-weighted, median-prob, "
            "trimmed-mean or staple.",
            rich_help_panel=FUSION,
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="One weight a member, in the order of --models: 2,1,0.5.", rich_help_panel=FUSION)
    ] = "",
    suppress: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Never predict this class (id or name; repeatable): the next best takes its place. Default: the "
            "ignored class that the models declare.",
            rich_help_panel=FUSION,
        ),
    ] = None,
    no_suppress: Annotated[
        bool, typer.Option("--no-suppress", help="Let every class be predicted.", rich_help_panel=FUSION)
    ] = False,
    vote_stage: Annotated[
        str | None,
        typer.Option(
            help="For vote: members (each votes among the allowed classes) or fused (vote first, then replace).",
            rich_help_panel=FUSION,
        ),
    ] = None,
    bias: Annotated[
        str, typer.Option(help="Added to the fused score of each class: 0,0,0.1,0,0.3.", rich_help_panel=FUSION)
    ] = "",
    prior: Annotated[
        str,
        typer.Option(
            help="Target over training frequency of each class: 1,1,1,1,3. Multiplies probabilities.",
            rich_help_panel=FUSION,
        ),
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Suppress only where the class's probability is below this; without it, everywhere.",
            rich_help_panel=FUSION,
        ),
    ] = None,
    min_region: Annotated[
        int | None,
        typer.Option(help="Give regions of fewer pixels to the class around them.", rich_help_panel=FUSION),
    ] = None,
    flips: Annotated[
        str | None,
        typer.Option(
            help="Let members see mirror images too: none, horizontal, vertical or both.", rich_help_panel=FUSION
        ),
    ] = None,
    early_exit: Annotated[
        bool,
        typer.Option(
            "--early-exit",
            help="Run the cheapest members first and let an image leave when no label of it can change any more "
            "(exact; vote and mean-prob).",
            rich_help_panel=RUN,
        ),
    ] = False,
    early_exit_agreement: Annotated[
        float | None,
        typer.Option(
            help="Let an image leave when this share of its pixels is settled (approximate; the agreement with all "
            "members is measured and printed).",
            rich_help_panel=RUN,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a worker takes at a time.", rich_help_panel=RUN)] = 4,
    workers: Annotated[int, typer.Option(help="Threads; 0 means one a core.", rich_help_panel=RUN)] = 0,
    limit: Annotated[int, typer.Option(help="Only the first so many images; 0 means all.", rich_help_panel=RUN)] = 0,
    preview: Annotated[
        Path | None,
        typer.Option(help="Also draw image, truth, fused mask and disagreement (.png).", rich_help_panel=RUN),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs.", rich_help_panel=RUN)] = False,
    as_json: AsJson = False,
    classes: Classes = "",
    input_layout: InputLayout = "",
    output_layout: OutputLayout = "",
    activation: Activation = "",
    scale: Scale = None,
    mean: Mean = "",
    std: Std = "",
    ignored_class: Ignored = None,
    output_name: OutputName = "",
    grey_as_rgb: GreyAsRgb = False,
) -> None:
    """Predict masks with several nets at once and write them.

    Examples:
      engine ensemble

      engine ensemble -m models/ -i mars_for_students.npz -o submission.csv

      engine ensemble -m a.onnx -m b.onnx -i tiles/ -o masks/ --strategy vote --suppress 0
    """
    from engine.command import report, run_job
    from engine.job import Options, prepare

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
        flips=flips,
        early_exit=early_exit,
        early_exit_agreement=early_exit_agreement,
        limit=limit,
        preview=preview,
        overwrite=overwrite,
        grey_as_rgb=grey_as_rgb,
        stated=_stated(classes, input_layout, output_layout, activation, scale, mean, std, ignored_class, output_name),
    )
    job = prepare(options)
    report(job, run_job(job, batch_size, workers, overwrite), as_json)


@app.command()
def evaluate(
    predicted: Annotated[str, typer.Argument(metavar="PRED", help="Masks: submission .csv, .npz, .npy or a folder.")],
    labels: Annotated[str, typer.Option(help="True masks, in any of those forms.")],
    classes: Annotated[
        str, typer.Option(help="Class names, or how many there are. Default: what the masks hold.")
    ] = "",
    ignored_class: Annotated[str, typer.Option(help="Class left out of the score, or none.")] = "0",
    groups: Groups = "",
    as_json: AsJson = False,
) -> None:
    """Score masks under every MIoU convention, and say what class 0 costs."""
    from engine.evaluate import evaluate as score_masks
    from engine.evaluate import print_evaluation

    print_evaluation(score_masks(predicted, labels, classes, ignored_class, groups), as_json)


@app.command()
def select(
    models: Models = None,
    input: Annotated[str, typer.Option("--input", "-i", help="Validation images, as engine ensemble reads them.")] = "",
    labels: Annotated[str, typer.Option(help="True masks of the same images.")] = "",
    groups: Groups = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="The plan file to write.")] = Path("ensemble.toml"),
    metric: Annotated[
        str, typer.Option(help="What to maximise: keras-ignore, labelled, all, foreground or per-image.")
    ] = "keras-ignore",
    method: Annotated[
        str, typer.Option(help="greedy (with replacement), or exhaustive for pools up to 12.", rich_help_panel=SEARCH)
    ] = "greedy",
    strategies: Annotated[
        list[str] | None,
        typer.Option(help="Strategies to try, separated by commas. Default: all but staple.", rich_help_panel=SEARCH),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Members that greedy selection adds.", rich_help_panel=SEARCH)] = 20,
    bags: Annotated[
        int, typer.Option(help="Add up greedy selections from so many random halves.", rich_help_panel=SEARCH)
    ] = 0,
    pixels: Annotated[int, typer.Option(help="Pixels to search on.", rich_help_panel=SEARCH)] = 100_000,
    folds: Annotated[int, typer.Option(help="Folds of the honest score.", rich_help_panel=SEARCH)] = 5,
    seed: Annotated[int, typer.Option(help="Of sample, folds, bags and intervals.", rich_help_panel=SEARCH)] = 0,
    bias: Annotated[bool, typer.Option(help="Search class biases.", rich_help_panel=SEARCH)] = True,
    threshold: Annotated[bool, typer.Option(help="Search a suppression threshold.", rich_help_panel=SEARCH)] = True,
    clean_up: Annotated[bool, typer.Option(help="Try clean-up of small regions.", rich_help_panel=SEARCH)] = True,
    suppress: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Never predict this class. Default: the one that the models ignore."),
    ] = None,
    no_suppress: Annotated[bool, typer.Option("--no-suppress", help="Let every class be predicted.")] = False,
    flips: Annotated[
        str | None, typer.Option(help="Let members see mirror images too: none, horizontal, vertical or both.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the members' probabilities for the next selection.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the plan.")] = False,
    as_json: AsJson = False,
    classes: Classes = "",
    input_layout: InputLayout = "",
    output_layout: OutputLayout = "",
    activation: Activation = "",
    scale: Scale = None,
    mean: Mean = "",
    std: Std = "",
    ignored_class: Ignored = None,
    output_name: OutputName = "",
    grey_as_rgb: GreyAsRgb = False,
) -> None:
    """Select members, weights, strategy and biases on validation images and write them as a plan.

    The score to trust is the cross-fitted one: each image is scored by a selection that has not seen its scene.

    Example:
      engine select -m pool/ -i val.npz --labels val.npz --groups val.npz:groups -o ensemble.toml
    """
    import shlex
    import sys

    from engine.job import Options
    from engine.select.command import select as run_selection
    from engine.select.options import SelectOptions, with_strategies
    from engine.select.report import bars, print_selection
    from engine.select.search import Settings

    job = Options(
        models=models or (),
        input=input,
        labels=labels,
        suppress=suppress or (),
        no_suppress=no_suppress,
        flips=flips,
        overwrite=overwrite,
        grey_as_rgb=grey_as_rgb,
        stated=_stated(classes, input_layout, output_layout, activation, scale, mean, std, ignored_class, output_name),
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
        cache=cache,
        command=shlex.join(["engine", *sys.argv[1:]]),
    )
    with bars() as starting:
        done = run_selection(options, starting)
    print_selection(done, out, as_json)


@app.command()
def inspect(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="ONNX files, folders or globs.")],
    as_json: AsJson = False,
    classes: Classes = "",
    input_layout: InputLayout = "",
    output_layout: OutputLayout = "",
    activation: Activation = "",
    scale: Scale = None,
    mean: Mean = "",
    std: Std = "",
    ignored_class: Ignored = None,
    output_name: OutputName = "",
) -> None:
    """Show what models promise: classes, layout, scaling, kind, ignored class."""
    import json

    from engine.members import find_models
    from engine.sessions import open_member
    from engine.tables import contracts_table

    stated = _stated(classes, input_layout, output_layout, activation, scale, mean, std, ignored_class, output_name)
    members = [open_member(path, stated) for path in find_models(models)]
    if as_json:
        rows = [{"model": str(m.path), "sha256": m.checksum, **json.loads(m.contract.to_json())} for m in members]
        typer.echo(json.dumps(rows, indent=2))
    else:
        console.stdout().print(contracts_table(members))


def _stated(
    classes: str,
    input_layout: str,
    output_layout: str,
    activation: str,
    scale: float | None,
    mean: str,
    std: str,
    ignored_class: int | None,
    output_name: str,
) -> dict[str, Any]:
    """Return the contract fields the user stated."""
    from engine.job import numbers

    names = [name.strip() for name in classes.split(",")] if classes else None
    fields: dict[str, Any] = {
        "classes": names,
        "input_layout": input_layout or None,
        "output_layout": output_layout or None,
        "activation": activation or None,
        "scale": scale,
        "mean": numbers(mean, "mean") if mean else None,
        "std": numbers(std, "std") if std else None,
        "ignored_class": ignored_class,
        "output_name": output_name or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def main() -> None:
    """Run the command line."""
    console.run(app)


if __name__ == "__main__":
    main()

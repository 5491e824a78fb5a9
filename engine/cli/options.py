"""Options that several commands of ``engine`` share."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Any

import typer

RUN = "How to run"
FOREIGN = "Models without a contract (made by other tools)"

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
BatchSize = Annotated[
    int,
    typer.Option(help="Images a worker takes at a time; 0 means measured on the first images.", rich_help_panel=RUN),
]
Workers = Annotated[int, typer.Option(help="Threads; 0 means one a core.", rich_help_panel=RUN)]
Provider = Annotated[
    str,
    typer.Option(
        help="auto (a GPU where one truly works), cuda, tensorrt or cpu; what is named must work.", rich_help_panel=RUN
    ),
]
STRATEGY_NAMES = (
    "mean-logit (default), mean-prob, vote, borda, max-confidence, entropy-weighted, median-prob, trimmed-mean or "
    "staple."
)
Runtime = Annotated[
    str,
    typer.Option(help="onnxruntime, openvino, or auto: the faster one for each model, measured.", rich_help_panel=RUN),
]
Precision = Annotated[
    str,
    typer.Option(
        help="The least precise arithmetic allowed: float32, bf16, or int8 (with MODEL_int8.onnx beside MODEL.onnx). "
        "Below float32 the agreement of the labels is printed.",
        rich_help_panel=RUN,
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


def contract_fields(
    classes: Classes = "",
    input_layout: InputLayout = "",
    output_layout: OutputLayout = "",
    activation: Activation = "",
    scale: Scale = None,
    mean: Mean = "",
    std: Std = "",
    ignored_class: Ignored = None,
    output_name: OutputName = "",
) -> dict[str, Any]:
    """Return the contract fields the user stated; the parameters are the options themselves."""
    from engine.runs.options import numbers

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


def command_line() -> str:
    """Return the command under way as a shell would take it, for the records of what it makes."""
    return shlex.join(["engine", *sys.argv[1:]])

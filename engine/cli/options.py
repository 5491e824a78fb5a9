"""Options that several commands of ``engine`` share."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import PlanError
from engine.outputs.path import output_path

RUN = "How to run"
FOREIGN = "Models without a contract (made by other tools)"

Models = Annotated[
    list[str] | None,
    typer.Option("--models", "-m", help="An .onnx file, a folder or a glob; repeatable. Specialists are combined."),
]
PoolPlan = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        help="A plan in place of --models, for members with folds: each labelled image is predicted by the net that "
        "was trained without it. Its members, classes, suppress, [input] and [labels] hold; the rest is not used.",
    ),
]
Groups = Annotated[
    str,
    typer.Option(
        help="The scene of each image: .npz, .npz:KEY or .npy, one value per image. Intervals and folds never split a "
        "scene."
    ),
]


def _print_version(requested: bool) -> None:
    if requested:
        from engine.version import VERSION

        typer.echo(f"maskfuse {VERSION}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
]
BatchSize = Annotated[
    int,
    typer.Option(help="Images per batch; 0: measured on the first images.", rich_help_panel=RUN),
]
Workers = Annotated[int, typer.Option(help="Number of worker threads; 0 means one per core.", rich_help_panel=RUN)]
Provider = Annotated[
    str,
    typer.Option(
        help="auto (a GPU if one works), cuda, tensorrt or cpu; a named provider must work. cpu-graph runs the graph "
        "that a GPU would run on the CPU, to try it.",
        rich_help_panel=RUN,
    ),
]


def _memory(text: str) -> str:
    from engine.utils.memory import parse_bytes, state_memory

    state_memory(parse_bytes(text) if text else None)
    return text


Memory = Annotated[
    str,
    typer.Option(
        callback=_memory,
        metavar="SIZE",
        help="Most memory that one input may take at a time, as in 4GB; what declares more is refused. Default: half "
        "of what is free.",
        rich_help_panel=RUN,
    ),
]
STRATEGY_NAMES = (
    "mean-logit (default), mean-prob, vote, borda, max-confidence, entropy-weighted, median-prob, trimmed-mean or "
    "staple."
)
Runtime = Annotated[
    str,
    typer.Option(
        help="onnxruntime, openvino, or auto: the faster one for each model, measured. Default: onnxruntime; runs of "
        "engine ensemble that take half a minute or more use openvino where it is installed and measured as faster.",
        rich_help_panel=RUN,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="The lowest precision allowed: float32, fp16 (on a GPU), bf16, or int8 (with MODEL_int8.onnx beside "
        "MODEL.onnx; on a GPU as fp16). "
        "Below float32 the agreement of the labels with float32 is printed.",
        rich_help_panel=RUN,
    ),
]
Rle = Annotated[
    str,
    typer.Option(
        help="Form of run lengths: rows (this project's, row by row), kaggle (column by column, foreground alone) or "
        "coco (JSON).",
    ),
]
EVIDENCE = "What to write beside masks"
Scores = Annotated[
    Path | None,
    typer.Option(
        parser=output_path,
        metavar="PATH",
        help="The fused probability of each class: .npy, .npz, .zarr or a folder of GeoTIFFs; of one scene also .tif.",
        rich_help_panel=EVIDENCE,
    ),
]
ScoresType = Annotated[str, typer.Option(help="float16 (default) or float32.", rich_help_panel=EVIDENCE)]
Doubt = Annotated[
    Path | None,
    typer.Option(
        parser=output_path,
        metavar="PATH",
        help="A map of how doubtful each pixel is, in the same formats.",
        rich_help_panel=EVIDENCE,
    ),
]
DoubtMap = Annotated[
    str, typer.Option(help="entropy (default), mutual-information, votes or margin.", rich_help_panel=EVIDENCE)
]
DoubtType = Annotated[
    str, typer.Option(help="uint8 (default; 254 means 1), float16 or float32.", rich_help_panel=EVIDENCE)
]
UnknownAbove = Annotated[
    float | None,
    typer.Option(
        "--unknown",
        metavar="THRESHOLD",
        help="Pixels with more doubt than this (0 to 1, of the map that --doubt-map names) get no class but 254, "
        "unknown. A plan of engine select --unknown-risk holds a calibrated threshold.",
        rich_help_panel=EVIDENCE,
    ),
]
PerImage = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A table (.csv or .parquet) with one row per image: pixels and area of each class, mean score and doubt, "
        "IoU if --labels is given.",
        rich_help_panel=EVIDENCE,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout instead of tables.")]
Classes = Annotated[
    str,
    typer.Option(help="Class names in label order, separated by commas, or their number.", rich_help_panel=FOREIGN),
]
InputLayout = Annotated[str, typer.Option(help="Axes of the input: NCHW or NHWC.", rich_help_panel=FOREIGN)]
OutputLayout = Annotated[str, typer.Option(help="Axes of the output: NCHW or NHWC.", rich_help_panel=FOREIGN)]
Activation = Annotated[
    str, typer.Option(help="What the model outputs: logits or probabilities.", rich_help_panel=FOREIGN)
]
Scale = Annotated[
    str, typer.Option(help="Factor on raw pixels: 1, or 1/255 for a net trained on 0..1.", rich_help_panel=FOREIGN)
]
Normalize = Annotated[
    str,
    typer.Option(
        help="Scale, mean and std by name: imagenet, 0..1, -1..1 or none (raw values).", rich_help_panel=FOREIGN
    ),
]
Fit = Annotated[
    str,
    typer.Option(
        help="How images fit a net of fixed size: resize (its maps are resized back to the image's size) or pad "
        "(reflected, window by window, cropped back).",
        rich_help_panel=FOREIGN,
    ),
]
Bands = Annotated[
    str,
    typer.Option(
        help="Channels of the image that the net uses, in its order: 4,3,2 (counted from 1).", rich_help_panel=FOREIGN
    ),
]
ChannelOrder = Annotated[
    str, typer.Option(help="rgb, or bgr for a net trained on BGR images.", rich_help_panel=FOREIGN)
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--foreground-threshold",
        help="For a net with one output map: minimum probability of a foreground pixel. Default: 0.5.",
        rich_help_panel=FOREIGN,
    ),
]
Mean = Annotated[
    str, typer.Option(help="Subtracted after scaling, one value per channel: 0.5,0.4,0.3.", rich_help_panel=FOREIGN)
]
Std = Annotated[str, typer.Option(help="Divisor after that, one value per channel.", rich_help_panel=FOREIGN)]
Ignored = Annotated[
    int | None, typer.Option("--ignored-class", help="Class excluded from the score.", rich_help_panel=FOREIGN)
]
GreyAsRgb = Annotated[
    bool,
    typer.Option("--grey-as-rgb", help="Repeat grey images over a net's three channels.", rich_help_panel=FOREIGN),
]
MultiLabel = Annotated[
    bool,
    typer.Option(
        "--multi-label",
        help="Classes that do not exclude each other (a sigmoid per class): one binary mask per class is written.",
        rich_help_panel=FOREIGN,
    ),
]
ImageLayout = Annotated[
    str,
    typer.Option(
        metavar="AXES",
        help="Axes of an array where its shape leaves them open: NHWC, NCHW, NHW; of one image HWC, CHW, HW.",
        rich_help_panel=RUN,
    ),
]
MissingChunks = Annotated[
    str,
    typer.Option(
        metavar="fail|fill",
        help="Chunks that the Zarr store of images lacks: fail (default), or fill them with the store's fill value.",
        rich_help_panel=RUN,
    ),
]
OutputName = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[FILE=]NAME", help="The output to read if there are several; repeatable.", rich_help_panel=FOREIGN
    ),
]


def contract_fields(
    classes: Classes = "",
    input_layout: InputLayout = "",
    output_layout: OutputLayout = "",
    activation: Activation = "",
    normalize: Normalize = "",
    scale: Scale = "",
    mean: Mean = "",
    std: Std = "",
    ignored_class: Ignored = None,
    fit: Fit = "",
    bands: Bands = "",
    channel_order: ChannelOrder = "",
    foreground_threshold: Threshold = None,
    multi_label: MultiLabel = False,
    output_name: OutputName = None,
) -> dict[str, Any]:
    """Return the contract fields given by the user; the parameters are the options themselves."""
    from engine.models.facts import normalization, parse_scale
    from engine.runs.options import numbers

    named = normalization(normalize) if normalize else {}
    for name, given in (("scale", scale), ("mean", mean), ("std", std)):
        if given and name in named:
            raise PlanError(f"--normalize {normalize} and --{name} {given}: give one of them")
    fields: dict[str, Any] = {
        "classes": _class_names(classes) if classes else None,
        "input_layout": input_layout or None,
        "output_layout": output_layout or None,
        "activation": activation or None,
        "normalize": normalize or None,
        **({"scale": parse_scale(scale)} if scale else {}),
        **({"mean": numbers(mean, "mean")} if mean else {}),
        **({"std": numbers(std, "std")} if std else {}),
        "ignored_class": ignored_class,
        "fit": fit or None,
        "bands": [int(band) if band.is_integer() else band for band in numbers(bands, "bands")] if bands else None,
        "channel_order": channel_order or None,
        "foreground_threshold": foreground_threshold,
        "kind": "multilabel" if multi_label else None,
        "output_name": _output_names(output_name) if output_name else None,
    }
    return {key: value for key, value in fields.items() if value is not None}


TRUTH = "What true masks contain"
Void = Annotated[
    int | None,
    typer.Option(help="Value of pixels without a class, never counted. Default: 255.", rich_help_panel=TRUTH),
]
LabelIds = Annotated[
    str,
    typer.Option(
        metavar="ID,ID,...",
        help="The value of each class in label order, where it is not 0, 1, 2, ...: 0,7,11.",
        rich_help_panel=TRUTH,
    ),
]
PaletteFile = Annotated[
    str,
    typer.Option(
        "--palette",
        metavar="FILE",
        help="Colour of each class, for RGB masks: name,r,g,b lines in label order, or JSON.",
        rich_help_panel=TRUTH,
    ),
]


def truth_fields(void: Void = None, label_ids: LabelIds = "", palette: PaletteFile = "") -> Any:
    """Return how true masks are stored, as a ``LabelCoding``; the parameters are the options themselves."""
    from engine.sources.coding import label_coding

    return label_coding(void, label_ids, palette)


def _class_names(classes: str) -> list[str]:
    """Return the names in ``a,b,c``, or generated ones for a number; a single name is the foreground of two classes."""
    if classes.isascii() and classes.isdecimal() and len(classes) <= 3:
        return [f"class {index}" for index in range(int(classes))]
    names = [name.strip() for name in classes.split(",")]
    return ["background", *names] if len(names) == 1 else names


def _output_names(given: list[str]) -> str | dict[str, str]:
    """Return one name for all files, or names per file; the empty key holds the name for all others."""
    pairs = [item.rpartition("=") for item in given]
    if len(pairs) == 1 and not pairs[0][1]:
        return given[0]
    files = [file for file, _, _ in pairs]
    twin = next((index for index, file in enumerate(files) if file in files[:index]), None)
    if twin is not None:
        which = f"of {files[twin]} " if files[twin] else ""
        raise PlanError(
            f"--output-name {given[files.index(files[twin])]} and {given[twin]}: one output {which}is read; "
            "give one of them, or one a file, as in net.onnx=logits"
        )
    return {file: name for file, _, name in pairs}


def command_line() -> str:
    """Return the current command as shell text, for the records of its results."""
    return shlex.join(["engine", *sys.argv[1:]])

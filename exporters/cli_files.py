"""The commands that make ONNX files from ONNX files or several nets: adopt, specialists, quantize, pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.options import GreyAsRgb, contract_fields
from engine.errors import option
from engine.utils import console
from engine.utils.console import with_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.models.contract import ModelContract
    from exporters.adoption import Adopted
    from exporters.specialists import Specialists
    from exporters.tiles import LabelledTiles

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
AnySize = Annotated[
    bool, typer.Option("--any-size", help="Leave height and width open: any size that the net's stride divides.")
]
Labels = Annotated[
    Path | None,
    typer.Option(help="True masks of the tiles, if they are not in the same file (any format the engine reads)."),
]


def specialists(
    models: Annotated[
        list[Path], typer.Argument(metavar="K.keras", help="One-class archives, one per class, in any order.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file with all maps, NAME.onnx; the single files go into NAME/.")
    ],
    tiles: Annotated[
        Path | None, typer.Option(help="Validation tiles with labels (.npz): fit a bias and a temperature per class.")
    ] = None,
    labels: Labels = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest allowed difference of an output, for outputs up to 1.")
    ] = (1e-4),
    opset: Annotated[int, typer.Option(min=13, max=18, help="Version of the ONNX operator set.")] = 17,
    any_size: AnySize = False,
    overwrite: Overwrite = False,
) -> None:
    """Export a set of one-class nets as one file with a shared input, and each as a single file.

    The engine takes the file as one member. The single files, in a folder of the same name, let it skip the net of
    a suppressed class. With --tiles, a bias and a temperature per class are fitted on labelled pixels and stored.
    """
    from exporters.backend import load_keras, quiet
    from exporters.specialists import check_outputs, order_specialists

    # Cheap checks first: TensorFlow takes seconds to load.
    check_outputs(out, len(order_specialists(models)), overwrite)
    with quiet():
        load_keras()
    from exporters.parity import Tolerance
    from exporters.specialists import export_specialists

    lines: list[str] = []
    with quiet():
        done = export_specialists(
            models,
            out,
            tiles=None if tiles is None else _reader(tiles, labels),
            opset=opset,
            tolerance=Tolerance(tolerance),
            overwrite=overwrite,
            any_size=any_size,
            report=lines.append,
        )
    for line in lines:
        console.say(line)
    _tell_specialists(done)
    say_engine(done.path)


@with_options(contract_fields, "stated")
def adopt(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A file made by any tool.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.")],
    tiles: Annotated[
        Path | None,
        typer.Option(
            help="An .npz file with images that the net is meant for (key test_set, images or training_set); it is "
            "looked at on noise otherwise."
        ),
    ] = None,
    overwrite: Overwrite = False,
    grey_as_rgb: GreyAsRgb = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Write what a net is into its own file, so that every other command takes it without options.

    What the file and the files beside it say (NAME.toml, config.json, ...) and what the options add becomes its
    contract in the metadata; facts without an option go into NAME.toml. The graph stays as it is; of several outputs
    the one that is read stays. Nothing is written unless the new file gives the same labels.

    Example:
      exporters adopt unet.onnx --out models/unet.onnx --normalize imagenet --classes road,house,tree
    """
    from exporters.backend import load_onnx, quiet
    from exporters.files import check_free

    check_free(out, overwrite)
    with quiet():
        load_onnx()
    from engine.models.facts import stated_facts
    from exporters.adoption import adopt as adopt_file
    from exporters.parity import load_tiles

    name = stated.pop("output_name", None)
    if isinstance(name, dict):
        name = next((name[key] for key in (str(model), model.name, model.stem, "") if key in name), None)
    given = {**stated, "output_name": name, "grey_as_rgb": grey_as_rgb or None}
    facts = stated_facts(given, option)
    real = None if tiles is None else load_tiles(tiles)
    _tell_adopted(adopt_file(model, out, facts, tiles=real, overwrite=overwrite))
    say_engine(out)


def quantize(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="A float32 file of `exporters onnx` or `exporters adopt`.")
    ],
    calibrate: Annotated[Path, typer.Option(help="Tiles (.npz) for the int8 ranges and the score.")],
    labels: Labels = None,
    to: Annotated[str, typer.Option(help="int8 for CPUs, fp16 for GPUs (on a CPU float16 gains nothing).")] = "int8",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: MODEL_int8.onnx or MODEL_fp16.onnx.")
    ] = None,
    max_loss: Annotated[float, typer.Option(min=0.0, help="Largest accepted drop of the MIoU.")] = 0.005,
    overwrite: Overwrite = False,
) -> None:
    """Lower the precision of a model, if its score on labelled tiles holds.

    int8 is static (QDQ, weights int8 per channel, activations uint8); if the score requires it, the last and the first
    convolutions stay in float. Prints the speed relative to the float32 file (one thread) and the change of MIoU.
    A net of another tool needs its contract first: exporters adopt, or a NAME.toml beside it.

    Example:
      exporters quantize unet.onnx --calibrate validation.npz
    """
    from exporters.backend import load_onnx, quiet
    from exporters.files import check_free

    target = out or model.with_name(f"{model.stem}_{to}.onnx")
    check_free(target, overwrite)
    with quiet():
        load_onnx()
    from exporters.precision import lower

    with quiet():
        done = lower(model, target, _reader(calibrate, labels), to=to, max_loss=max_loss, overwrite=overwrite)
    for line in done.refused:
        console.say(f"{model}: {line}: too much, a more conservative variant was tried")
    console.say(f"wrote {done.path} ({done.recipe}, {done.size / 1e6:.2f} MB)")
    console.line(str(done.measured))
    if done.measured.ratio < 1:
        console.say("warning: it is slower than the float32 file on this machine")
    say_engine(done.path)


def pack(
    plan: Annotated[Path, typer.Argument(metavar="ensemble.toml", help="Members, weights, strategy and decoding.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.")],
    tiles: Annotated[
        Path | None,
        typer.Option(help="An .npz file with real tiles for the comparison (key test_set, images or training_set)."),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also output the fused probability of each class, float32.")
    ] = False,
    doubt: Annotated[
        str,
        typer.Option(
            metavar="MAP", help="Also output a map of doubt: entropy, mutual-information, votes or margin, float32."
        ),
    ] = "",
    grey_as_rgb: Annotated[
        bool, typer.Option("--grey-as-rgb", help="Take grey images; repeat them for members of three channels.")
    ] = False,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Take uint8 images: a quarter of the bytes that go to a GPU.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a whole ensemble as one ONNX file: raw pixels in, labels out.

    Scaling, members, views that turn, weights, strategy (all but staple), biases, suppression and argmax are one graph
    that runs on any ONNX runtime. It is compared with the engine pixel by pixel on real and random tiles: nothing is
    written unless all labels are equal, except for ties within float32 rounding, which are counted. Members of other
    tools are packed with all that the engine adapts to. An image for which a member computes NaN gets the label 255.

    Example:
      exporters pack ensemble.toml --out ensemble.onnx --tiles validation.npz
    """
    from exporters.backend import load_onnx, quiet
    from exporters.files import check_free

    check_free(out, overwrite)
    with quiet():
        load_onnx()
    from exporters.pack import pack as pack_plan
    from exporters.parity import load_tiles

    real = None if tiles is None else load_tiles(tiles)
    with quiet():
        done = pack_plan(
            plan,
            out,
            tiles=real,
            scores=scores,
            doubt=doubt,
            grey_as_rgb=grey_as_rgb,
            uint8=uint8,
            overwrite=overwrite,
        )
    console.say(f"wrote {done.path} ({len(done.members)} members, {done.nodes} nodes, {done.size / 1e6:.2f} MB)")
    told = f"the engine's labels on {done.check.tiles} tiles, {done.check.pixels:,} pixels"
    console.line(f"{told}; {done.check.ties} ties within float32 rounding were broken differently")
    say_engine(done.path)


def say_engine(model: Path) -> None:
    """Name the command that predicts with what was written: a file or a folder."""
    console.say_next("engine", "ensemble", "--models", model, "--input", "IMAGES", "--output", "masks.csv")


def _reader(path: Path, labels: Path | None) -> Callable[[ModelContract], LabelledTiles]:
    from exporters.tiles import labelled_tiles

    return lambda contract: labelled_tiles(path, contract, labels)


def _tell_adopted(done: Adopted) -> None:
    console.say(f"wrote {done.path}" + (f" and {done.weights}" if done.weights else ""))
    held = done.contract
    told = {
        "kind": held.kind,
        "classes": ", ".join(held.classes),
        "scale": f"{held.scale:.6g}",
        "mean": ", ".join(f"{value:g}" for value in held.mean),
        "std": ", ".join(f"{value:g}" for value in held.std),
        "activation": held.activation,
    }
    for name, value in told.items():
        origin = done.origins.get(name)
        console.line(f"{name}: {value}" + (f" ({origin})" if origin else ""))
    for text in done.adapted:
        console.line(text)
    console.line(f"the same labels without options on {done.pixels:,} pixels")


def _tell_specialists(done: Specialists) -> None:
    for path in (*done.singles, done.path):
        console.say(f"wrote {path}")
    found = done.calibration
    if found is None or done.miou is None:
        console.say("not calibrated: give labelled validation tiles with --tiles")
        return
    for name, bias, temperature in zip(done.contract.classes, found.bias, found.temperature, strict=True):
        console.line(f"{name}: bias {bias:+.3f}, temperature {temperature:.3f}")
    console.line(
        f"cross-entropy {found.before:.4f} -> {found.after:.4f}, MIoU {done.miou[0]:.4f} -> {done.miou[1]:.4f} "
        f"({found.pixels:,} labelled pixels)"
    )

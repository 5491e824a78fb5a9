"""Settles what a foreign ONNX file is: what its graph declares, what one image shows, what metadata and the user state.

What changes no result is adapted to and said in a line; what changes the result and cannot be seen is asked. Nothing is
guessed: each question names what settles it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError, ModelError, option
from engine.models.adapt.size import Size, reduction, whole_reduction
from engine.models.contract import MAX_CLASSES, Layout, ModelContract
from engine.models.facts.base import Facts, merged
from engine.models.fields import checked_fields
from engine.models.ports import FLOATS, Port, Ports, channels_height_width, check_promises, shown
from engine.models.prepare import input_size, other_sizes, prepare

CHANNEL_COUNTS = (1, 3)
MOST_CHANNELS = 64
# Sides are tried at multiples of these where a net refuses an image as it is.
STRIDES = (8, 16, 32, 64)
# Where there is no image, noise of one of these sizes shows what a net outputs; transformers take one size alone.
NOISE = (128, 256, 224, 512)
# Values of an image of noise, at most.
MOST_NOISE = 1 << 26
BINARY = ("background", "foreground")
# What a kind of net alone may have; a trial run needs none of it.
OF_KIND = ("kind", "class_id", "foreground_threshold", "thresholds", "bias", "temperature")
GREY_ADVICE = "state rgb_as_grey = true in the [input] of a plan"
Run = Callable[[Sequence[str], NDArray[Any]], list[NDArray[Any]]]


@dataclass
class Examined:
    """What is known of a file.

    Attributes:
        image: the input that takes the image.
        output: the output that is read.
        fields: contract fields that are settled.
        origins: where each of them comes from.
        questions: what stays open; each names what settles it.
        maps: (height, width) of the maps for an input of ``probed``; None where the net was not run.
        probed: (height, width) of the input that it was run on.
        contract: the whole contract, where no question is left.
        draft: the contract as far as it is settled, with defaults for what is open; None where even that is not known.
        needs_classes: whether it outputs labels of an unknown number of classes, which its neighbours may settle.
    """

    image: Port
    output: Port
    fields: dict[str, Any]
    origins: dict[str, str]
    questions: list[str] = field(default_factory=list)
    maps: Size | None = None
    probed: Size | None = None
    contract: ModelContract | None = None
    draft: ModelContract | None = None
    needs_classes: bool = False


def examine(ports: Ports, facts: Sequence[Facts], sample: NDArray[Any] | None, run: Run) -> Examined:
    """Find out what a file is; raise only where nothing further can be found.

    Args:
        ports: the graph's inputs and outputs.
        facts: what is stated, by origin; the earlier ones come first.
        sample: one raw image (height, width, channels); None to look at noise.
        run: runs the net on a prepared batch of one image and returns the named outputs.

    Raises:
        ContractError: origins contradict each other, or the graph has no input or output that could be used.
    """
    fields, origins = merged(facts)
    output_name = fields.pop("output_name", "")
    given = checked_fields(fields)
    image = ports.image(tuple(given.get("constants", {})))
    fitting = ports.candidates(output_name)
    found = Examined(image, fitting[0], given, origins)
    _ask_scaling(found)
    given["input_layout"] = given.get("input_layout") or _input_layout(image, given, sample)
    channels, height, width = channels_height_width(image.shape, given["input_layout"])
    given["channels"] = given.get("channels") or (
        channels
        if isinstance(channels, int)
        else len(given.get("bands", ())) or (sample.shape[2] if sample is not None else 1)
    )
    if isinstance(height, int) and isinstance(width, int):
        given.setdefault("size", (height, width))
        given["size"] = given["size"] or (height, width)
    outputs = _probed(found, fitting, sample, run)
    if outputs is not None:
        _settle_output(found, fitting, outputs)
    return found


def _ask_scaling(found: Examined) -> None:
    given = found.fields
    if found.image.kind == "uint8":
        if given.get("scale", 1) != 1 or any(given.get("mean", ())) or set(given.get("std", (1,))) != {1}:
            raise ContractError(
                f"its input {found.image.told} takes raw pixels, so the net scales them itself: leave out "
                f"{option('scale')}, {option('mean')} and {option('std')}"
            )
        return
    if "scale" in given:
        return
    imagenet = f"{option('scale', '1/255')} or {option('normalize', 'imagenet')}"
    if {"mean", "std"} & set(given):
        if max(map(abs, (*given.get("mean", ()), *given.get("std", ())))) <= 1:
            found.questions.append(
                f"mean {_numbers(given.get('mean'))} and std {_numbers(given.get('std'))} are of pixels 0..1, and "
                f"nothing says how raw pixels come to that: add {imagenet}, or {option('scale', '1')} "
                "if they are so already"
            )
        return
    found.questions.append(
        f"nothing says how pixels are scaled: add {option('scale', '1')} (raw 0..255), {option('scale', '1/255')} "
        f"(0..1) or {option('normalize', 'imagenet')}"
    )


def _input_layout(image: Port, given: dict[str, Any], sample: NDArray[Any] | None) -> Layout:
    first, last = image.shape[1], image.shape[3]
    expected = [given.get("channels"), len(given.get("bands", ())) or None]
    expected += [sample.shape[2]] if sample is not None else []
    for counts in (CHANNEL_COUNTS, tuple(filter(None, expected)), tuple(range(1, MOST_CHANNELS + 1))):
        planar, interleaved = first in counts, last in counts
        if planar != interleaved:
            return "NCHW" if planar else "NHWC"
    raise ContractError(
        f"its input is {shown(image.shape)}: state {option('input_layout', 'NCHW')} or {option('input_layout', 'NHWC')}"
    )


def _probed(
    found: Examined, fitting: Sequence[Port], sample: NDArray[Any] | None, run: Run
) -> list[NDArray[Any]] | None:
    """Run the net once; find the stride of its sides where it refuses the image's own."""
    given = found.fields
    if sample is not None:
        _check_channels(found, sample)
    draft = _draft(given)
    if sample is not None and draft.size not in (None, sample.shape[:2]) and not draft.fit:
        found.questions.append(f"images are {sample.shape[0]}x{sample.shape[1]}, {other_sizes(draft.size)}")
        draft = replace(draft, fit="resize")
    images = [sample] if sample is not None else _noise(draft, found.image)
    names = [port.name for port in fitting]
    refusals: list[tuple[str, Size]] = []
    kept: tuple[list[NDArray[Any]], Size] | None = None
    for pixels, trial, size in _trials(draft, images):
        batch = _one_window(prepare(trial, found.image.kind, pixels[None]), trial)
        try:
            outputs = run(names, batch)
        except ModelError as error:
            refusals.append((str(error).partition("): ")[2] or str(error), size))
            continue
        probed = (draft.size or size) if draft.fit == "pad" else size
        # Some nets take any sides, and put out smaller maps where their stride does not divide them.
        fits = _layouts if kept is None else _has_sides
        if not any(fits(array, probed, given) for array in outputs):
            kept = kept or (outputs, probed)
            continue
        if trial.stride > 1:
            given["stride"] = trial.stride
        found.probed = probed
        return outputs
    if kept is not None:
        outputs, found.probed = kept
        return outputs
    if not refusals:
        found.questions.append(f"its input {found.image.told} is too large to be tried on noise: run it on an image")
        return None
    reason, size = refusals[0]
    others = f", nor on {', '.join(f'{a}x{b}' for _, (a, b) in refusals[1:])}" if len(refusals) > 1 else ""
    found.questions.append(
        f"it does not run on an image of {size[0]}x{size[1]}{others} ({reason}): check {option('input_layout')} "
        "and the images' size and channels, or state the stride of its sides in its TOML file"
    )
    return None


def _trials(draft: ModelContract, images: Sequence[NDArray[Any]]) -> Iterator[tuple[NDArray[Any], ModelContract, Size]]:
    """Yield images with the strides that their sides are tried at, and the (height, width) that gives; none twice."""
    tried = set()
    for pixels in images:
        for stride in (draft.stride, *(() if draft.size or draft.stride > 1 else STRIDES)):
            trial = replace(draft, stride=stride)
            size = input_size(trial, pixels.shape[:2])
            if size not in tried:
                tried.add(size)
                yield pixels, trial, size


def _one_window(batch: NDArray[Any], draft: ModelContract) -> NDArray[Any]:
    """Return the part of an input that a net of a fixed size takes at once."""
    if draft.size is None:
        return batch
    height, width = draft.size
    planar = draft.input_layout == "NCHW"
    return np.ascontiguousarray(batch[:, :, :height, :width] if planar else batch[:, :height, :width])


def _check_channels(found: Examined, sample: NDArray[Any]) -> None:
    given = found.fields
    bands = given.get("bands", ())
    got, needed = sample.shape[2], given["channels"]
    if bands and max(bands) > got:
        raise ContractError(f"bands {', '.join(map(str, bands))}: the images have {got} channels; name 1 to {got}")
    if not bands and got != needed and not (got == 1 and needed == 3):
        advice = f"; pick the right ones with {option('bands', ','.join(map(str, range(1, needed + 1))))}"
        if (got, needed) == (3, 1):
            advice += f", or {GREY_ADVICE}"
        raise ContractError(
            f"it takes images of {needed} channel{'s' * (needed > 1)}, the images have {got}"
            + (advice if got > needed else "")
        )


def _draft(given: dict[str, Any]) -> ModelContract:
    """Return a contract for a trial run: what is stated is checked before the net runs on it."""
    names = tuple(map(str, range(MAX_CLASSES)))
    fields = {key: value for key, value in given.items() if key not in OF_KIND}
    # Whether grey images may be repeated is checked later, with its own message; the trial needs three channels.
    return ModelContract(**{"classes": names, "scale": 1 / 255, **fields, "grey_as_rgb": True})


def _noise(draft: ModelContract, image: Port) -> list[NDArray[np.uint8]]:
    _, height, width = channels_height_width(image.shape, draft.input_layout)
    sizes = [draft.size] if draft.size else [(side, side) for side in NOISE]
    sizes = [(height if isinstance(height, int) else h, width if isinstance(width, int) else w) for h, w in sizes]
    channels = max(draft.channels, *draft.bands, 1)
    draw = np.random.default_rng(0)
    small = [size for size in dict.fromkeys(sizes) if size[0] * size[1] * channels <= MOST_NOISE]
    return [draw.integers(0, 256, (*size, channels), dtype=np.uint8) for size in small]


def _settle_output(found: Examined, fitting: Sequence[Port], outputs: list[NDArray[Any]]) -> None:
    """Settle which output is read, its layout, kind, activation and classes."""
    given = found.fields
    assert found.probed is not None
    sized = [index for index, array in enumerate(outputs) if _layouts(array, found.probed, given)]
    if len(sized) > 1:
        found.questions.append(str(Ports((), ()).ambiguous([fitting[index] for index in sized])))
    index = sized[0] if sized else 0
    found.output, array = fitting[index], outputs[index]
    layouts = _layouts(array, found.probed, given)
    if not layouts:
        found.questions.append(
            f"its output is {shown(array.shape)} for an input of {found.probed[0]}x{found.probed[1]}: maps must have "
            f"the input's sides or a whole fraction of them; check {option('input_layout')} and "
            f"{option('output_layout')}"
        )
        return
    if len(layouts) > 1:
        found.questions.append(
            f"its output is {shown(array.shape)}: state {option('output_layout', 'NCHW')} or "
            f"{option('output_layout', 'NHWC')}"
        )
    given["output_layout"] = layout = layouts[0]
    planes = as_planes(array, layout)
    found.maps = (planes.shape[2], planes.shape[3])
    if _settle_kind(found, planes):
        _complete(found, planes.shape[1])


def as_planes(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return an output as a view (batch, maps, height, width); labels of rank 3 are one map."""
    if array.ndim == 3:
        return array[:, None]
    return array.transpose(0, 3, 1, 2) if layout == "NHWC" else array


def _has_sides(array: NDArray[Any], size: Size, given: dict[str, Any]) -> bool:
    """Return whether an output has just the input's sides under a layout."""
    return array.ndim in (3, 4) and size in (array.shape[1:3], array.shape[2:4])


def _layouts(array: NDArray[Any], size: Size, given: dict[str, Any]) -> list[Layout]:
    """Return the layouts under which an output has maps of the input's size, or of a whole fraction of it."""
    if array.ndim == 3:
        return ["NCHW"] if reduction(size, array.shape[1:]) else []
    if array.ndim != 4:
        return []
    sides: dict[Layout, Size] = {"NCHW": array.shape[2:], "NHWC": array.shape[1:3]}
    stated = given.get("output_layout")
    fitting = [layout for layout, own in sides.items() if reduction(size, own) and stated in (None, layout)]
    exact = [layout for layout in fitting if sides[layout] == size]
    return exact or [layout for layout in fitting if whole_reduction(size, sides[layout])] or fitting


def _settle_kind(found: Examined, planes: NDArray[Any]) -> bool:
    """Settle kind and activation; return whether the kind is settled."""
    given, maps = found.fields, planes.shape[1]
    if found.output.kind not in FLOATS or given.get("kind") == "labels":
        given["kind"] = given.get("kind") or "labels"
        given["activation"] = "logits"
        return True
    if maps == 1 and "kind" not in given and planes.max() > 1 and (planes == np.rint(planes)).all():
        found.questions.append(
            f"its one map holds whole numbers alone here, up to {planes.max():g}: say whether they are labels, as "
            'kind = "labels" or kind = "binary" in its TOML file'
        )
        return False
    if maps == 1:
        given["kind"] = given.get("kind") or "binary"
    given["activation"] = given.get("activation") or _activation(found, planes.astype(np.float32))
    return True


def _activation(found: Examined, planes: NDArray[np.float32]) -> str:
    """Tell logits from probabilities where one image can show it."""
    if planes.min() < 0 or planes.max() > 1:
        return "logits"
    exclusive = found.fields.get("kind") != "multilabel" and planes.shape[1] > 1
    if exclusive and np.allclose(planes.sum(axis=1), 1, atol=2e-3):
        return "probabilities"
    found.questions.append(
        "its output lies within 0..1 here, which probabilities and logits may both do: state "
        f"{option('activation', 'logits')} or {option('activation', 'probabilities')}"
    )
    return "logits"


def _complete(found: Examined, maps: int) -> None:
    """Name the classes and make the contract."""
    given, kind = found.fields, found.fields.get("kind", "multiclass")
    names = given.get("classes")
    if kind == "binary":
        given["classes"] = BINARY if not names else (BINARY[0], *names) if len(names) == 1 else names
    elif kind == "labels" and not names:
        found.needs_classes = True
        found.questions.append(
            f"it outputs labels, and nothing says of how many classes: add {option('classes', 'background,road')} "
            "(their names), or name a net with maps beside it"
        )
        return
    elif not names:
        given["classes"] = tuple(f"class {index}" for index in range(maps))
    contract = ModelContract(**{"scale": 1.0, **given})
    if contract.outputs != maps:
        told = "labels" if kind == "labels" else f"{maps} map{'s' * (maps != 1)}"
        raise ContractError(f"{len(contract.classes)} classes are stated, it outputs {told}: state as many")
    check_promises(found.image, found.output, contract)
    found.draft, found.contract = contract, None if found.questions else contract


def _numbers(values: Sequence[float] | None) -> str:
    return ", ".join(f"{value:g}" for value in values) if values else "(none)"

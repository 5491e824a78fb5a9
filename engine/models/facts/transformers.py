"""A folder of transformers or optimum: ``config.json`` and ``preprocessor_config.json`` beside ``model.onnx``.

Source: the image processors of transformers 4.10 to 5 for Segformer, BEiT, DPT, MobileViT, MobileNetV2 and UperNet.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine.models.facts.base import Facts
from engine.models.facts.checks import (
    class_names,
    file_text,
    from_json,
    name,
    number,
    numbers,
    refuse,
    shown,
    table,
    whole,
)

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
MODEL = re.compile(r"model.*\.onnx", re.DOTALL)
# What tells these files from others of the same name.
CONFIG_KEYS = ('"model_type"', '"architectures"', '"id2label"')
PROCESSOR_KEYS = (
    '"image_processor_type"',
    '"feature_extractor_type"',
    '"image_mean"',
    '"do_normalize"',
    '"do_rescale"',
)
SEMANTIC = "ForSemanticSegmentation"
OTHER_HEADS = {
    "ForImageClassification": "classifies whole images",
    "ForObjectDetection": "detects objects",
    "ForDepthEstimation": "estimates depth",
    "ForUniversalSegmentation": "outputs masks of queries, which are no maps of classes",
    "ForInstanceSegmentation": "outputs masks of queries, which are no maps of classes",
    "ForPanopticSegmentation": "outputs masks of queries, which are no maps of classes",
    "ForZeroShotImageClassification": "classifies whole images",
    "ForMaskedImageModeling": "restores images",
}
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
BILINEAR = 2
REDUCED = "class k of the net is value k + 1 of its label files; their value 0 is void, and predictions stay one lower"


def read_transformers(path: Path) -> list[Facts]:
    """Return what the two files of an exported folder say; nothing where the model is not named ``model*.onnx``.

    Args:
        path: the model; the files lie in its folder or one above.

    Raises:
        ContractError: a value is not what transformers writes, or the net does not segment semantically.
    """
    if MODEL.fullmatch(path.name) is None:
        return []
    found = []
    for file_name, keys, read in ((CONFIG, CONFIG_KEYS, _config), (PROCESSOR, PROCESSOR_KEYS, _processor)):
        for place in (path.parent, path.parent / ".."):  # links stay: a download cache keeps the files elsewhere
            text = file_text(place / file_name, must_hold=keys)
            if text is not None:
                found.append(read(table(from_json(text, file_name), file_name)))
                break
    return found


def _config(raw: dict[str, Any]) -> Facts:
    heads = raw.get("architectures")
    heads = [name(head, f"{CONFIG}, architectures") for head in heads[:8]] if isinstance(heads, list) else []
    other = next((head for head in heads for suffix in OTHER_HEADS if head.endswith(suffix)), None)
    if other is not None and not any(head.endswith(SEMANTIC) for head in heads):
        does = next(text for suffix, text in OTHER_HEADS.items() if other.endswith(suffix))
        raise refuse(CONFIG, f"{other} {does}; a net {SEMANTIC} is needed")
    notes = {"architecture": heads[0]} if heads else {}
    if raw.get("model_type") is not None:
        notes["model type"] = name(raw["model_type"], f"{CONFIG}, model_type")
    fields: dict[str, Any] = {}
    if raw.get("id2label") is not None:
        fields["classes"] = class_names(raw["id2label"], f"{CONFIG}, id2label")
    if raw.get("num_channels") is not None:
        fields["channels"] = whole(raw["num_channels"], f"{CONFIG}, num_channels", 1, 64)
    return Facts(CONFIG, fields, notes)


def _processor(raw: dict[str, Any]) -> Facts:
    fields: dict[str, Any] = {}
    notes: dict[str, str] = {}
    _read_scaling(raw, fields, notes)
    _read_size(raw, fields, notes)
    if _flag(raw, "do_flip_channel_order", False):
        fields["channel_order"] = "bgr"
    if any(_flag(raw, key, False) for key in ("do_reduce_labels", "reduce_labels")):
        notes["labels"] = REDUCED
    return Facts(PROCESSOR, fields, notes)


def _flag(raw: dict[str, Any], key: str, default: bool) -> bool:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise refuse(f"{PROCESSOR}, {key}", f"is {shown(value)}; true or false is needed")
    return default if value is None else value


def _read_scaling(raw: dict[str, Any], fields: dict[str, Any], notes: dict[str, str]) -> None:
    """Write scale, mean and std; what the file leaves open stays open."""
    rescaled = _flag(raw, "do_rescale", True)  # not written before 4.25, where images became 0..1 on the way
    factor = raw.get("rescale_factor")
    scale = number(1 / 255 if factor is None else factor, f"{PROCESSOR}, rescale_factor", above=0)
    mean, std = (_channels(raw, key) for key in ("image_mean", "image_std"))
    if not _flag(raw, "do_normalize", mean is not None):
        mean, std = (0.0,), (1.0,)
    if mean is None or std is None:
        notes["scaling"] = "its mean or standard deviation is not written: state --scale, --mean and --std"
        return
    if 1 not in (len(mean), len(std)) and len(mean) != len(std):
        raise refuse(PROCESSOR, f"has {len(mean)} means and {len(std)} deviations: one each a channel")
    if rescaled and _flag(raw, "rescale_offset", False):  # EfficientNet: pixel * scale - 1
        mean = tuple(value + 1 for value in mean)
    fields.update(mean=mean, std=std)
    if rescaled:
        fields["scale"] = scale
    elif max(map(abs, (*mean, *std))) > 1:
        fields["scale"] = 1.0
    else:
        notes["scaling"] = "do_rescale is false: its images were scaled before, state --scale"


def _channels(raw: dict[str, Any], key: str) -> tuple[float, ...] | None:
    return None if raw.get(key) is None else numbers(raw[key], f"{PROCESSOR}, {key}")


def _read_size(raw: dict[str, Any], fields: dict[str, Any], notes: dict[str, str]) -> None:
    resized = _flag(raw, "do_resize", True)
    where = f"{PROCESSOR}, resample"
    resample = None if raw.get("resample") is None else whole(raw["resample"], where, 0, len(RESAMPLING) - 1)
    sides = _sides(raw.get("size"), "size")
    if sides is not None and resized:
        how = "" if resample is None else f", {RESAMPLING[resample]}"
        notes["resize"] = sides[0] + how
        if sides[1] and resample == BILINEAR:
            fields["fit"] = "resize"
    crop = _sides(raw.get("crop_size"), "crop_size")
    if crop is not None and _flag(raw, "do_center_crop", False):
        notes["crop"] = crop[0]
        fields.pop("fit", None)
    for key in ("size_divisor", "ensure_multiple_of"):
        divisor = raw.get(key)
        if divisor is not None and whole(divisor, f"{PROCESSOR}, {key}", 1, 65535) > 1:
            notes["stride"] = f"sides are multiples of {divisor}"


def _sides(size: object, key: str) -> tuple[str, bool] | None:
    """Return a size for people, and whether both sides are fixed."""
    if size is None:
        return None
    where = f"{PROCESSOR}, {key}"

    def side(value: object) -> int:
        return whole(value, where, 1, 65535)

    if isinstance(size, list) and len(size) == 2:
        return f"{side(size[0])}x{side(size[1])}", True
    if not isinstance(size, dict):
        return f"{side(size)}x{side(size)}", True
    if {"height", "width"} <= size.keys():
        return f"{side(size['height'])}x{side(size['width'])}", True
    known = {"shortest_edge": "shorter side", "longest_edge": "longer side", "max_height": "height at most"}
    known["max_width"] = "width at most"
    named = [f"{text} {side(size[edge])}" for edge, text in known.items() if size.get(edge) is not None]
    if not named:
        raise refuse(where, "names no side; height and width, shortest_edge or longest_edge are needed")
    return ", ".join(named), False

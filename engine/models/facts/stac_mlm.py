"""A STAC Item with the Machine Learning Model extension, beside the model or inside its metadata.

Source: the extension's specification, versions 1.0 to 1.4 (github.com/stac-extensions/mlm).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.models.facts.base import Facts
from engine.models.facts.checks import (
    class_names,
    file_text,
    from_json,
    metadata_text,
    name,
    refuse,
    shown,
    table,
    whole,
)
from engine.models.facts.stac_scaling import read_scaling

ORIGIN = "its metadata (STAC)"
SUFFIXES = (".stac.json", ".json")
INPUT, OUTPUT, TASKS = "mlm:input", "mlm:output", "mlm:tasks"
# "classification" also stands for nets that classify each pixel; other names are allowed by the extension.
OTHER_TASKS = frozenset(
    {
        "regression",
        "scene-classification",
        "detection",
        "object-detection",
        "instance-segmentation",
        "panoptic-segmentation",
        "similarity-search",
        "generative",
        "image-captioning",
        "super-resolution",
    }
)
SEMANTIC_TASKS = ("semantic-segmentation", "segmentation")
AXES = {
    "n": ("batch", "b", "n"),
    "c": ("channel", "channels", "band", "bands", "class", "classes", "c"),
    "h": ("height", "h", "y"),
    "w": ("width", "w", "x"),
}
LAYOUTS = {"nchw": "NCHW", "nhwc": "NHWC"}
FITS = {"pad": "pad", "interpolation-linear": "resize"}


def read_stac_metadata(metadata: Mapping[str, str]) -> Facts | None:
    """Return what an Item, or its properties, in the metadata says; None where there is none.

    Args:
        metadata: the file's custom metadata, texts by key; an Item stands under any key, properties under their own.

    Raises:
        ContractError: it is not what the extension describes, or the net does not segment semantically.
    """
    if INPUT in metadata or OUTPUT in metadata:
        properties = {}
        for key in (INPUT, OUTPUT, TASKS):
            text = metadata_text(metadata, key, ORIGIN)
            if text is not None:
                properties[key] = from_json(text, f"{ORIGIN}, {key}")
        return _facts(properties, ORIGIN)
    for key, value in metadata.items():
        if value.lstrip()[:1] == "{" and f'"{INPUT}"' in value:
            text = metadata_text(metadata, key, ORIGIN) or ""
            return _facts(_properties(from_json(text, ORIGIN), ORIGIN), ORIGIN)
    return None


def read_stac_file(path: Path) -> Facts | None:
    """Return what ``NAME.stac.json`` or ``NAME.json`` beside a model says; None where neither is such an Item.

    Args:
        path: the model.

    Raises:
        ContractError: it is not what the extension describes, or the net does not segment semantically.
    """
    for suffix in SUFFIXES:
        file = path.with_suffix(suffix)
        text = file_text(file, must_hold=(f'"{INPUT}"', f'"{OUTPUT}"'))
        if text is not None:
            return _facts(_properties(from_json(text, file.name), file.name), file.name)
    return None


def _properties(item: object, origin: str) -> dict[str, Any]:
    whole_item = table(item, origin)
    return table(whole_item.get("properties"), f"{origin}, properties") or whole_item


def _facts(properties: dict[str, Any], origin: str) -> Facts:
    taken = _image_input(properties.get(INPUT), f"{origin}, {INPUT}")
    given = _segmenting_output(properties.get(OUTPUT), f"{origin}, {OUTPUT}")
    _require_semantic(given.get("tasks") or properties.get(TASKS), origin)
    fields: dict[str, Any] = {}
    notes: dict[str, str] = {}
    _read_input(taken, fields, notes, f"{origin}, {INPUT}")
    _read_output(given, fields, notes, f"{origin}, {OUTPUT}")
    for key in ("mlm:name", "mlm:architecture"):
        if isinstance(properties.get(key), str):
            notes[key.removeprefix("mlm:")] = name(properties[key], f"{origin}, {key}")
    return Facts(origin, fields, notes)


def _require_semantic(tasks: object, origin: str) -> None:
    tasks = tasks if isinstance(tasks, list) else [] if tasks is None else [tasks]
    named = [name(task, f"{origin}, tasks") for task in tasks[:32]]
    if named and OTHER_TASKS.issuperset(named):
        raise refuse(origin, f"its task is {', '.join(named[:4])}; a net for semantic-segmentation is needed")


def _objects(value: object, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > 64:
        raise refuse(where, f"is {shown(value)}; a list of at most 64 objects is needed")
    return [table(item, where) for item in value]


def _image_input(value: object, where: str) -> dict[str, Any]:
    """Return the one input with a height and a width; an input alone is taken as it is."""
    inputs = _objects(value, where)
    images = [item for item in inputs if {"h", "w"} <= set(_axes(_structure(item, "input", where), where))]
    if len(inputs) > 1 and len(images) != 1:
        raise refuse(where, f"{len(images)} of {len(inputs)} inputs have a height and a width; one image is needed")
    return (images or inputs or [{}])[0]


def _segmenting_output(value: object, where: str) -> dict[str, Any]:
    outputs = _objects(value, where)
    if len(outputs) < 2:
        return (outputs or [{}])[0]
    fitting = [
        item
        for item in outputs
        if isinstance(item.get("tasks"), list) and any(task in item["tasks"] for task in SEMANTIC_TASKS)
    ]
    if len(fitting) != 1:
        raise refuse(where, f"{len(fitting)} of {len(outputs)} outputs segment semantically; one is needed")
    return fitting[0]


def _structure(item: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = item.get(key)
    if isinstance(value, list) and len(value) == 1:  # version 1.0 wrote a list of one
        value = value[0]
    return table(value, f"{where}, {key}")


def _axes(structure: dict[str, Any], where: str) -> str:
    """Return the axes as letters, ``nchw``; ``?`` for one that no image has."""
    order = structure.get("dim_order")
    if order is None:
        return ""
    if isinstance(order, str):  # before version 1.0: "bchw"
        order = list(order)
    if not isinstance(order, list) or len(order) > 16:
        raise refuse(where, f"dim_order is {shown(order)}; a list of names of axes is needed")
    names = [name(item, f"{where}, dim_order").lower() for item in order]
    return "".join(next((axis for axis, known in AXES.items() if item in known), "?") for item in names)


def _shape(structure: dict[str, Any], axes: str, where: str) -> dict[str, int]:
    """Return the fixed sides by axis; -1 is a free one."""
    shape = structure.get("shape")
    if shape is None or not axes:
        return {}
    if not isinstance(shape, list) or len(shape) != len(axes):
        raise refuse(where, f"shape is {shown(shape)}; one whole number per axis is needed")
    sides = [whole(side, f"{where}, shape", -1, 2**31 - 1) for side in shape]
    return {axis: side for axis, side in zip(axes, sides, strict=True) if side > 0}


def _read_input(item: dict[str, Any], fields: dict[str, Any], notes: dict[str, str], where: str) -> None:
    structure = _structure(item, "input", where)
    axes = _axes(structure, where)
    sides = _shape(structure, axes, where)
    if axes in LAYOUTS:
        fields["input_layout"] = LAYOUTS[axes]
        if "c" in sides:
            fields["channels"] = sides["c"]
        if {"h", "w"} <= sides.keys():
            fields["size"] = (sides["h"], sides["w"])
    resize = item.get("resize_type")
    if isinstance(resize, str) and resize in FITS:
        fields["fit"] = FITS[resize]
    elif resize is not None:
        notes["resize"] = name(resize, f"{where}, resize_type")
    bands = item.get("bands")
    if isinstance(bands, list) and bands:
        names = [name(table(band, where).get("name") if isinstance(band, dict) else band, where) for band in bands[:64]]
        notes["bands"] = ", ".join(names)
    scaling = read_scaling(item, where)
    fields.update(scaling.fields)
    notes.update(scaling.notes)


def _read_output(item: dict[str, Any], fields: dict[str, Any], notes: dict[str, str], where: str) -> None:
    structure = _structure(item, "result", where)
    axes = _axes(structure, where)
    _shape(structure, axes, where)
    if axes in LAYOUTS:
        fields["output_layout"] = LAYOUTS[axes]
    elif axes == "nhw" and "int" in str(structure.get("data_type", "")):
        fields["kind"] = "labels"
    classes = item.get("classification:classes", item.get("classification_classes"))
    if not classes:
        return
    if not isinstance(classes, list) or len(classes) > 10_000:
        raise refuse(where, f"its classes are {shown(classes)}; a list of objects with value and name is needed")
    ids: dict[object, object] = {}
    for entry in classes:
        entry = table(entry, f"{where}, classes")
        key = whole(entry.get("value"), f"{where}, the value of a class", 0, 999_999)
        if key in ids:
            raise refuse(where, f"the class value {key} stands there twice: every value needs one name")
        ids[key] = next((entry[text] for text in ("name", "title", "description") if entry.get(text)), None)
        if entry.get("nodata") is True:
            notes["nodata"] = f"class {key} marks pixels without data"
    fields["classes"] = class_names(ids, f"{where}, classes")

"""What Deepness, the QGIS plugin, reads from a model's metadata: JSON values under keys of its own.

Source: the plugin's page "Adding metadata to ONNX model" and its behaviour, versions 0.5 to 0.6.5. It divides pixels by
255 first, then subtracts ``standardization_mean`` and divides by ``standardization_std`` where both are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import ContractError
from engine.models.facts.base import Facts
from engine.models.facts.checks import class_names, from_json, metadata_text, number, numbers, refuse, whole
from engine.models.facts.ultralytics import parse_names

ORIGIN = "its metadata (Deepness)"
SCALE = 1 / 255
# Of a metre: it reads maps at a resolution in these.
CENTIMETRES = 100
SEGMENTOR = "segmentor"
OTHER_TYPES = ("detector", "regressor", "recognition", "superresolution")
# Keys that no other tool writes; `resolution`, `names` and `model_type` may be anybody's.
OWN_KEYS = (
    "class_names",
    "tile_size",
    "tiles_size",
    "tiles_overlap",
    "standardization_mean",
    "standardization_std",
    "seg_thresh",
    "seg_small_segment",
    "reg_output_scaling",
    "det_conf",
    "det_iou_thresh",
    "det_type",
    "det_remove_overlap",
)


def read_deepness(metadata: Mapping[str, str]) -> Facts | None:
    """Return what the plugin would take from the metadata, or None where nothing is the plugin's.

    Args:
        metadata: the file's custom metadata, texts by key.

    Raises:
        ContractError: a value is not what the plugin reads, or the model does not segment.
    """
    kind = _model_type(metadata)
    own = [key for key in OWN_KEYS if key in metadata]
    if kind is None and (not own or (own == ["class_names"] and not _is_object(metadata["class_names"]))):
        return None
    _require_segmentor(kind, own)
    classes = _classes(metadata)
    fields: dict[str, Any] = {} if classes is None else {"classes": classes}
    notes = _notes(metadata)
    resolution = metadata_text(metadata, "resolution", ORIGIN)
    if resolution is not None:
        where = f"{ORIGIN}, resolution"
        fields["resolution"] = number(from_json(resolution, where), where, above=0) / CENTIMETRES
    if kind is not None or own != ["class_names"]:
        mean, std = (_values(metadata, f"standardization_{name}") for name in ("mean", "std"))
        if mean is not None and std is not None and 1 not in (len(mean), len(std)) and len(mean) != len(std):
            raise refuse(ORIGIN, f"standardization has {len(mean)} means and {len(std)} deviations: one each a channel")
        if (mean is None) != (std is None):
            notes["standardization"] = "not applied: Deepness needs both the mean and the standard deviation"
            mean = std = None
        fields.update(scale=SCALE, mean=mean or (0.0,), std=std or (1.0,))
    return Facts(ORIGIN, fields, notes)


def _model_type(metadata: Mapping[str, str]) -> str | None:
    """Return the type in lower case where it is one of the plugin's."""
    kind = (metadata.get("model_type") or "")[:100].strip().strip('"').lower()
    return kind if kind == SEGMENTOR or kind in OTHER_TYPES else None


def _require_segmentor(kind: str | None, own: list[str]) -> None:
    foreign = [key for key in own if key.startswith(("det_", "reg_"))]
    if kind is None and foreign and not any(key.startswith("seg_") for key in own):
        kind = "detector" if foreign[0].startswith("det_") else "regressor"
    if kind in OTHER_TYPES:
        raise refuse(ORIGIN, f"the model is a {kind.capitalize()}; a Segmentor, with one map a class, is needed")


def _is_object(text: str) -> bool:
    return text.lstrip()[:1] == "{"


def _classes(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    for key in ("class_names", "names"):
        text = metadata_text(metadata, key, ORIGIN)
        if text is None:
            continue
        where = f"{ORIGIN}, {key}"
        try:
            value = from_json(text, where)
        except ContractError:  # the plugin also takes the text of a Python dict, as Ultralytics writes it
            return parse_names(text, where)
        return class_names(value, where)
    return None


def _values(metadata: Mapping[str, str], key: str) -> tuple[float, ...] | None:
    text = metadata_text(metadata, key, ORIGIN)
    return None if text is None else numbers(from_json(text, f"{ORIGIN}, {key}"), f"{ORIGIN}, {key}")


def _notes(metadata: Mapping[str, str]) -> dict[str, str]:
    notes: dict[str, str] = {}
    for key, name, text in _NOTED:
        value = metadata_text(metadata, key, ORIGIN)
        if value is not None:
            where = f"{ORIGIN}, {key}"
            notes[name] = text(from_json(value, where), where)
    return notes


def _threshold(value: object, where: str) -> str:
    return (
        f"Deepness drops outputs below {number(value, where):g}; "
        "for a binary net of probabilities --foreground-threshold does the same"
    )


_NOTED: tuple[tuple[str, str, Callable[[object, str], str]], ...] = (
    ("tile_size", "tile size", lambda value, where: f"{whole(value, where, 1, 65535)} pixels"),
    ("tiles_size", "tile size", lambda value, where: f"{whole(value, where, 1, 65535)} pixels"),
    ("tiles_overlap", "tile overlap", lambda value, where: f"{number(value, where, -1, 100):g} %"),
    ("seg_thresh", "threshold", _threshold),
    (
        "seg_small_segment",
        "small segments",
        lambda value, where: f"Deepness smooths over {number(value, where, above=-1):g} pixels",
    ),
)

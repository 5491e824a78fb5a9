"""What Ultralytics writes into the metadata of a model it exports: texts of Python values.

Source: the exporter of ultralytics 8.0 to 8.4. Its nets take RGB pixels divided by 255.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from engine.models.facts.base import Facts
from engine.models.facts.checks import (
    MOST_CHARACTERS,
    MOST_STRIDE,
    class_names,
    from_json,
    metadata_text,
    refuse,
    shown,
    whole,
)

ORIGIN = "its metadata (Ultralytics)"
AUTHOR = "Ultralytics"
TASK = "semantic"
OTHER_TASKS = {
    "segment": "instance segmentation",
    "detect": "object detection",
    "pose": "pose estimation",
    "obb": "detection of oriented boxes",
    "classify": "classification of whole images",
}
# One entry of the text of a Python dict or list of texts; possessive, so that a hostile text costs one pass.
_TEXT = r"""(?:'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+")"""
_ENTRY = re.compile(rf"\s*+(?:(?P<id>[0-9]{{1,6}})\s*+:\s*+)?(?P<name>{_TEXT})\s*+(?:,|\Z)")


def read_ultralytics(metadata: Mapping[str, str]) -> Facts | None:
    """Return what the exporter wrote, or None where the file is not by Ultralytics.

    Args:
        metadata: the file's custom metadata, texts by key.

    Raises:
        ContractError: a value is not what the exporter writes, or the net does not segment semantically.
    """
    if metadata.get("author") != AUTHOR and not {"task", "names", "stride"} <= set(metadata):
        return None
    _require_semantic(metadata_text(metadata, "task", ORIGIN))
    fields: dict[str, Any] = {"scale": 1 / 255, "mean": (0.0,), "std": (1.0,)}
    notes: dict[str, str] = {}
    names = metadata_text(metadata, "names", ORIGIN)
    if names is not None:
        fields["classes"] = parse_names(names, f"{ORIGIN}, names")
    for key, most in (("stride", MOST_STRIDE), ("channels", 64)):
        text = metadata_text(metadata, key, ORIGIN)
        if text is not None:
            fields[key] = whole(from_json(text, f"{ORIGIN}, {key}"), f"{ORIGIN}, {key}", 1, most)
    if fields.get("channels", 3) == 3:
        fields["channel_order"] = "rgb"
    size = metadata_text(metadata, "imgsz", ORIGIN)
    if size is not None:
        notes["image size"] = _size(from_json(size, f"{ORIGIN}, imgsz"))
    return Facts(ORIGIN, fields, notes)


def parse_names(text: str, where: str) -> tuple[str, ...]:
    """Return class names from the text of a Python dict or list, ``{0: 'road', 1: 'sky'}``; only texts are evaluated.

    Raises:
        ContractError: it is something else, or its ids are not 0 to n - 1.
    """
    text = text.strip()
    if len(text) > MOST_CHARACTERS or text[:1] + text[-1:] not in ("{}", "[]"):
        raise refuse(where, f"is {shown(text)}; the text of a dict of names by class id is needed")
    ids: list[str | None] = []
    names: list[str] = []
    inside = text[1:-1].rstrip().removesuffix(",")
    position = 0
    while position < len(inside):
        entry = _ENTRY.match(inside, position)
        if entry is None or (entry["id"] is not None) != (text[0] == "{"):
            raise refuse(where, f"is not the text of a dict of names by class id near {shown(inside[position:][:40])}")
        ids.append(entry["id"])
        names.append(_literal(entry["name"], where))
        position = entry.end()
    if text[0] == "[":
        return class_names(names, where)
    by_id = {int(key or 0): name for key, name in zip(ids, names, strict=True)}
    if len(by_id) != len(names):
        raise refuse(where, "names one class id twice: every id needs one name")
    return class_names(by_id, where)


def _literal(text: str, where: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise refuse(where, f"{shown(text)} is not the text of a name") from None


def _require_semantic(task: str | None) -> None:
    if task is None or task == TASK:
        return
    meant = f"{task} ({OTHER_TASKS[task]})" if task in OTHER_TASKS else shown(task)
    raise refuse(ORIGIN, f"its task is {meant}; a net for the task semantic, one label or map a class, is needed")


def _size(value: object) -> str:
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2:
        raise refuse(f"{ORIGIN}, imgsz", f"has {len(sides)} values; height and width are needed")
    return "x".join(str(whole(side, f"{ORIGIN}, imgsz", 1, 65535)) for side in sides)

"""The table ``[labels]`` of a plan: what true masks hold in place of class numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.sources.coding import LabelCoding
from engine.sources.palettes import read_palette

KEYS = ("ids", "void", "palette", "output_ids")


def read_labels(table: object, folder: Path) -> LabelCoding:
    """Return what the table states.

    Args:
        table: as TOML gives it; empty where there is none.
        folder: of the plan, which a palette's file is relative to.

    Raises:
        PlanError: no table, unknown keys, wrong types, or ids, void and palette that contradict each other.
    """
    if not isinstance(table, dict):
        raise PlanError(f"labels: {str(table)[:80]} is not a table; write [labels]")
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        raise PlanError(f"labels: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(sorted(KEYS))}")
    ids, void, palette = table.get("ids", []), table.get("void"), table.get("palette", "")
    if not isinstance(ids, list) or not all(type(value) is int for value in ids):
        raise PlanError(f"labels.ids: {str(ids)[:80]} does not fit; a list of whole numbers is needed")
    if void is not None and type(void) is not int:
        raise PlanError(f"labels.void: {str(void)[:80]} does not fit; a whole number is needed")
    if not isinstance(palette, str):
        raise PlanError(f"labels.palette: {str(palette)[:80]} is not a text")
    output_ids = table.get("output_ids", False)
    if not isinstance(output_ids, bool):
        raise PlanError(f"labels.output_ids: {str(output_ids)[:80]} does not fit; true or false is needed")
    return LabelCoding(void, tuple(ids), read_palette(str(folder / palette)) if palette else None, output_ids)


def labels_table(coding: LabelCoding, relative: Callable[[str], str]) -> dict[str, Any]:
    """Return the table that :func:`read_labels` reads back; empty where nothing is stated.

    Args:
        coding: what is stated.
        relative: turns the name of a palette's file into one that the plan can hold.
    """
    table: dict[str, Any] = {}
    if coding.ids:
        table["ids"] = list(coding.ids)
    if coding.void is not None:
        table["void"] = coding.void
    if coding.palette is not None:
        table["palette"] = relative(coding.palette.path)
    if coding.output_ids:
        table["output_ids"] = True
    return table

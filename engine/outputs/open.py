"""Masks -> submission, arrays, pictures: chooses the writer and checks its goal before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.outputs.arrays import NpyWriter, NpzWriter
from engine.outputs.base import MaskWriter
from engine.outputs.goal import FolderGoal
from engine.outputs.png import PngWriter
from engine.outputs.sidecar import check_sidecar
from engine.outputs.submission import RLE_SUFFIX, CsvWriter, RleWriter
from engine.outputs.zarr_store import ZarrWriter
from engine.sources.zarr_store import is_store
from engine.utils.optional import require

FORMATS = (
    ".csv (submission), .rle.csv (run lengths), .npz or .npy (uint8 masks), .zarr, "
    "or a folder (palette PNGs; end its name in / if it has a dot); .png and .tif with --tile, for one scene"
)
FOLDER = ""
# Forms whose result is a folder on the disk.
FOLDERS = (FOLDER, ".zarr")

WRITERS: dict[str, Callable[..., MaskWriter]] = {
    ".csv": CsvWriter,
    RLE_SUFFIX: RleWriter,
    ".npy": NpyWriter,
    ".npz": NpzWriter,
    ".zarr": ZarrWriter,
    FOLDER: PngWriter,
}


def form_of(goal: Path) -> str:
    """Return the suffix that decides how a goal is written; that of a folder is empty."""
    if isinstance(goal, FolderGoal):
        return FOLDER
    return RLE_SUFFIX if goal.name.lower().endswith(RLE_SUFFIX) else goal.suffix.lower()


def open_writer(
    goal: Path,
    ids: Sequence[str],
    size: tuple[int, int],
    classes: int,
    overwrite: bool = False,
    record: Mapping[str, Any] | None = None,
) -> MaskWriter:
    """Choose the writer by the suffix of the goal.

    Args:
        goal: file or folder to make.
        ids: names of all images, in order.
        size: (height, width) of a mask.
        classes: number of classes.
        overwrite: replace what is there.
        record: what goes with the masks, see :func:`engine.runs.provenance.run_record`: into an .npz as ``metadata``,
            beside anything else as ``GOAL.json``; None for none.

    Raises:
        OutputError: unknown suffix, no such folder, or something is there and ``overwrite`` is not set.
    """
    check_goal(goal, overwrite)
    if record is not None:
        check_sidecar(goal, overwrite)
    return WRITERS[form_of(goal)](goal, ids, size, classes, record)


def check_goal(goal: Path, overwrite: bool, allowed: Sequence[str] = tuple(WRITERS), told: str = FORMATS) -> None:
    """Refuse a goal that cannot become a mask file or folder.

    Args:
        goal: file or folder to make.
        overwrite: whether what is there may be replaced.
        allowed: the suffixes that can be written.
        told: these, in words.

    Raises:
        OutputError: unknown suffix, no such folder, something is there and ``overwrite`` is not set, or a package that
            the form needs is missing.
    """
    if goal.name in ("", ".."):
        raise OutputError(f"cannot write {goal}: name a file or a folder of its own")
    form = form_of(goal)
    if form not in allowed:
        raise OutputError(f"cannot write {goal.suffix or 'a folder'} ({goal}); allowed are {told}")
    check_replaceable(goal, overwrite)
    if goal.exists() and (form in FOLDERS) != goal.is_dir():
        raise OutputError(f"{goal} is {'a folder' if goal.is_dir() else 'a file'}: choose another name")
    if form == FOLDER and goal.is_dir() and any(path.suffix.lower() not in (".png", ".tif") for path in goal.iterdir()):
        raise OutputError(f"{goal} holds more than masks (.png, .tif), so it is not replaced: choose another folder")
    if form == ".zarr":
        require("zarr", "zarr", f"writing {goal} needs zarr", OutputError)
        if goal.is_dir() and any(goal.iterdir()) and not is_store(goal):
            raise OutputError(f"{goal} is a folder and no Zarr store, so it is not replaced: choose another name")


def check_replaceable(goal: Path, overwrite: bool) -> None:
    """Refuse a path that exists (unless ``overwrite``) or whose folder cannot be written.

    Raises:
        OutputError: saying which.
    """
    if goal.exists() and not overwrite:
        raise OutputError(f"{goal} exists: add --overwrite to replace it, or choose another name")
    if not goal.parent.is_dir():
        raise OutputError(f"no such folder: {goal.parent}; make it first")
    if not os.access(goal.parent, os.W_OK):
        raise OutputError(f"cannot write into {goal.parent}: choose another folder")


__all__ = ["FORMATS", "WRITERS", "MaskWriter", "check_goal", "check_replaceable", "form_of", "open_writer"]

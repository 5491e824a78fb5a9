"""Where the record of a result stands: beside it as ``OUTPUT.json``, or inside an .npz as its array ``metadata``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.outputs.path import FolderOutput
from engine.sources.naming import natural
from engine.sources.record import HASH_KEY, IDS_KEY, MOST_BYTES, sidecar

# Forms that hold the names of images, in order.
KEEPING_IDS = (".csv", ".json", ".npz", ".zarr")


def record_text(record: Mapping[str, Any]) -> str:
    """Return a record as JSON for people and programs."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def check_sidecar(output: Path, overwrite: bool) -> None:
    """Refuse a result whose sidecar would replace a file that is there.

    Raises:
        OutputError: something is there and ``overwrite`` is not set, or it is no sidecar.
    """
    path = sidecar(output)
    if path is None or not path.exists():
        return
    if not overwrite:
        raise OutputError(f"{path} exists: add --overwrite to replace it, or choose another name")
    if not _is_record(path):
        raise OutputError(f"{path} would be replaced by the record of {output.name}, and is none: choose another name")


def _is_record(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return False
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(held, dict) and HASH_KEY in held


def ids_beside(output: Path, ids: Sequence[str], named: bool) -> dict[str, list[str]]:
    """Return what the record says of the images' names: those that the masks themselves lose.

    A folder has no order, an .npy file no names; every other form keeps both.

    Args:
        output: file or folder to make.
        ids: names of all images, in order.
        named: whether they are names of their own, and not row numbers.
    """
    form = "" if isinstance(output, FolderOutput) else output.suffix.lower()
    lost = form == ".npy" or (form not in KEEPING_IDS and list(ids) != sorted(ids, key=natural))
    return {IDS_KEY: list(ids)} if named and lost else {}

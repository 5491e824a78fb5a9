"""Where the record of a result stands: beside it as ``OUTPUT.json``, or inside an .npz as its array ``metadata``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import OutputError
from engine.utils.files import followed

HASH_KEY = "plan_sha256"
NPZ_KEY = "metadata"
MOST_BYTES = 10_000_000


def record_text(record: Mapping[str, Any]) -> str:
    """Return a record as JSON for people and programs."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def sidecar(output: Path) -> Path | None:
    """Return where the record of a result goes: ``OUTPUT.json``, or None for an .npz, which holds it itself.

    Behind a symbolic link it is beside the link's target.
    """
    output = followed(output)
    return None if output.suffix.lower() == ".npz" else output.with_name(f"{output.name}.json")


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


def read_record(output: Path) -> Mapping[str, Any]:
    """Return the record that goes with an output; empty where there is none that can be read."""
    path = sidecar(output)
    try:
        if path is not None:
            held = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_BYTES else None
        else:
            from engine.sources.numpy_files import array_files

            array = array_files(output).get(NPZ_KEY)
            if array is None or array.shape != () or array.dtype.itemsize > 4 * MOST_BYTES:
                return {}
            with np.load(output, allow_pickle=False) as archive:
                held = json.loads(archive[NPZ_KEY].item())
    except Exception:  # damaged in any way: there is no record to go by
        return {}
    return held if isinstance(held, dict) else {}

"""Records of results, read back: where they stand, what they hold, and the order of the images they were made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.sources.base import Source
from engine.sources.joining import picked
from engine.sources.numpy_files import array_files
from engine.utils.files import followed

HASH_KEY = "plan_sha256"
NPZ_KEY = "metadata"
IDS_KEY = "ids"
# Names of some million images.
MOST_BYTES = 1 << 28


def sidecar(output: Path) -> Path | None:
    """Return where the record of a result goes: ``OUTPUT.json``, or None for an .npz, which holds it itself.

    Behind a symbolic link it is beside the link's target.
    """
    output = followed(output)
    return None if output.suffix.lower() == ".npz" else output.with_name(f"{output.name}.json")


def read_record(output: Path) -> Mapping[str, Any]:
    """Return the record that goes with an output; empty where there is none that can be read."""
    path = sidecar(output)
    try:
        if path is not None:
            held = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_BYTES else None
        else:
            array = array_files(output).get(NPZ_KEY)
            if array is None or array.shape != () or array.dtype.itemsize > 4 * MOST_BYTES:
                return {}
            with np.load(output, allow_pickle=False) as archive:
                held = json.loads(archive[NPZ_KEY].item())
    except Exception:  # damaged in any way: there is no record to go by
        return {}
    return held if isinstance(held, dict) else {}


def as_recorded(source: Source, path: Path) -> Source:
    """Return masks of this program under the names and in the order of the images that they were made of.

    An array has no names and a folder no order of its own; masks without a record come back as they are.

    Args:
        source: the masks.
        path: their file or folder.
    """
    ids = _recorded_ids(path)
    if len(ids) != len(source) or ids == list(source.ids):
        return source
    if not source.named:
        return replace(source, ids=ids, named=True)
    place = {name: index for index, name in enumerate(source.ids)}
    if place.keys() != set(ids):
        return source
    return picked(source, np.array([place[name] for name in ids], np.int64))


def _recorded_ids(path: Path) -> list[str]:
    """Return the names of the images that masks were made of, in order; empty where nothing says them."""
    record = read_record(path)
    if HASH_KEY not in record:
        return []
    held: Any = record.get(IDS_KEY)
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                held = archive[IDS_KEY].tolist()
        elif path.suffix.lower() == ".zarr":
            from engine.sources.zarr_store import attributes

            held = attributes(path).get(IDS_KEY)
    except Exception:  # damaged in any way
        return []
    fits = isinstance(held, list) and all(isinstance(name, str) for name in held) and len(set(held)) == len(held)
    return held if fits else []

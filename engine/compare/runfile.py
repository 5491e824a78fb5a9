"""A comparison as one .npz: ``metadata`` (JSON text) and the gallery's arrays; checked when it is read."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from engine.compare.checks import MOST, contradiction
from engine.compare.result import Comparison, Facts, Pictures
from engine.errors import InputError, OutputError
from engine.metrics import VOID
from engine.sources.numpy_files import array_files
from engine.sources.record import NPZ_KEY
from engine.utils.boundary import refusing
from engine.utils.files import replacing
from engine.utils.numbers import json_number

SCHEMA = 3
ARRAYS = ("images", "truth", "fused", "members", "doubt")
MOST_BYTES = 4 * 2**30
KIND = "maskfuse comparison"


def write_run(path: Path, done: Comparison) -> None:
    """Write a comparison; the file appears complete or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    arrays = {name: getattr(done.pictures, name) for name in ARRAYS}
    facts = plain(asdict(done.facts))
    head = {"kind": KIND, "schema": SCHEMA, "content_sha256": _digest(facts, arrays), "facts": facts}
    try:
        with replacing(path) as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, **{NPZ_KEY: np.array(json.dumps(head, allow_nan=False)), **arrays})
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): choose another place") from None


def read_run(path: Path) -> Comparison:
    """Read a comparison.

    Raises:
        InputError: no such file, not a run of ``engine compare``, of another version, damaged or edited.
    """
    if path.is_dir() or path.suffix.lower() != ".npz":
        raise InputError(f"{path} is no run: give the .npz that engine compare --out wrote")
    found = array_files(path)
    held = found.get(NPZ_KEY)
    if held is None or held.dtype.kind != "U" or held.shape != ():
        raise InputError(f"{path} is no run: give the .npz that engine compare --out wrote")
    if sum(math.prod(array.shape) * array.dtype.itemsize for array in found.values()) > MOST_BYTES:
        raise InputError(f"{path} would need more than {MOST_BYTES / 2**30:.0f} GB of memory: that is no run")
    with (
        refusing(lambda why: f"cannot read {path} ({why}): it is damaged, run engine compare again"),
        np.load(path, allow_pickle=False) as archive,
    ):
        head = _head(path, str(archive[NPZ_KEY]))
        if not set(ARRAYS) <= set(found) or not all(found[name].dtype == np.uint8 for name in ARRAYS):
            raise InputError(f"{path} lacks its pictures: it is damaged, run engine compare again")
        arrays = {name: archive[name] for name in ARRAYS}
    if head["content_sha256"] != _digest(head["facts"], arrays):
        raise InputError(f"{path} is not as engine compare wrote it: damaged or changed, run engine compare again")
    facts = _typed(Facts, head["facts"], str(path), "facts")
    wrong = contradiction(facts)
    if wrong:
        raise InputError(f"{path} contradicts itself ({wrong}): it is damaged or changed, run engine compare again")
    _check_shapes(path, facts, arrays)
    return Comparison(facts, Pictures(**arrays))


def plain(value: Any) -> Any:
    """Return only JSON types: NaN becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return json_number(value, None)
    return value


def _head(path: Path, text: str) -> dict[str, Any]:
    try:
        head = json.loads(text)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict) or head.get("kind") != KIND:
        raise InputError(f"{path} is no run: give the .npz that engine compare --out wrote")
    if head.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is a run of schema {str(head.get('schema'))[:20]}, this version reads {SCHEMA}: "
            "run engine compare again"
        )
    if not {"content_sha256", "facts"} <= set(head):
        raise InputError(f"{path} is not as engine compare wrote it: damaged or changed, run engine compare again")
    return head


def _digest(facts: Any, arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in ARRAYS:
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _typed(kind: Any, value: Any, path: str, place: str) -> Any:
    """Return JSON as its original dataclasses; every field must be present and of its type."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        if isinstance(value, dict) and set(value) == {item.name for item in fields(kind)}:
            return kind(**{name: _typed(hints[name], value[name], path, name) for name in hints})
    elif origin is list and isinstance(value, list):
        return [_typed(inner[0], item, path, place) for item in value]
    elif origin is dict and isinstance(value, dict):
        return {key: _typed(inner[1], item, path, place) for key, item in value.items()}
    elif kind is float and (value is None or (isinstance(value, int | float) and not isinstance(value, bool))):
        if value is None or abs(value) <= MOST:
            return math.nan if value is None else float(value)
    elif (kind is int and type(value) is int and abs(value) <= MOST) or (kind is str and type(value) is str):
        return value
    raise InputError(f"{path} is no run of this version ({place} is not what it should be): run engine compare again")


def _check_shapes(path: Path, facts: Facts, arrays: dict[str, Any]) -> None:
    tiles, classes = len(facts.tiles), len(facts.classes)
    size = (max(tile.height for tile in facts.tiles), max(tile.width for tile in facts.tiles)) if tiles else None
    size = size or arrays["fused"].shape[1:]
    wanted = {
        "images": ((tiles, *size, 1), (tiles, *size, 3)),
        "truth": ((tiles, *size), (0, *size)),
        "fused": ((tiles, *size),),
        "members": ((tiles, len(facts.members), *size),),
        "doubt": ((tiles, *size),),
    }
    fits = all(arrays[name].shape in shapes for name, shapes in wanted.items())
    truth = arrays["truth"]
    known = all(int(arrays[name].max(initial=0)) < classes for name in ("fused", "members"))
    known = known and bool(((truth < classes) | (truth == VOID)).all())
    if not (fits and known):
        raise InputError(f"{path} contradicts itself: it is damaged, run engine compare again")

"""ensemble.toml: everything a run needs in one declarative file, checked field by field before anything is opened.

strategy = "mean-prob"        # a name from engine.fusion.strategies
suppress = [0]                # omit for the ignored class that the contracts declare, [] for none
threshold = 0.9               # a suppressed class is kept where its probability reaches this; omit for never
bias = [0, 0, 0.1, 0, 0.3]    # one per class, added to the fused score; omit for none
prior = [1, 1, 1, 0.5, 2]     # one per class: target frequency / frequency in training; omit for none
vote_stage = "members"        # members or fused
min_region = 16               # regions of fewer pixels go to the surrounding class; omit for no clean-up
decode = "rankseg"            # labels for the IoU of whole images, or rankseg-dice; omit for the argmax of each pixel
temperature = 1.2             # divides the logarithms of written probabilities; no label depends on it
views = ["d4", "scale:1.25"]  # what members also run on, see engine.models.views; flips = "horizontal" is one of them
view_mean = "probabilities"   # what of the views, and of the folds of a member, is averaged; omit for logits

[cleanup."big rock"]          # what a class, by name or id, must fulfil; omit for nothing
threshold = 0.6               # predicted only where its probability reaches this, else the next best class
min_region = 25               # in place of the number for all classes
largest = true                # only its largest region of an image stays; the others go to the surrounding class
fill_holes = true             # what it encloses becomes this class

[input]                       # how images are read; omit for what their files say
layout = "NCHW"               # axes of an array: NHWC, NCHW, NHW, HWC, CHW or HW
exif = "ignore"               # leave pictures as stored; omit to turn them as their EXIF orientation says
rgb_as_grey = true            # RGB images for nets of one channel (ITU-R BT.601)
alpha = true                  # with --tile, the last band of a raster is alpha: no data where it is 0, no band for nets
resolution = "ignore"         # read maps as stored; omit to read them at the ground resolution that members state
tile = "128x256"              # cut images of any size into such tiles, as --tile; omit for whole images
stitch = true                 # before that, put overlapping images back together, as --stitch

[output]                      # how masks are written
min_area = 25                 # leave out smaller polygons, in squared units of the coordinate reference system

[unknown]                     # pixels that get no class; omit for none
threshold = 0.63              # those with more doubt than this
doubt = "entropy"             # the map of doubt; omit for entropy
risk = 0.1                    # what engine select --unknown-risk calibrated the threshold to; omit where it is stated
groups = 42                   # on so many groups

[labels]                      # what true masks hold; omit for class numbers, with 255 for void
ids = [0, 7, 11, 12, 13]      # the value of each class
void = 254                    # the value of pixels without a class; omit for 255
output_ids = true             # write these ids into masks too; omit for class numbers
# palette = "colours.csv"     # in place of ids, the colour of each class; see engine.sources.palettes

[[members]]
model = "unet.onnx"           # relative to this file; a folder or glob: one member per file
weight = 2                    # omit for 1; a list has one per class
temperature = 1.4             # its logits are (logits + bias) / temperature; omit both to take them as they are
bias = [0, 0.1, 0, -0.2, 0]
# The checksum of the file; omit to accept any file.
sha256 = "9f2c0d6b5e7a4f1380c4d2a1b6e8f7035a9d1c2e4b6f8a0d3c5e7f9b1a2d4c6e"

[[members]]
model = "foreign.onnx"
[members.contract]            # for a file without a contract
classes = ["background", "soil", "bedrock", "sand", "big rock"]
scale = 0.00392156862745098
activation = "logits"

[[members]]
# The nets of a cross-validation count as one member, their mean, see engine.models.folds.
folds = ["pan-fold0.onnx", "pan-fold1.onnx", "pan-fold2.onnx"]
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ContractError, OutputError, PlanError
from engine.fusion.calibration import Calibration
from engine.fusion.cleanup import read_cleanup
from engine.fusion.doubt import Unknown
from engine.models.facts.base import Facts
from engine.models.facts.toml_file import expanded
from engine.runs.plan_input import InputTable
from engine.runs.plan_labels import labels_table, read_labels
from engine.runs.plan_output import OutputTable
from engine.runs.plan_unknown import read_unknown, unknown_table
from engine.sources.coding import PLAIN, LabelCoding
from engine.utils.console import one_line
from engine.utils.files import write_text

MOST_BYTES = 1_000_000
MOST_PATH = 4096
Weight = float | tuple[float, ...]
KEYS = (
    "classes",
    "strategy",
    "suppress",
    "threshold",
    "bias",
    "prior",
    "vote_stage",
    "min_region",
    "decode",
    "temperature",
    "flips",
    "views",
    "view_mean",
)
MEMBER_KEYS = ("model", "folds", "weight", "sha256", "contract", "map", "temperature", "bias")


@dataclass(frozen=True)
class PlannedMember:
    """One ``[[members]]`` table.

    Attributes:
        model: file, folder or glob, resolved against the plan's folder; empty where there are folds.
        weight: not negative; a tuple has one per class.
        contract: contract fields for files without a contract; may contain ``output_name``.
        sha256: the file's checksum, 64 hexadecimal digits; of folds one for each, in a tuple; empty to accept any.
        class_map: the ensemble's class name for each of the model's, empty for none; None: the same classes.
        calibration: temperature and bias of its logits.
        folds: the files of the nets of a cross-validation, which count as one member; empty for a member of one model.
    """

    model: str
    weight: Weight = 1.0
    contract: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | tuple[str, ...] = ""
    class_map: Mapping[str, str] | None = None
    calibration: Calibration = field(default_factory=Calibration)
    folds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A checked plan; None (for ``bias`` and ``prior``: empty) means: not given, the default applies.

    Attributes:
        members: at least one.
        classes: names of the ensemble's classes; empty for those of the first member.
        strategy: name of the fusion strategy.
        suppress: ids of the classes never predicted.
        threshold: see :class:`engine.fusion.decoding.Decoding`, as the next four.
        bias: one per class.
        prior: one per class.
        vote_stage: ``members`` or ``fused``.
        min_region: minimum size in pixels of a region that is kept.
        decode: how probabilities become labels.
        temperature: of the fused probabilities as they are written.
        flips: name of the mirror images that members also run on; another way to say ``views``.
        views: names of what members also run on, see :mod:`engine.models.views`.
        view_mean: what of the views is averaged.
        cleanup: what classes must fulfil (:mod:`engine.fusion.cleanup`), by their names or ids.
        input: how images are read.
        output: how masks are written.
        labels: what true masks hold, and whether masks are written with the same ids.
        unknown: which pixels are too doubtful for a label; None for none.
    """

    members: tuple[PlannedMember, ...]
    classes: tuple[str, ...] = ()
    strategy: str | None = None
    suppress: tuple[int, ...] | None = None
    threshold: float | None = None
    bias: tuple[float, ...] = ()
    prior: tuple[float, ...] = ()
    vote_stage: str | None = None
    min_region: int | None = None
    decode: str | None = None
    temperature: float | None = None
    flips: str | None = None
    views: tuple[str, ...] | None = None
    view_mean: str | None = None
    cleanup: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    input: InputTable = field(default_factory=InputTable)
    output: OutputTable = field(default_factory=OutputTable)
    labels: LabelCoding = PLAIN
    unknown: Unknown | None = None


def read_plan(path: Path) -> Plan:
    """Read and check a plan file.

    Raises:
        PlanError: no such file, not TOML, unknown keys, wrong types.
    """
    if not path.is_file():
        raise PlanError(f"no such plan: {path}")
    if path.stat().st_size > MOST_BYTES:
        raise PlanError(f"{path} is larger than {MOST_BYTES} bytes: not a plan")
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{path} is not TOML ({error}): correct that line") from None
    try:
        return _plan(raw, path.parent)
    except (PlanError, ContractError) as error:
        raise PlanError(f"{path}: {error}") from None


def write_plan(path: Path, plan: Plan, comment: str = "") -> None:
    """Write a plan that :func:`read_plan` reads back unchanged; values not given are not written.

    Args:
        path: the file to write; replaced if it exists. It appears complete or not at all.
        plan: the plan to write; models inside the plan's folder (or near it) are named relative to it.
        comment: comment lines above it.

    Raises:
        OutputError: it cannot be written there.
    """
    import tomli_w

    lines = [one_line(line) for line in comment.splitlines()]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    text = header + ("\n" if header else "") + tomli_w.dumps(_tables(plan, path.parent))
    try:
        write_text(path, text)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): choose another place") from None
    except UnicodeEncodeError:
        raise OutputError(f"cannot write {path}: a model's name is not UTF-8, which TOML needs: rename it") from None


def _tables(plan: Plan, folder: Path) -> dict[str, Any]:
    stated = {key: getattr(plan, key) for key in KEYS}
    kept = {key: value for key, value in stated.items() if value is not None and (value != () or key == "suppress")}
    coding = labels_table(plan.labels, lambda path: _relative(path, folder))
    stated_tables = {
        "cleanup": plan.cleanup,
        "input": plan.input.stated,
        "output": plan.output.stated,
        "unknown": unknown_table(plan.unknown),
        "labels": coding,
    }
    for name, table in stated_tables.items():
        if table:
            kept[name] = table
    return {**kept, "members": [_member_table(member, folder) for member in plan.members]}


def _member_table(member: PlannedMember, folder: Path) -> dict[str, Any]:
    weight = [*map(_short, member.weight)] if isinstance(member.weight, tuple) else _short(member.weight)
    files = {"folds": [_relative(file, folder) for file in member.folds]} if member.folds else {}
    table: dict[str, Any] = {**(files or {"model": _relative(member.model, folder)}), "weight": weight}
    if member.sha256:
        table["sha256"] = member.sha256 if isinstance(member.sha256, str) else list(member.sha256)
    if member.contract:
        # TOML has no null: None is omitted.
        table["contract"] = {key: value for key, value in member.contract.items() if value is not None}
    if member.class_map is not None:
        table["map"] = dict(member.class_map)
    if member.calibration:
        table["temperature"] = member.calibration.temperature
        if any(member.calibration.bias):
            table["bias"] = list(member.calibration.bias)
    return table


def _short(number: float) -> float | int:
    """Return whole numbers as int: 2 reads better than 2.0."""
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _relative(model: str, folder: Path) -> str:
    """Return the model's path relative to the plan's folder; unchanged if there is none (another drive)."""
    try:
        return Path(os.path.relpath(model, folder)).as_posix()
    except ValueError:
        return model


def _plan(raw: dict[str, Any], folder: Path) -> Plan:
    _known(raw, {*KEYS, "members", "cleanup", "input", "output", "unknown", "labels"}, "plan")
    tables = raw.get("members")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise PlanError("members: at least one [[members]] table is needed")
    if "flips" in raw and "views" in raw:
        raise PlanError("flips and views: flips are views too; keep views alone")
    suppress = raw.get("suppress")
    return Plan(
        members=tuple(_member(table, folder) for table in tables),
        classes=_texts(raw.get("classes", []), "classes"),
        strategy=_text(raw, "strategy"),
        suppress=None if suppress is None else _numbers(suppress, "suppress", int),
        threshold=_number(raw["threshold"], "threshold", (int, float)) if "threshold" in raw else None,
        bias=tuple(float(value) for value in _numbers(raw.get("bias", []), "bias", (int, float))),
        prior=tuple(float(value) for value in _numbers(raw.get("prior", []), "prior", (int, float))),
        vote_stage=_text(raw, "vote_stage"),
        min_region=_number(raw["min_region"], "min_region", int) if "min_region" in raw else None,
        decode=_text(raw, "decode"),
        temperature=_number(raw["temperature"], "temperature", (int, float)) if "temperature" in raw else None,
        flips=_text(raw, "flips"),
        views=_texts(raw["views"], "views") if "views" in raw else None,
        view_mean=_text(raw, "view_mean"),
        cleanup=_cleanup(raw.get("cleanup", {})),
        input=InputTable.of(raw.get("input", {})),
        output=OutputTable.of(raw.get("output", {})),
        labels=read_labels(raw.get("labels", {}), folder),
        unknown=read_unknown(raw.get("unknown")),
    )


def _member(table: dict[str, Any], folder: Path) -> PlannedMember:
    _known(table, set(MEMBER_KEYS), "members")
    model, folds = _text(table, "model"), _folds(table)
    if bool(model) == bool(folds):
        raise PlanError(
            'members: every [[members]] table needs model = "file.onnx", or folds = ["fold0.onnx", "fold1.onnx"], '
            "one of the two"
        )
    for file in folds or (model or "",):
        _check_path(file)
    contract = table.get("contract", {})
    if not isinstance(contract, dict):
        raise PlanError(f"members.contract: {contract!r} is not a table")
    checked = Facts("the plan", expanded(contract, "members.contract")).fields
    digest = _digests(table["sha256"], len(folds)) if folds and "sha256" in table else _digest(_text(table, "sha256"))
    class_map = table.get("map")
    if class_map is not None:
        if not isinstance(class_map, dict):
            raise PlanError(f"members.map: {class_map!r} is not a table of class names")
        class_map = dict(zip(class_map, _texts(list(class_map.values()), "members.map"), strict=True))
    weight, calibration = _weight(table.get("weight", 1)), _calibration(table)
    files = tuple(str(folder / file) for file in folds)
    return PlannedMember(str(folder / model) if model else "", weight, checked, digest, class_map, calibration, files)


def _folds(table: dict[str, Any]) -> tuple[str, ...]:
    folds = _texts(table.get("folds", []), "folds")
    if "folds" in table and (len(folds) < 2 or not all(folds)):
        raise PlanError(f"folds: {str(table['folds'])[:80]}; name two files or more, one per fold")
    return folds


def _digests(value: object, count: int) -> tuple[str, ...]:
    digests = tuple(map(_digest, _texts(value, "sha256")))
    if len(digests) != count:
        raise PlanError(f"sha256: {len(digests)} checksums for {count} folds; give one for each, in their order")
    return digests


def _digest(digest: str | None) -> str:
    if digest and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise PlanError(f"sha256: {digest[:80]!r} is no SHA-256; 64 hexadecimal digits are needed")
    return (digest or "").lower()


def _cleanup(raw: object) -> dict[str, dict[str, Any]]:
    if not isinstance(raw, dict):
        raise PlanError('cleanup: it is a table by class, as in [cleanup."big rock"]')
    return {name: read_cleanup(name[:40], table).stated for name, table in raw.items()}


def _calibration(table: dict[str, Any]) -> Calibration:
    temperature = _number(table.get("temperature", 1.0), "temperature", (int, float))
    return Calibration(temperature, tuple(map(float, _numbers(table.get("bias", []), "bias", (int, float)))))


def _check_path(model: str) -> None:
    """Refuse impossible file names, and patterns that match whole disks."""
    if len(model) > MOST_PATH or "\0" in model:
        raise PlanError(f"model: {model[:60]!r} is no file name: at most {MOST_PATH} characters, none of them NUL")
    parts = model.replace("\\", "/").split("/")
    if "**" in parts or sum("*" in part for part in parts) > 2:
        raise PlanError(f"model: {model[:60]!r} fits whole disks: name a file, a folder, or a glob of one folder")


def _weight(value: object) -> Weight:
    if isinstance(value, list):
        if not value:
            raise PlanError("weight: an empty list; give a number, or one per class")
        return tuple(float(item) for item in _numbers(value, "weight", (int, float)))
    return _number(value, "weight", (int, float))


def _known(table: dict[str, Any], allowed: set[str], where: str) -> None:
    unknown = sorted(set(table) - allowed)
    if unknown:
        raise PlanError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(sorted(allowed))}")


def _text(table: dict[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise PlanError(f"{key}: {value!r} is not a text")
    return value


def _texts(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.isprintable() for item in value):
        raise PlanError(f"{key}: {str(value)[:80]} does not fit; texts are needed")
    return tuple(value)


def _number(value: object, key: str, kinds: type | tuple[type, ...]) -> Any:
    (checked,) = _numbers([value], key, kinds)
    return checked if kinds is int else float(checked)


def _numbers(value: object, key: str, kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(v, kinds) and not isinstance(v, bool) for v in value):
        wanted = "whole numbers" if kinds is int else "numbers"
        raise PlanError(f"{key}: {str(value)[:80]} does not fit; {wanted} are needed")
    if any(isinstance(v, int) and abs(v) >= 2**63 for v in value):
        raise PlanError(f"{key}: a whole number of more than 64 bits")
    if any(not math.isfinite(v) for v in value):
        raise PlanError(f"{key}: {str(value)[:80]}; every number must be finite")
    return tuple(value)

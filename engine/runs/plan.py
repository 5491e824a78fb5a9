"""ensemble.toml: everything a run needs in one declarative file, checked field by field before anything is opened.

strategy = "mean-prob"        # a name out of engine.fusion.strategies
suppress = [0]                # omit for the ignored class that the contracts declare, [] for none
threshold = 0.9               # a suppressed class stays where its probability reaches this; omit for never
bias = [0, 0, 0.1, 0, 0.3]    # one a class, added to the fused score; omit for none
prior = [1, 1, 1, 0.5, 2]     # one a class: frequency to come / frequency in training; omit for none
vote_stage = "members"        # members or fused
min_region = 16               # regions of fewer pixels go to the class around them; omit for no clean-up
flips = "horizontal"          # none, horizontal, vertical or both

[input]                       # how images are read; omit for what their files say
alpha = true                  # the last band of a raster is alpha: no data where it is 0, and no band for the nets

[output]                      # how masks are written
min_area = 25                 # leave out smaller polygons, in squared units of the coordinate reference system

[[members]]
model = "unet.onnx"           # relative to this file; a folder or glob gives one member a file
weight = 2                    # omit for 1; a list has one a class
# The file must be this one; omit to take any.
sha256 = "9f2c0d6b5e7a4f1380c4d2a1b6e8f7035a9d1c2e4b6f8a0d3c5e7f9b1a2d4c6e"

[[members]]
model = "foreign.onnx"
[members.contract]            # what a file without a contract does not say
classes = ["background", "soil", "bedrock", "sand", "big rock"]
scale = 0.00392156862745098
activation = "logits"
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
from engine.models.facts.base import Facts
from engine.models.facts.toml_file import expanded
from engine.runs.plan_input import InputTable
from engine.runs.plan_output import OutputTable
from engine.utils.console import one_line
from engine.utils.files import write_text

MOST_BYTES = 1_000_000
MOST_PATH = 4096
Weight = float | tuple[float, ...]
KEYS = ("classes", "strategy", "suppress", "threshold", "bias", "prior", "vote_stage", "min_region", "flips")
MEMBER_KEYS = ("model", "weight", "sha256", "contract", "map")


@dataclass(frozen=True)
class PlannedMember:
    """One ``[[members]]`` table.

    Attributes:
        model: file, folder or glob, made absolute against the plan's folder.
        weight: not negative; a tuple has one a class.
        contract: contract fields stated for files that carry none; may hold ``output_name``.
        sha256: what the file must be, 64 hexadecimal digits; empty to take any.
        class_map: the ensemble's name of a class by the model's own, an empty text for none; None: the same classes.
    """

    model: str
    weight: Weight = 1.0
    contract: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    class_map: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Plan:
    """A checked plan; None (of ``bias`` and ``prior``: empty) means: not stated, the default holds.

    Attributes:
        members: at least one.
        classes: names of the ensemble's classes; empty for those of the first member.
        strategy: name of the fusion strategy.
        suppress: ids of the classes never predicted.
        threshold: see :class:`engine.fusion.decoding.Decoding`, as the next four.
        bias: one a class.
        prior: one a class.
        vote_stage: ``members`` or ``fused``.
        min_region: pixels a region needs to stay.
        flips: mirror images the members see too, see :mod:`engine.inference.flips`.
        input: how images are read.
        output: how masks are written.
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
    flips: str | None = None
    input: InputTable = field(default_factory=InputTable)
    output: OutputTable = field(default_factory=OutputTable)


def read_plan(path: Path) -> Plan:
    """Read and check a plan file.

    Raises:
        PlanError: no such file, not TOML, unknown keys, wrong types.
    """
    if not path.is_file():
        raise PlanError(f"no such plan: {path}")
    if path.stat().st_size > MOST_BYTES:
        raise PlanError(f"{path} is larger than {MOST_BYTES} bytes: that is no plan")
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{path} is not TOML ({error}): mend that line") from None
    try:
        return _plan(raw, path.parent)
    except (PlanError, ContractError) as error:
        raise PlanError(f"{path}: {error}") from None


def write_plan(path: Path, plan: Plan, comment: str = "") -> None:
    """Write a plan that :func:`read_plan` reads back as it was; what is not stated is not written.

    Args:
        path: the file to make; replaced when it is there. It appears whole or not at all.
        plan: what to write; models inside the plan's folder (or near it) are named relative to it.
        comment: lines that stand above it as comments.

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
    for name, table in (("input", plan.input.stated), ("output", plan.output.stated)):
        if table:
            kept[name] = table
    return {**kept, "members": [_member_table(member, folder) for member in plan.members]}


def _member_table(member: PlannedMember, folder: Path) -> dict[str, Any]:
    weight = [*map(_short, member.weight)] if isinstance(member.weight, tuple) else _short(member.weight)
    table: dict[str, Any] = {"model": _relative(member.model, folder), "weight": weight}
    if member.sha256:
        table["sha256"] = member.sha256
    if member.contract:
        # TOML has no null: what is None is left out.
        table["contract"] = {key: value for key, value in member.contract.items() if value is not None}
    if member.class_map is not None:
        table["map"] = dict(member.class_map)
    return table


def _short(number: float) -> float | int:
    """Return a whole number as such: 2 reads better than 2.0."""
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _relative(model: str, folder: Path) -> str:
    """Return the model's path as seen from the plan's folder; as it is where there is no way (another drive)."""
    try:
        return Path(os.path.relpath(model, folder)).as_posix()
    except ValueError:
        return model


def _plan(raw: dict[str, Any], folder: Path) -> Plan:
    _known(raw, {*KEYS, "input", "output", "members"}, "plan")
    tables = raw.get("members")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise PlanError("members: at least one [[members]] table is needed")
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
        flips=_text(raw, "flips"),
        input=InputTable.of(raw.get("input", {})),
        output=OutputTable.of(raw.get("output", {})),
    )


def _member(table: dict[str, Any], folder: Path) -> PlannedMember:
    _known(table, set(MEMBER_KEYS), "members")
    model = _text(table, "model")
    if not model:
        raise PlanError('members: every [[members]] table needs model = "file.onnx"')
    _check_path(model)
    contract = table.get("contract", {})
    if not isinstance(contract, dict):
        raise PlanError(f"members.contract: {contract!r} is not a table")
    checked = Facts("the plan", expanded(contract, "members.contract")).fields
    digest = _text(table, "sha256") or ""
    if digest and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise PlanError(f"sha256: {digest[:80]!r} is no SHA-256; 64 hexadecimal digits are needed")
    class_map = table.get("map")
    if class_map is not None:
        if not isinstance(class_map, dict):
            raise PlanError(f"members.map: {class_map!r} is not a table of class names")
        class_map = dict(zip(class_map, _texts(list(class_map.values()), "members.map"), strict=True))
    return PlannedMember(str(folder / model), _weight(table.get("weight", 1)), checked, digest.lower(), class_map)


def _check_path(model: str) -> None:
    """Refuse names that no file has, and patterns that walk through whole disks."""
    if len(model) > MOST_PATH or "\0" in model:
        raise PlanError(f"model: {model[:60]!r} is no file name: at most {MOST_PATH} characters, none of them NUL")
    parts = model.replace("\\", "/").split("/")
    if "**" in parts or sum("*" in part for part in parts) > 2:
        raise PlanError(f"model: {model[:60]!r} fits whole disks: name a file, a folder, or a glob of one folder")


def _weight(value: object) -> Weight:
    if isinstance(value, list):
        if not value:
            raise PlanError("weight: an empty list; give a number, or one a class")
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
        raise PlanError(f"{key}: a whole number of more than 64 bits stands there")
    if any(not math.isfinite(v) for v in value):
        raise PlanError(f"{key}: {str(value)[:80]}; every number must be finite")
    return tuple(value)

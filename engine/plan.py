"""ensemble.toml: everything a run needs in one declarative file, checked field by field before anything is opened.

strategy = "mean-prob"        # mean-logit, mean-prob or vote
suppress = [0]                # omit for the ignored class that the contracts declare, [] for none
bias = [0, 0, 0.1, 0, 0.3]    # one a class; omit for none
vote_stage = "members"        # members or fused
threshold = 0.6               # suppress only below this probability; omit for everywhere
prior = [1, 1, 1, 1, 3]       # target over training frequency of each class; omit for none
min_region = 20               # smaller regions go to the class around them; omit for none
flips = "both"                # mirror images for the members: none, horizontal, vertical or both

[[members]]
model = "unet.onnx"           # relative to this file; a folder or glob gives one member a file
weight = 2                    # omit for 1

[[members]]
model = "foreign.onnx"
[members.contract]            # what a file without a contract does not say
classes = ["background", "soil", "bedrock", "sand", "big rock"]
scale = 0.00392156862745098
activation = "logits"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.contract import checked_fields
from engine.errors import ContractError, PlanError

MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class PlannedMember:
    """One ``[[members]]`` table.

    Attributes:
        model: file, folder or glob, made absolute against the plan's folder.
        weight: not negative.
        contract: contract fields stated for files that carry none; may hold ``output_name``.
    """

    model: str
    weight: float = 1.0
    contract: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A checked plan; None means: not stated, the default holds."""

    members: tuple[PlannedMember, ...]
    strategy: str | None = None
    suppress: tuple[int, ...] | None = None
    bias: tuple[float, ...] = ()
    vote_stage: str | None = None
    threshold: float | None = None
    prior: tuple[float, ...] = ()
    min_region: int | None = None
    flips: str | None = None


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


def _plan(raw: dict[str, Any], folder: Path) -> Plan:
    _known(raw, {item.name for item in fields(Plan)}, "plan")
    tables = raw.get("members")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise PlanError("members: at least one [[members]] table is needed")
    suppress = raw.get("suppress")
    return Plan(
        members=tuple(_member(table, folder) for table in tables),
        strategy=_text(raw, "strategy"),
        suppress=None if suppress is None else _numbers(suppress, "suppress", int),
        bias=tuple(float(value) for value in _numbers(raw.get("bias", []), "bias", (int, float))),
        vote_stage=_text(raw, "vote_stage"),
        threshold=_number(raw, "threshold", (int, float)),
        prior=tuple(float(value) for value in _numbers(raw.get("prior", []), "prior", (int, float))),
        min_region=_number(raw, "min_region", int),
        flips=_text(raw, "flips"),
    )


def _member(table: dict[str, Any], folder: Path) -> PlannedMember:
    _known(table, {"model", "weight", "contract"}, "members")
    model = _text(table, "model")
    if not model:
        raise PlanError('members: every [[members]] table needs model = "file.onnx"')
    contract = table.get("contract", {})
    if not isinstance(contract, dict):
        raise PlanError(f"members.contract: {contract!r} is not a table")
    checked = checked_fields({key: value for key, value in contract.items() if key != "output_name"})
    if "output_name" in contract:
        checked["output_name"] = _text(contract, "output_name")
    (weight,) = _numbers([table.get("weight", 1)], "weight", (int, float))
    return PlannedMember(str(folder / model), float(weight), checked)


def _known(table: dict[str, Any], allowed: set[str], where: str) -> None:
    unknown = sorted(set(table) - allowed)
    if unknown:
        raise PlanError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(sorted(allowed))}")


def _text(table: dict[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise PlanError(f"{key}: {value!r} is not a text")
    return value


def _number(table: dict[str, Any], key: str, kinds: type | tuple[type, ...]) -> Any:
    return _numbers([table[key]], key, kinds)[0] if key in table else None


def _numbers(value: object, key: str, kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(v, kinds) and not isinstance(v, bool) for v in value):
        wanted = "whole numbers" if kinds is int else "numbers"
        raise PlanError(f"{key}: {str(value)[:80]} does not fit; {wanted} are needed")
    if any(isinstance(v, int) and abs(v) >= 2**63 for v in value):
        raise PlanError(f"{key}: a whole number of more than 64 bits stands there")
    return tuple(value)

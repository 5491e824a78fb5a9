"""One member of a plan: its table read, checked and written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.fusion.calibration import Calibration
from engine.models.facts.base import Facts
from engine.models.facts.toml_file import expanded
from engine.runs.plan_values import check_known, number, numbers, text, texts

MOST_PATH = 4096
MEMBER_KEYS = ("model", "folds", "weight", "sha256", "contract", "map", "temperature", "bias")
Weight = float | tuple[float, ...]


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


def read_member(table: dict[str, Any], folder: Path) -> PlannedMember:
    """Return a ``[[members]]`` table as TOML gives it, checked; files are relative to ``folder``.

    Raises:
        PlanError: an unknown key, or a value that does not fit.
        ContractError: a contract that does not fit.
    """
    check_known(table, set(MEMBER_KEYS), "members")
    model, folds = text(table, "model"), _folds(table)
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
    digest = _digests(table["sha256"], len(folds)) if folds and "sha256" in table else _digest(text(table, "sha256"))
    class_map = table.get("map")
    if class_map is not None:
        if not isinstance(class_map, dict):
            raise PlanError(f"members.map: {class_map!r} is not a table of class names")
        class_map = dict(zip(class_map, texts(list(class_map.values()), "members.map"), strict=True))
    weight, calibration = _weight(table.get("weight", 1)), _calibration(table)
    files = tuple(str(folder / file) for file in folds)
    return PlannedMember(str(folder / model) if model else "", weight, checked, digest, class_map, calibration, files)


def _folds(table: dict[str, Any]) -> tuple[str, ...]:
    folds = texts(table.get("folds", []), "folds")
    if "folds" in table and (len(folds) < 2 or not all(folds)):
        raise PlanError(f"folds: {str(table['folds'])[:80]}; name two files or more, one per fold")
    return folds


def _digests(value: object, count: int) -> tuple[str, ...]:
    digests = tuple(map(_digest, texts(value, "sha256")))
    if len(digests) != count:
        raise PlanError(f"sha256: {len(digests)} checksums for {count} folds; give one for each, in their order")
    return digests


def _digest(digest: str | None) -> str:
    if digest and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise PlanError(f"sha256: {digest[:80]!r} is no SHA-256; 64 hexadecimal digits are needed")
    return (digest or "").lower()


def _calibration(table: dict[str, Any]) -> Calibration:
    temperature = number(table.get("temperature", 1.0), "temperature", (int, float))
    return Calibration(temperature, tuple(map(float, numbers(table.get("bias", []), "bias", (int, float)))))


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
        return tuple(float(item) for item in numbers(value, "weight", (int, float)))
    return number(value, "weight", (int, float))


def member_table(member: PlannedMember, folder: Path) -> dict[str, Any]:
    """Return the table that :func:`read_member` reads back, with files relative to ``folder`` where possible."""
    weight = [*map(_short, member.weight)] if isinstance(member.weight, tuple) else _short(member.weight)
    files = {"folds": [relative_to(file, folder) for file in member.folds]} if member.folds else {}
    table: dict[str, Any] = {**(files or {"model": relative_to(member.model, folder)}), "weight": weight}
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


def relative_to(model: str, folder: Path) -> str:
    """Return the model's path relative to the plan's folder; unchanged if there is none (another drive)."""
    try:
        return Path(os.path.relpath(model, folder)).as_posix()
    except ValueError:
        return model
